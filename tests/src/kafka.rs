//! A throwaway Apache Kafka, and two clients for it: one that answers at once, and Kafka's own console tools.
//!
//! A [`Client`] is a process of librdkafka's Python binding that lives as long as its test; most tests want that. The
//! console tools share nothing with what is tested, and take seconds a call. Both read what is committed only.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Ended, repository, tools};

/// How long a consumer waits for records that do not come, in seconds; the broker may just have started.
const PATIENCE_S: u32 = 60;

/// What stands for no key, no value and no headers in the console tools' lines.
const NULL: &str = "<null>";

/// What the console consumer prints for no headers.
const NO_HEADERS: &str = "NO_HEADERS";

/// librdkafka's settings by name.
pub type Settings = BTreeMap<&'static str, String>;

/// A broker with nothing in it.
pub struct Kafka {
    bootstrap: String,
    /// What the script says of the listeners that ask who is there.
    secured: Option<Value>,
    folder: TempDir,
}

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Open to everybody on this machine; the only one unless the broker is a secure one.
    Plaintext,
    /// A user and a password, SCRAM-SHA-512, in the clear.
    SaslPlaintext,
    /// The same inside TLS.
    SaslSsl,
    /// TLS, and everybody who trusts the broker's certificate.
    Ssl,
}

/// A record to be produced, or as it was consumed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where to put it, or where it was; `None` leaves it to the key, and from the console consumer.
    pub partition: Option<i32>,
    /// Where it was in the partition; `None` before it was there, and from the console consumer.
    pub offset: Option<i64>,
}

/// A client in a process of its own.
pub struct Client {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the client library or the broker says against a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The error's name in librdkafka, such as `_AUTHENTICATION`.
    pub code: String,
    /// What it says to people.
    pub message: String,
}

// === impl Kafka ===

impl Kafka {
    /// Returns the broker of this test process; the first call starts it.
    ///
    /// # Panics
    /// When it cannot be started; the script says why.
    pub fn shared() -> &'static Self {
        static BROKER: OnceLock<Kafka> = OnceLock::new();
        BROKER.get_or_init(Self::start)
    }

    /// Starts a broker that ends with the value: for tests that take it away.
    ///
    /// # Panics
    /// When it cannot be started; the script says why.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a broker that listens at every [`Listener`].
    ///
    /// # Panics
    /// When it cannot be started; the script says why.
    #[must_use]
    pub fn start_secure() -> Self {
        let mut broker = Self::start_with(&["--secure"]);
        let text = std::fs::read_to_string(broker.folder.path().join("client.json")).expect("client.json");
        broker.secured = Some(serde_json::from_str(&text).expect("JSON"));
        broker
    }

    fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("dagwright-kafka-").tempdir().expect("a temporary folder");
        let mut broker = Self { bootstrap: String::new(), secured: None, folder };
        broker.bootstrap = broker.launch(arguments);
        broker
    }

    /// Returns the address of the plain listener.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Returns librdkafka's settings for a listener, with the right password and the right authority.
    ///
    /// # Panics
    /// When the broker has no such listener.
    #[must_use]
    pub fn settings(&self, listener: Listener) -> Settings {
        let (protocol, address, sasl, tls) = match listener {
            Listener::Plaintext => return [("bootstrap.servers", self.bootstrap.clone())].into(),
            Listener::SaslPlaintext => ("SASL_PLAINTEXT", "sasl_plaintext", true, false),
            Listener::SaslSsl => ("SASL_SSL", "sasl_ssl", true, true),
            Listener::Ssl => ("SSL", "ssl", false, true),
        };
        let mut settings = Settings::new();
        settings.insert("bootstrap.servers", self.secured(address));
        settings.insert("security.protocol", protocol.to_owned());
        if sasl {
            settings.insert("sasl.mechanism", self.secured("mechanism"));
            settings.insert("sasl.username", self.secured("user"));
            settings.insert("sasl.password", self.secured("password"));
        }
        if tls {
            settings.insert("ssl.ca.location", self.secured("ca"));
        }
        settings
    }

    /// Returns the certificate file of an authority that did not sign the broker's.
    ///
    /// # Panics
    /// When the broker is not a secure one.
    #[must_use]
    pub fn stranger(&self) -> PathBuf {
        self.secured("stranger").into()
    }

    fn secured(&self, name: &str) -> String {
        let secured = self.secured.as_ref().expect("a broker by Kafka::start_secure");
        secured[name].as_str().unwrap_or_else(|| panic!("no {name} in {secured}")).to_owned()
    }

    /// Starts a client for the plain listener.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.settings(Listener::Plaintext))
    }

    /// Ends the broker as a crash would. Takes it exclusively, so that nobody does that to the shared one.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn kill(&mut self) {
        script(&["kill".as_ref(), self.folder.path().as_ref()]);
    }

    /// Starts the broker again that was killed, with its data, at the same addresses.
    ///
    /// # Panics
    /// When it cannot be started; the script says why.
    pub fn restart(&mut self) {
        let bootstrap = self.launch(&[]);
        assert_eq!(bootstrap, self.bootstrap);
    }

    /// Produces records with Kafka's console producer. Text only, and no headers without a value.
    ///
    /// # Panics
    /// When it fails, or a record does not fit its lines.
    #[track_caller]
    pub fn console_produce(&self, topic: &str, records: &[Record]) {
        let lines: String = records.iter().map(Record::to_line).collect();
        let null = format!("null.marker={NULL}");
        let arguments = ["parse.headers=true", "parse.key=true", &null].map(|property| ["--reader-property", property]);
        let mut command = self.console("console-producer", topic);
        let mut producer = command.args(arguments.as_flattened()).stdin(Stdio::piped()).spawn().expect("a producer");
        producer.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("read by the producer");
        Ended::from(producer.wait_with_output().expect("an end")).expect(0);
    }

    /// Consumes committed records from the beginning with Kafka's console consumer: so many, or fewer if for a minute
    /// no more come. Text only.
    ///
    /// # Panics
    /// When it fails, or a record does not fit its lines.
    #[track_caller]
    #[must_use]
    pub fn console_consume(&self, topic: &str, records_max: usize) -> Vec<Record> {
        let null = format!("null.literal={NULL}");
        let arguments =
            ["print.headers=true", "print.key=true", &null].map(|property| ["--formatter-property", property]);
        let mut command = self.console("console-consumer", topic);
        command.args(arguments.as_flattened()).args(["--from-beginning", "--isolation-level", "read_committed"]);
        command.args(["--max-messages", &records_max.to_string(), "--timeout-ms", &format!("{PATIENCE_S}000")]);
        let ended = Ended::from(command.output().expect("a consumer"));
        ended.expect(0);
        ended.stdout.lines().map(Record::from_line).collect()
    }

    fn console(&self, tool: &str, topic: &str) -> Command {
        let mut command = Command::new(kafka_sh());
        command.args([tool, "--bootstrap-server", &self.bootstrap, "--topic", topic]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn launch(&self, arguments: &[&str]) -> String {
        let owner = std::process::id().to_string();
        let mut all: Vec<&OsStr> = vec!["start".as_ref(), self.folder.path().as_ref(), owner.as_ref()];
        all.extend(arguments.iter().map(OsStr::new));
        script(&all).stdout.trim().to_owned()
    }
}

impl Drop for Kafka {
    /// Best effort: the script ends the broker with this process at the latest.
    fn drop(&mut self) {
        let _ = Command::new(kafka_sh()).arg("stop").arg(self.folder.path()).output();
    }
}

// === impl Record ===

impl Record {
    /// Makes a record without headers.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Forgets where it was, to compare it with what was produced.
    #[must_use]
    pub fn anywhere(self) -> Self {
        Self { partition: None, offset: None, ..self }
    }

    /// Writes `name:value,name:value<tab>key<tab>value` and a line feed.
    fn to_line(&self) -> String {
        let text = |bytes: &[u8], reserved: &[char]| {
            let text = std::str::from_utf8(bytes).expect("text for the console producer").to_owned();
            assert!(!text.contains(reserved), "not for the console producer: {text:?}");
            text
        };
        let header = |(name, value): &(String, Option<Vec<u8>>)| {
            let value = value.as_deref().expect("a value, as the console producer knows no header without");
            format!("{}:{}", text(name.as_bytes(), &['\t', '\n', ',', ':']), text(value, &['\t', '\n', ',', ':']))
        };
        let headers = self.headers.iter().map(header).collect::<Vec<_>>().join(",");
        let headers = if headers.is_empty() { NULL.to_owned() } else { headers };
        let key = self.key.as_deref().map_or(NULL.to_owned(), |key| text(key, &['\t', '\n']));
        let value = self.value.as_deref().map_or(NULL.to_owned(), |value| text(value, &['\n']));
        format!("{headers}\t{key}\t{value}\n")
    }

    /// Reads what the console consumer prints for a record: the same line.
    fn from_line(line: &str) -> Self {
        let bytes = |text: &str| (text != NULL).then(|| text.as_bytes().to_owned());
        let mut parts = line.splitn(3, '\t');
        let mut part = || parts.next().unwrap_or_else(|| panic!("no record of the console consumer: {line:?}"));
        let (headers, key, value) = (part(), part(), part());
        let header = |text: &str| {
            let (name, value) = text.split_once(':').unwrap_or_else(|| panic!("no header: {text:?}"));
            (name.to_owned(), bytes(value))
        };
        let headers = headers.split(',').filter(|_| headers != NO_HEADERS).map(header).collect();
        Self { key: bytes(key), value: bytes(value), headers, ..Self::default() }
    }

    fn to_json(&self) -> Value {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode);
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| json!([name, bytes(value)])).collect();
        json!({ "key": bytes(&self.key), "value": bytes(&self.value), "headers": headers, "partition": self.partition })
    }

    fn from_json(value: &Value) -> Self {
        let bytes = |value: &Value| value.as_str().map(|text| hex::decode(text).expect("hexadecimal"));
        let header = |pair: &Value| (pair[0].as_str().expect("a name").to_owned(), bytes(&pair[1]));
        Self {
            key: bytes(&value["key"]),
            value: bytes(&value["value"]),
            headers: value["headers"].as_array().expect("headers").iter().map(header).collect(),
            partition: value["partition"].as_i64().and_then(|partition| partition.try_into().ok()),
            offset: value["offset"].as_i64(),
        }
    }
}

impl fmt::Debug for Record {
    /// Shows text as text: a test that fails is read by people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name, text(value))).collect();
        f.debug_struct("Record")
            .field("key", &text(&self.key))
            .field("value", &text(&self.value))
            .field("headers", &headers)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .finish()
    }
}

// === impl Client ===

impl Client {
    /// Starts a client with librdkafka's settings.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut command = Command::new(tools().join("tools/bin/python"));
        command.arg(repository().join("tests/scripts/kafka_client.py")).arg(json!(settings).to_string());
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("run tests/scripts/tools.sh python");
        let requests = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, requests, answers }
    }

    /// Returns the names of the topics, Kafka's own included.
    ///
    /// # Errors
    /// When the broker refuses the password, the broker's certificate is not trusted, or no broker answers for a minute.
    pub fn topics(&mut self) -> Result<Vec<String>, Refused> {
        let topics = self.request(&json!({ "do": "topics" }))?;
        Ok(serde_json::from_value(topics).expect("names"))
    }

    /// Makes a topic.
    ///
    /// # Panics
    /// When it cannot be made, or there is one of this name.
    #[track_caller]
    pub fn create_topic(&mut self, topic: &str, partitions: u16) {
        self.create_topic_with(topic, partitions, &[]);
    }

    /// Makes a topic with settings of its own, such as `max.message.bytes`.
    ///
    /// # Panics
    /// When it cannot be made, or there is one of this name.
    #[track_caller]
    pub fn create_topic_with(&mut self, topic: &str, partitions: u16, settings: &[(&str, &str)]) {
        let settings: BTreeMap<_, _> = settings.iter().copied().collect();
        self.expect(&json!({ "do": "create_topic", "topic": topic, "partitions": partitions, "settings": settings }));
    }

    /// Grants a user of a secure broker rights to something, and from then on everybody else who has to say who they are
    /// has none to it.
    ///
    /// # Panics
    /// When the broker refuses, as it does of a client of another listener than the plain one.
    #[track_caller]
    pub fn grant(&mut self, kind: &str, name: &str, user: &str, operations: &[&str]) {
        let request = json!({ "do": "grant", "kind": kind, "name": name, "user": user, "operations": operations });
        self.expect(&request);
    }

    /// Produces records and returns once the broker has them all.
    ///
    /// # Panics
    /// When the broker does not take them.
    #[track_caller]
    pub fn produce(&mut self, topic: &str, records: &[Record]) {
        let records: Vec<_> = records.iter().map(Record::to_json).collect();
        self.expect(&json!({ "do": "produce", "topic": topic, "records": records }));
    }

    /// Produces records in the open transaction of this id, or begins one; nobody reads them before [`Self::commit`].
    ///
    /// # Panics
    /// When the broker does not take them.
    #[track_caller]
    pub fn produce_in(&mut self, transaction: &str, topic: &str, records: &[Record]) {
        let records: Vec<_> = records.iter().map(Record::to_json).collect();
        self.expect(&json!({ "do": "produce", "topic": topic, "records": records, "transaction": transaction }));
    }

    /// Commits the open transaction of this id.
    ///
    /// # Panics
    /// When there is none, or the broker refuses.
    #[track_caller]
    pub fn commit(&mut self, transaction: &str) {
        self.expect(&json!({ "do": "end", "transaction": transaction, "commit": true }));
    }

    /// Aborts the open transaction of this id.
    ///
    /// # Panics
    /// When there is none, or the broker refuses.
    #[track_caller]
    pub fn abort(&mut self, transaction: &str) {
        self.expect(&json!({ "do": "end", "transaction": transaction, "commit": false }));
    }

    /// Waits for this many committed records, counted from the beginning of the topic, and returns them; fewer when no
    /// more came within a minute. Those of one partition are in order.
    ///
    /// # Panics
    /// When the topic cannot be read.
    #[track_caller]
    #[must_use]
    pub fn consume(&mut self, topic: &str, records_max: usize) -> Vec<Record> {
        let request = json!({ "do": "consume", "topic": topic, "records_max": records_max, "within_s": PATIENCE_S });
        self.expect(&request).as_array().expect("records").iter().map(Record::from_json).collect()
    }

    /// Waits for further committed records than this told before: so many, or fewer when the time is up. Those of one
    /// partition are in order, and each comes once. A broker that is away is waited for.
    ///
    /// # Panics
    /// When there is no such topic.
    #[track_caller]
    #[must_use]
    pub fn follow(&mut self, topic: &str, records_max: usize, within: Duration) -> Vec<Record> {
        let within_s = within.as_secs_f64();
        let request = json!({ "do": "follow", "topic": topic, "records_max": records_max, "within_s": within_s });
        self.expect(&request).as_array().expect("records").iter().map(Record::from_json).collect()
    }

    /// Returns all records that are committed by now and follow no open transaction, without waiting for others: what
    /// shows that there are no more.
    ///
    /// # Panics
    /// When the topic cannot be read.
    #[track_caller]
    #[must_use]
    pub fn read(&mut self, topic: &str) -> Vec<Record> {
        let request = json!({ "do": "consume", "topic": topic, "records_max": null, "within_s": PATIENCE_S });
        self.expect(&request).as_array().expect("records").iter().map(Record::from_json).collect()
    }

    #[track_caller]
    fn expect(&mut self, request: &Value) -> Value {
        self.request(request).unwrap_or_else(|refused| panic!("{refused:?} for {request}"))
    }

    #[track_caller]
    fn request(&mut self, request: &Value) -> Result<Value, Refused> {
        writeln!(self.requests, "{request}").expect("the client runs");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a line");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the client ended at {request}"));
        match answer.get("error") {
            None => Ok(answer["ok"].take()),
            Some(error) => {
                let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
                Err(Refused { code: text("code"), message: text("message") })
            }
        }
    }
}

impl Drop for Client {
    /// At once, as an open transaction is to end by its timeout, like that of a process that crashed.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kafka_sh() -> PathBuf {
    repository().join("tests/scripts/kafka.sh")
}

#[track_caller]
fn script(arguments: &[&OsStr]) -> Ended {
    let ended = Ended::from(Command::new(kafka_sh()).args(arguments).output().expect("bash"));
    ended.expect(0);
    ended
}
