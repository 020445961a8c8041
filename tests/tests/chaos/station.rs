//! Daemons that share a Kafka, what they are asked for, and what they tell.

use std::time::{Duration, Instant};

use dagwright_tests::{
    Workspace,
    kafka::{Client, Kafka},
};
use fastrand::Rng;

use crate::{
    PATIENCE,
    load::Load,
    process::Process,
    told::{Told, assert_ledger},
};

/// How many partitions there are: more than daemons.
pub(crate) const PARTITIONS: u16 = 6;

/// How many events are read at once.
const EVENTS_MAX: usize = 1000;

/// How long events are waited for before something else is looked at.
const WAIT: Duration = Duration::from_millis(200);

/// A group of daemons with a prefix of its own.
pub(crate) struct Station {
    pub(crate) daemons: Vec<Process>,
    pub(crate) load: Load,
    pub(crate) client: Client,
    told: Told,
    prefix: String,
    _workspace: Workspace,
}

// === impl Station ===

impl Station {
    /// Starts daemons of these names, and waits until the first of them listens, as by then there are topics.
    pub(crate) fn start(kafka: &Kafka, rng: &mut Rng, prefix: &str, names: &[&str]) -> Self {
        let workspace = Workspace::new();
        let load = Load::new(rng.fork(), &workspace, prefix);
        let daemon = |name: &&str| {
            let mut variables = load.variables();
            variables.extend(settings(kafka, prefix, name));
            Process::new(&workspace, name, &variables)
        };
        let mut daemons: Vec<_> = names.iter().map(daemon).collect();
        daemons[0].start();
        let _ = daemons[0].address();
        daemons[1..].iter_mut().for_each(Process::start);
        let client = kafka.client();
        Self { daemons, load, client, told: Told::default(), prefix: prefix.to_owned(), _workspace: workspace }
    }

    fn topic(&self, what: &str) -> String {
        format!("{}.{what}.v1", self.prefix)
    }

    /// Asks for something new, and again for some of what was asked for before, all in any order.
    pub(crate) fn submit(&mut self, count: usize) {
        let mut asked = self.load.ask(count);
        asked.extend(self.load.repeats(false));
        self.produce(&asked);
    }

    /// Asks once more for everything that is to be asked for again.
    pub(crate) fn repeat(&mut self) {
        let asked = self.load.repeats(true);
        self.produce(&asked);
    }

    pub(crate) fn produce(&mut self, asked: &[crate::load::Asked]) {
        let records = self.load.records(asked, PARTITIONS);
        self.client.produce(&self.topic("requests"), &records);
    }

    /// Hears what is told for a while, or until so much was told.
    pub(crate) fn listen(&mut self, events_max: usize, within: Duration) -> usize {
        let records = self.client.follow(&self.topic("events"), events_max, within);
        self.told.take(&records);
        records.len()
    }

    /// Waits until no more than so many requests are open.
    #[track_caller]
    pub(crate) fn until_open(&mut self, open_max: usize) {
        let mut since = Instant::now();
        while self.load.asked.len() - self.told.ended() > open_max {
            if self.listen(EVENTS_MAX, WAIT) > 0 {
                since = Instant::now();
            }
            self.daemons.iter_mut().for_each(Process::assert_well);
            let asked = self.load.asked.len();
            assert!(since.elapsed() < PATIENCE, "nothing goes on; of {asked} requests, {}", self.told.open());
        }
    }

    /// Brings everything to its end, ends the daemons, and asserts that everything was done once, and told once.
    #[track_caller]
    pub(crate) fn finish(self) {
        self.finish_with(false);
    }

    /// The same where a broker died: what it had not made visible is told again, under the same id.
    #[track_caller]
    pub(crate) fn finish_with_repeats(self) {
        self.finish_with(true);
    }

    #[track_caller]
    fn finish_with(mut self, may_repeat: bool) {
        for daemon in self.daemons.iter_mut().filter(|daemon| !daemon.is_up()) {
            daemon.start();
        }
        self.repeat();
        self.until_open(0);
        // Whoever has not begun to listen for signals yet is not asked to end.
        for daemon in &mut self.daemons {
            let _ = daemon.address();
        }
        self.daemons.iter_mut().for_each(Process::stop);
        self.until_quiet();
        if may_repeat {
            self.told.forget_repeats();
        }
        self.told.assert_once(&self.load);
        let dead = self.client.read(&self.topic("requests.dlq"));
        assert!(dead.is_empty(), "dead letters: {dead:?}");
        assert_ledger(&self.client.read(&self.topic("ledger")), self.load.asked.len(), may_repeat);
        self.load.assert_loaded();
        eprintln!("{}: {} requests, each with one outcome and one effect", self.prefix, self.load.asked.len());
    }

    /// Reads on until the topic has nothing that was not heard.
    fn until_quiet(&mut self) {
        let all = self.client.read(&self.topic("events"));
        self.told = Told::default();
        self.told.take(&all);
    }
}

/// Settings with which those who died are missed soon.
fn settings(kafka: &Kafka, prefix: &str, name: &str) -> Vec<(&'static str, String)> {
    [
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        ("DAGWRIGHT__KAFKA__PREFIX", prefix),
        ("DAGWRIGHT__KAFKA__GROUP", prefix),
        ("DAGWRIGHT__KAFKA__PARTITIONS", &PARTITIONS.to_string()),
        ("DAGWRIGHT__KAFKA__INSTANCE", name),
        ("DAGWRIGHT__KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", "4000"),
        ("DAGWRIGHT__KAFKA__PROPERTIES__HEARTBEAT__INTERVAL__MS", "500"),
        ("DAGWRIGHT__KAFKA__PROPERTIES__TRANSACTION__TIMEOUT__MS", "6000"),
        ("DAGWRIGHT__NEGOTIATION__FACTS_AGE_MAX", "30s"),
        // Its time goes on while no broker takes what is said.
        ("DAGWRIGHT__NEGOTIATION__DEADLINE", "10m"),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into()
}
