//! The configuration: `config/default.toml`, then the file given by `--config`, then `DAGWRIGHT__SECTION__KEY`.
//!
//! | module | what it is |
//! |---|---|
//! | `agents` | `[agents]` |
//! | `airflow` | `[airflow]`, `[airflow.deploy]` |
//! | `diagnose` | everything that is wrong with the layers, at once |
//! | `feedback` | `[airflow.feedback]`, `[airflow.events]` |
//! | `lineage` | `[lineage]` |
//! | `retention` | `[retention]` |
//! | `service` | what only `serve` asks of its settings |
//! | `settings` | every setting with its value, and where that is from |
//! | `telemetry` | `[log]` and `[telemetry]` |
//! | `tokens` | the values of bearer tokens |
//! | `webhooks` | `[webhooks.<name>]` |
//!
//! Connections also come from the environment as `DAGWRIGHT_CONN_<NAME>=postgresql://…`, which wins over a
//! connection of the same name in a file. Unknown keys and bad values are refused. Secrets never print: see [`Secret`].

mod agents;
pub(crate) mod airflow;
pub(crate) mod diagnose;
pub(crate) mod feedback;
pub(crate) mod lineage;
pub(crate) mod retention;
mod service;
mod settings;
mod telemetry;
mod tokens;
pub(crate) mod webhooks;

use std::{
    collections::BTreeMap,
    env, fmt,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use config::{Config as Layers, Environment, File, FileFormat, Value};
use dagwright_model::{
    id::Name,
    spec::{Approval, LossyCast, SchemaChange},
    units::{ByteSize, Span},
};
use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use self::{
    agents::Agents,
    settings::Settings,
    telemetry::{Log, LogFormat, Telemetry},
    tokens::Fault as TokenFault,
};
use self::{airflow::Airflow, diagnose::Diagnostic, lineage::Lineage, retention::Retention, webhooks::Webhook};

/// Every setting with its default; also what `config/default.toml` documents.
const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// The prefix of variables that define connections.
const CONNECTION_PREFIX: &str = "DAGWRIGHT_CONN_";

/// The effective configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) store: Store,
    pub(crate) task: Task,
    pub(crate) staging: Folder,
    pub(crate) quarantine: Folder,
    pub(crate) engine: Engine,
    pub(crate) airflow: Airflow,
    pub(crate) negotiation: Negotiation,
    pub(crate) agents: Agents,
    pub(crate) bus: Bus,
    pub(crate) kafka: Kafka,
    pub(crate) http: Http,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
    pub(crate) telemetry: Telemetry,
    pub(crate) uris: Uris,
    pub(crate) policy: Policy,
    pub(crate) shutdown: Shutdown,
    pub(crate) retention: Retention,
    pub(crate) lineage: Lineage,
    #[serde(default)]
    pub(crate) webhooks: BTreeMap<Name, Webhook>,
    #[serde(default)]
    pub(crate) connections: BTreeMap<Name, Connection>,
}

/// Where the event log is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) path: PathBuf,
}

/// Which worker program to start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) command: String,
}

/// A folder, as a path or URI; empty for the default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Folder {
    pub(crate) uri: String,
}

/// Which engine runs plans, and how widely.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Engine {
    pub(crate) kind: EngineKind,
    pub(crate) parallelism: usize,
}

/// What runs plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EngineKind {
    /// The embedded engine.
    Local,
    /// An Apache Airflow, for `serve`; `run` uses the embedded engine all the same.
    Airflow,
}

/// The bounds of one negotiation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Negotiation {
    pub(crate) rounds_max: u32,
    pub(crate) alternatives_max: u32,
    pub(crate) messages_max: u32,
    pub(crate) deadline: Span,
    /// How often `serve` makes the plan of a request anew at most.
    pub(crate) replans_max: u32,
    /// How long `serve` takes what was found for known.
    pub(crate) facts_age_max: Span,
}

/// What carries requests, ledger and events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bus {
    pub(crate) kind: BusKind,
}

/// What carries requests, ledger and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BusKind {
    /// This process alone: the store is the ledger.
    InProcess,
    /// Kafka: its topics are, and the store is their cache.
    Kafka,
}

/// How to reach Kafka, and what is there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) brokers: String,
    pub(crate) prefix: String,
    pub(crate) group: String,
    /// Names this process among those of the group; empty: the machine's name.
    pub(crate) instance: String,
    pub(crate) partitions: u16,
    /// 0: the brokers' default.
    pub(crate) replication: u16,
    /// Who may ask for what on our own topic.
    pub(crate) requests: OwnTopic,
    /// Topics with requests beside our own, and who may ask for what there.
    #[serde(default)]
    pub(crate) ingress: Vec<IngressTopic>,
    /// Passed to librdkafka; nested keys are joined with dots.
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, Property>,
}

/// What those may ask for who write to our own topic of requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnTopic {
    /// The namespaces that may be asked for; absent: all, and pipelines without one.
    pub(crate) namespaces: Option<Vec<Name>>,
    pub(crate) scopes: Vec<Scope>,
}

/// A topic with requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IngressTopic {
    pub(crate) topic: String,
    /// The namespaces that may be asked for; absent: all, and pipelines without one.
    pub(crate) namespaces: Option<Vec<Name>>,
    pub(crate) scopes: Vec<Scope>,
}

/// A property of librdkafka's, or a family of them.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Property {
    Family(BTreeMap<String, Property>),
    Flag(bool),
    Number(i64),
    Text(String),
}

/// How `serve` answers HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    /// Who may call, by name; none: only loopback may listen, and nobody has to say who they are.
    #[serde(default)]
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) body_max: ByteSize,
    /// How many requests one caller may send a second; 0: any number.
    pub(crate) requests_per_second: u32,
    /// How many threads answer.
    pub(crate) workers: NonZeroUsize,
    /// How long a request may take to arrive, and how long an answer may wait to be taken.
    pub(crate) timeout: Span,
    /// How long a connection may be idle between requests.
    pub(crate) keep_alive: Span,
    /// How many connections may be open at a time; further ones wait to be accepted.
    pub(crate) connections: usize,
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
}

/// A bearer token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// The variable that holds it.
    pub(crate) token_env: Option<String>,
    /// The file that holds it, read again when the configuration is; one of the two.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) scopes: Vec<Scope>,
    /// The namespaces whose pipelines it may see and ask for; absent: all, and those without one.
    pub(crate) namespaces: Option<Vec<Name>>,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Look at everything.
    Read,
    /// Send requests.
    Submit,
    /// Cancel, approve, pause and delete.
    Operate,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
        })
    }
}

/// The certificate that `serve` shows, PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// How much `serve` takes on at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) open_requests: usize,
    pub(crate) negotiations: usize,
    /// 0: one for each core.
    pub(crate) runs: usize,
}

/// Which URIs requests to `serve` may name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uris {
    /// Globs; as a text they are separated by commas.
    #[serde(deserialize_with = "list")]
    pub(crate) allow: Vec<String>,
}

/// What every spec's policy must keep.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) floor: PolicyFloor,
}

/// The loosest policy that a spec may have; absent: any.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFloor {
    pub(crate) schema_change: Option<SchemaChange>,
    pub(crate) lossy_cast: Option<LossyCast>,
    pub(crate) approval: Option<Approval>,
}

/// How `serve` ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// How long what runs may take to end by itself.
    pub(crate) grace: Span,
}

/// A named connection of a configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connection {
    url: Secret,
    password_env: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    access: Access,
    /// The namespaces whose pipelines may use it; absent: all.
    namespaces: Option<Vec<Name>>,
}

/// What pipelines may do with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Access {
    #[serde(rename = "read")]
    Read,
    #[serde(rename = "write")]
    Write,
    #[default]
    #[serde(rename = "read,write")]
    ReadWrite,
}

/// A text that never prints.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

/// Says why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("could not read the configuration")]
    Unreadable { source: config::ConfigError },
    #[error("the configuration is not valid")]
    Invalid(Vec<Diagnostic>),
    #[error("connection \"{name}\" takes its password from {variable}, which is not set")]
    PasswordMissing { name: Name, variable: String },
    #[error("connection \"{name}\" takes its password from {}: {why}", path.display())]
    PasswordUnreadable { name: Name, path: PathBuf, why: std::io::Error },
    #[error("connection \"{name}\" has both password_env and password_file")]
    PasswordTwice { name: Name },
    #[error("the URL of connection \"{name}\" is not valid")]
    BadUrl { name: Name, source: url::ParseError },
    #[error("{variable} does not name a connection: its end must match [A-Z][A-Z0-9_]*")]
    BadVariable { variable: String },
}

// === impl Config ===

impl Config {
    /// Reads the defaults, `file` if given, and the environment.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Error> {
        let defaults = Layers::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build();
        let defaults = defaults.map_err(|source| Error::Unreadable { source })?;
        diagnose::read(layers(file)?, &defaults.cache).map_err(Error::Invalid)
    }

    /// Returns the URLs of every connection a pipeline of `namespace` may use, passwords filled in.
    pub(crate) fn connections(&self, namespace: Option<&Name>) -> Result<BTreeMap<Name, String>, Error> {
        self.urls(|connection| connection.is_open_to(namespace))
    }

    fn urls(&self, is_wanted: impl Fn(&Connection) -> bool) -> Result<BTreeMap<Name, String>, Error> {
        let mut urls = BTreeMap::new();
        for (name, connection) in &self.connections {
            if is_wanted(connection) {
                urls.insert(name.clone(), connection.url(name)?);
            }
        }
        for (variable, url) in env::vars() {
            let Some(suffix) = variable.strip_prefix(CONNECTION_PREFIX) else { continue };
            let name = Name::new(suffix.to_ascii_lowercase()).map_err(|_| Error::BadVariable { variable })?;
            urls.insert(name, url);
        }
        Ok(urls)
    }

    /// Tells whether pipelines of a namespace may use a connection, defined here or in the environment.
    pub(crate) fn is_open_to(&self, name: &Name, namespace: Option<&Name>) -> bool {
        let variable = dagwright_engine::environment::connection_variable(name);
        env::var_os(variable).is_some()
            || self.connections.get(name).is_some_and(|connection| connection.is_open_to(namespace))
    }

    /// Returns the URLs of every connection, passwords filled in, for whoever checks by [`Config::is_open_to`].
    pub(crate) fn all_connections(&self) -> Result<BTreeMap<Name, String>, Error> {
        self.urls(|_| true)
    }

    /// Tells whether pipelines may read from a connection; connections of the environment are open.
    pub(crate) fn may_read(&self, name: &Name) -> bool {
        self.connections.get(name).is_none_or(|connection| connection.access != Access::Write)
    }

    /// Tells whether pipelines may write to a connection; connections of the environment are open.
    pub(crate) fn may_write(&self, name: &Name) -> bool {
        self.connections.get(name).is_none_or(|connection| connection.access != Access::Read)
    }

    /// Returns the staging folder as the task contract wants it: a URI, or an absolute path.
    pub(crate) fn staging(&self) -> String {
        self.folder(&self.staging, "staging")
    }

    /// Returns the quarantine folder, likewise.
    pub(crate) fn quarantine(&self) -> String {
        self.folder(&self.quarantine, "quarantine")
    }

    fn folder(&self, folder: &Folder, default: &str) -> String {
        if folder.uri.contains("://") {
            return folder.uri.clone();
        }
        let path = if folder.uri.is_empty() { self.store.path.join(default) } else { PathBuf::from(&folder.uri) };
        std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// Puts the layers over each other.
fn layers(file: Option<&Path>) -> Result<Value, Error> {
    let mut layers = Layers::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(file) = file {
        layers = layers.add_source(File::from(file).format(FileFormat::Toml));
    }
    // Texts stay texts: what a setting takes is read from them.
    let environment = Environment::with_prefix("DAGWRIGHT").prefix_separator("__").separator("__");
    let layers = layers.add_source(environment).build().map_err(|source| Error::Unreadable { source })?;
    Ok(layers.cache)
}

/// Reads a list, or a text whose parts are separated by commas, as a variable of the environment holds it.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::List(parts) => parts,
        Form::Text(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Into::into).collect(),
    })
}

// === impl Kafka ===

impl Kafka {
    /// Returns the properties under the names that librdkafka knows.
    pub(crate) fn flat_properties(&self) -> BTreeMap<String, String> {
        fn flatten(name: &str, property: &Property, into: &mut BTreeMap<String, String>) {
            match property {
                Property::Family(members) => {
                    members.iter().for_each(|(member, property)| flatten(&format!("{name}.{member}"), property, into));
                }
                Property::Flag(value) => drop(into.insert(name.to_owned(), value.to_string())),
                Property::Number(value) => drop(into.insert(name.to_owned(), value.to_string())),
                Property::Text(value) => drop(into.insert(name.to_owned(), value.clone())),
            }
        }
        let mut flat = BTreeMap::new();
        self.properties.iter().for_each(|(name, property)| flatten(name, property, &mut flat));
        flat
    }
}

impl fmt::Debug for Property {
    /// Any of them may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl Connection ===

impl Connection {
    fn is_open_to(&self, namespace: Option<&Name>) -> bool {
        match &self.namespaces {
            None => true,
            Some(allowed) => namespace.is_some_and(|namespace| allowed.contains(namespace)),
        }
    }

    fn url(&self, name: &Name) -> Result<String, Error> {
        let password = match (&self.password_env, &self.password_file) {
            (None, None) => return Ok(self.url.0.clone()),
            (Some(variable), None) => {
                let missing = || Error::PasswordMissing { name: name.clone(), variable: variable.clone() };
                env::var(variable).map_err(|_| missing())?
            }
            (None, Some(path)) => {
                let unreadable = |why| Error::PasswordUnreadable { name: name.clone(), path: path.clone(), why };
                tokens::secret_file(path).map_err(unreadable)?
            }
            (Some(_), Some(_)) => return Err(Error::PasswordTwice { name: name.clone() }),
        };
        let mut url = url::Url::parse(&self.url.0).map_err(|source| Error::BadUrl { name: name.clone(), source })?;
        url.set_password(Some(&password))
            .map_err(|()| Error::BadUrl { name: name.clone(), source: url::ParseError::EmptyHost })?;
        Ok(url.into())
    }
}

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::Config;

    #[track_caller]
    fn load(toml: &str) -> Result<Config, super::Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn a_file_overrides_the_defaults() {
        let config = load("[store]\npath = \"elsewhere\"\n[negotiation]\ndeadline = \"5s\"").unwrap();
        assert_eq!(config.store.path.to_str(), Some("elsewhere"));
        assert_eq!(config.negotiation.deadline.0, 5_000);
        assert_eq!(config.negotiation.rounds_max, 4);
        assert!(config.staging().ends_with("/elsewhere/staging"));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        for bad in ["[store]\npaht = \"x\"", "[engine]\nkind = \"airflw\"", "[connections.W]\nurl = \"postgresql://h\""]
        {
            assert!(load(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn properties_have_librdkafkas_names_and_do_not_print() {
        let config =
            load("[kafka.properties]\nsasl.password = \"hunter2\"\n\"socket.keepalive.enable\" = true").unwrap();
        let flat = config.kafka.flat_properties();
        assert_eq!(flat["sasl.password"], "hunter2");
        assert_eq!(flat["socket.keepalive.enable"], "true");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_list_may_be_a_text() {
        for toml in ["[uris]\nallow = [\"/a/**\", \"s3://b/**\"]", "[uris]\nallow = \"/a/**, s3://b/**\""] {
            assert_eq!(load(toml).unwrap().uris.allow, ["/a/**", "s3://b/**"]);
        }
        assert!(load("").unwrap().uris.allow.is_empty());
    }

    #[test]
    fn secrets_do_not_print() {
        let config = load("[connections.w]\nurl = \"postgresql://u:hunter2@h/db\"").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_may_stand_in_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hunter 2\n").unwrap();
        let with = |more: &str| load(&format!("[connections.w]\nurl = \"postgresql://u@h/db\"\n{more}")).unwrap();
        let urls = with(&format!("password_file = {:?}\n", file.path())).all_connections().unwrap();
        assert_eq!(urls.values().collect::<Vec<_>>(), ["postgresql://u:hunter%202@h/db"]);
        for bad in ["password_file = \"/nowhere/at/all\"\n", "password_file = \"/x\"\npassword_env = \"X\"\n"] {
            let told = with(bad).all_connections().unwrap_err().to_string();
            assert!(told.starts_with("connection \"w\" ") && !told.contains("hunter"), "{told}");
        }
    }

    #[test]
    fn access_and_namespaces_hold() {
        let config =
            load("[connections.w]\nurl = \"postgresql://h/db\"\naccess = \"read\"\nnamespaces = [\"a\"]").unwrap();
        let name = "w".parse().unwrap();
        assert!(config.may_read(&name) && !config.may_write(&name));
        assert!(config.connections(Some(&"a".parse().unwrap())).unwrap().contains_key(&name));
        assert!(!config.connections(Some(&"b".parse().unwrap())).unwrap().contains_key(&name));
        assert!(!config.connections(None).unwrap().contains_key(&name));
    }
}
