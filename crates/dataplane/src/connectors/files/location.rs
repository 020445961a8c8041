//! Says where a URI of a spec is: which store, which path or key there.
//!
//! Paths stay as written until here. A relative one starts at the run's base folder; without one it is refused.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, NaiveDate, Utc, format::Item, format::StrftimeItems};
use dagwright_model::{code::Code, facts::Identity, spec::Interval, task::RunContext};
use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, http::HttpBuilder,
};

use super::fault::Subject;
use crate::error::Result;

/// The longest format accepted in a placeholder, and the longest text one may become: a format such as `%9999Y` can
/// otherwise grow without bound.
const PLACEHOLDER_LENGTH_MAX: usize = 128;

/// Where files are.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    /// The store.
    pub(crate) store: Store,
    /// The absolute path, or the key within the store; may be a pattern, and ends in `/` for a folder.
    pub(crate) path: String,
    /// As the spec wrote it, placeholders filled in; for messages.
    pub(crate) written: String,
    /// What is left out at the start of paths in messages and partitions.
    pub(crate) base: Option<String>,
    /// Which system this is.
    pub(crate) identity: Identity,
}

/// What holds files.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// The local file system.
    Local,
    /// An object store.
    Object {
        /// Its client.
        client: Arc<dyn ObjectStore>,
        /// What comes before the key in a URI.
        prefix: String,
        /// Whether it can list keys.
        lists: bool,
    },
}

// === impl Location ===

impl Location {
    /// Finds out where `uri` is in a run.
    pub(crate) fn resolve(uri: &str, run: &RunContext, subject: &Subject) -> Result<Self> {
        let bad = |message: String, hint: &str| subject.error(Code::SpecBadUri, message, hint);
        let written = fill(uri, run.interval.as_ref()).map_err(|(message, hint)| bad(message, hint))?;
        if written.contains('\0') {
            return Err(bad("a URI holds a NUL character".into(), "write a path or a URI"));
        }
        let Some((scheme, rest)) = written.split_once("://") else {
            return Self::local_relative(written, run, subject);
        };
        let scheme = scheme.to_ascii_lowercase();
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            let hint = "take the credential out; stores read theirs from the environment";
            return Err(subject.error(Code::SpecCredential, "a URI holds a credential", hint));
        }
        if scheme == "file" {
            if !(host.is_empty() || host == "localhost") {
                return Err(bad(format!("{written} names a host"), "write file:///absolute/path"));
            }
            let path = percent_decoded(&format!("/{key}"));
            return Ok(Self { store: Store::Local, path, written, base: None, identity: local_identity() });
        }
        if host.is_empty() {
            return Err(bad(format!("{written} names no bucket or host"), "write scheme://bucket-or-host/path"));
        }
        let (client, lists) = client(&scheme, host)
            .ok_or_else(|| bad(format!("{scheme}:// is not known"), "use a path, file, s3, gs, az or https"))?
            .map_err(|error| {
                bad(format!("{scheme}://{host} is not usable"), "check the store's environment variables")
                    .caused_by(error)
            })?;
        if !lists && key.contains(['?', '#']) {
            return Err(bad(format!("{scheme}://{host}: queries are not supported"), "use a URI without `?` and `#`"));
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()),
            None => (host, None),
        };
        let identity = Identity { scheme: scheme.clone(), host: Some(name.into()), port, database: None };
        let prefix = format!("{scheme}://{host}/");
        let key = key.to_owned();
        Ok(Self { store: Store::Object { client, prefix, lists }, path: key, written, base: None, identity })
    }

    fn local_relative(written: String, run: &RunContext, subject: &Subject) -> Result<Self> {
        let identity = local_identity();
        if written.is_empty() {
            return Err(subject.error(Code::SpecBadUri, "a path is empty", "write a path or a URI"));
        }
        if Path::new(&written).is_absolute() {
            return Ok(Self { store: Store::Local, path: written.clone(), base: None, written, identity }.normalized());
        }
        let Some(base) = &run.base else {
            return Err(subject.error(
                Code::SpecBadUri,
                format!("{written} is relative, and there is no base folder"),
                "give an absolute path or a URI, or a base folder (`--base`)",
            ));
        };
        let base = base.strip_prefix("file://").unwrap_or(base).trim_end_matches('/');
        let path = format!("{base}/{written}");
        let path = if Path::new(&path).is_absolute() {
            path
        } else {
            let current = std::env::current_dir().map_err(|error| subject.io(&written, error))?;
            format!("{}/{path}", current.display())
        };
        let base = path.strip_suffix(&written).map(clean);
        Ok(Self { store: Store::Local, path, written, base, identity }.normalized())
    }

    fn normalized(mut self) -> Self {
        self.path = clean(&self.path);
        self
    }

    /// Tells whether it is written as a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.path.ends_with('/') || self.path.is_empty()
    }

    /// Tells whether the path is a pattern.
    pub(crate) fn is_pattern(&self) -> bool {
        self.path.contains(['*', '?', '['])
    }

    /// Returns the name by which messages and partitions call a path or key of this store.
    pub(crate) fn display(&self, path: &str) -> String {
        match &self.store {
            Store::Local => {
                let short = self.base.as_deref().and_then(|base| path.strip_prefix(base));
                short.map_or(path, |short| short.trim_start_matches('/')).to_owned()
            }
            Store::Object { prefix, .. } => format!("{prefix}{path}"),
        }
    }

    /// Returns the path or key behind a name that [`Self::display`] gave.
    pub(crate) fn path_of(&self, name: &str) -> String {
        match &self.store {
            Store::Local if Path::new(name).is_absolute() => name.to_owned(),
            Store::Local => clean(&format!("{}/{name}", self.base.as_deref().unwrap_or("").trim_end_matches('/'))),
            Store::Object { prefix, .. } => name.strip_prefix(prefix.as_str()).unwrap_or(name).to_owned(),
        }
    }
}

fn local_identity() -> Identity {
    Identity { scheme: "file".into(), ..Identity::default() }
}

/// Removes `.`, doubled slashes and `..` from an absolute path, but keeps a slash at its end.
fn clean(path: &str) -> String {
    let folder = path.ends_with('/');
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    let mut text = clean.to_string_lossy().into_owned();
    if folder && !text.ends_with('/') {
        text.push('/');
    }
    text
}

/// Decodes `%41` and the like in a file URI; what does not decode to UTF-8 stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let decoded = (first == b'%').then(|| tail.get(..2)).flatten().and_then(|two| hex::decode(two).ok());
        match decoded {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

type Client = (Arc<dyn ObjectStore>, bool);

/// Makes the client of a store from the standard environment variables; `None` for an unknown scheme.
fn client(scheme: &str, host: &str) -> Option<object_store::Result<Client>> {
    // A task that cannot reach its store should say so within a minute; retrying the task is the engine's work.
    let retry =
        RetryConfig { max_retries: 4, retry_timeout: std::time::Duration::from_secs(30), ..RetryConfig::default() };
    let http = |scheme: &str| ClientOptions::new().with_allow_http(scheme == "http");
    Some(match scheme {
        "s3" | "s3a" => AmazonS3Builder::from_env()
            .with_bucket_name(host)
            .with_retry(retry)
            .build()
            .map(|store| (Arc::new(store) as Arc<dyn ObjectStore>, true)),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(host)
            .with_retry(retry)
            .build()
            .map(|store| (Arc::new(store) as Arc<dyn ObjectStore>, true)),
        "az" => MicrosoftAzureBuilder::from_env()
            .with_container_name(host)
            .with_retry(retry)
            .build()
            .map(|store| (Arc::new(store) as Arc<dyn ObjectStore>, true)),
        "http" | "https" => HttpBuilder::new()
            .with_url(format!("{scheme}://{host}"))
            .with_client_options(http(scheme))
            .with_retry(retry)
            .build()
            .map(|store| (Arc::new(store) as Arc<dyn ObjectStore>, false)),
        _ => return None,
    })
}

type Refusal = (String, &'static str);

/// Fills `{data_interval_start:%Y-%m-%d}` and `{data_interval_end:…}` in, in UTC.
fn fill(uri: &str, interval: Option<&Interval>) -> Result<String, Refusal> {
    const HINT: &str = "write {data_interval_start:%Y-%m-%d} or {data_interval_end:%Y-%m-%d}";
    let mut filled = String::with_capacity(uri.len());
    let mut rest = uri;
    while let Some((before, tail)) = rest.split_once('{') {
        filled.push_str(before);
        let (inside, after) = tail.split_once('}').ok_or_else(|| ("a `{` is not closed".to_owned(), HINT))?;
        let (name, format) = inside.split_once(':').unwrap_or((inside, "%Y-%m-%dT%H:%M:%SZ"));
        let bound = |interval: &Interval| match name {
            "data_interval_start" => Some(interval.start.clone()),
            "data_interval_end" => Some(interval.end.clone()),
            _ => None,
        };
        if !matches!(name, "data_interval_start" | "data_interval_end") {
            return Err(("a URI has an unknown placeholder".into(), HINT));
        }
        let Some(text) = interval.and_then(bound) else {
            return Err((format!("a URI uses {name}, and this run has no data interval"), "give the run an interval"));
        };
        filled.push_str(&formatted(&text, format).ok_or_else(|| (format!("{name} has an unusable format"), HINT))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn formatted(instant: &str, format: &str) -> Option<String> {
    let instant =
        DateTime::parse_from_rfc3339(instant).map(|instant| instant.with_timezone(&Utc)).ok().or_else(|| {
            let day: NaiveDate = instant.parse().ok()?;
            Some(day.and_hms_opt(0, 0, 0)?.and_utc())
        })?;
    if format.len() > PLACEHOLDER_LENGTH_MAX {
        return None;
    }
    let items: Vec<_> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return None;
    }
    let text = instant.format_with_items(items.into_iter()).to_string();
    (text.len() <= PLACEHOLDER_LENGTH_MAX * 2 && !text.contains("..")).then_some(text)
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::Interval;

    use super::{clean, fill, percent_decoded};

    #[track_caller]
    fn check(uri: &str, wanted: Option<&str>) {
        let interval = Interval { start: "2025-03-01T00:00:00Z".into(), end: "2025-03-02T02:00:00+02:00".into() };
        assert_eq!(fill(uri, Some(&interval)).ok().as_deref(), wanted, "{uri}");
    }

    #[test]
    fn placeholders_are_filled_in_utc() {
        check("a/b.csv", Some("a/b.csv"));
        check("d={data_interval_start:%Y-%m-%d}/x", Some("d=2025-03-01/x"));
        check("{data_interval_end:%Y/%m/%d/%H}.csv", Some("2025/03/02/00.csv"));
        check("{data_interval_start}", Some("2025-03-01T00:00:00Z"));
        for bad in ["{", "{x}", "{data_interval_start:%Q}", "{data_interval_start:%", "{data_interval_start:..}"] {
            check(bad, None);
        }
        check(&format!("{{data_interval_start:{}}}", "%c".repeat(100)), None);
        assert!(fill("{data_interval_start:%Y}", None).is_err());
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, wanted) in [("/a/./b//c", "/a/b/c"), ("/a/../b/", "/b/"), ("/../..", "/"), ("/a/*.csv", "/a/*.csv")]
        {
            assert_eq!(clean(path), wanted, "{path}");
        }
        assert_eq!(percent_decoded("/a%20b%2"), "/a b%2");
    }
}
