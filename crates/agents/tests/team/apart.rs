//! Agents in several processes: the same transcript and the same plan as in one, whoever comes, goes, or means no good.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dagwright_agents::{Far, Lineup, Negotiated, Team, ports::Observer};
use dagwright_bus::{Bus, Encoding, Record, Subscription, Topic, in_process::InProcess, letter};
use dagwright_model::{
    code::Code,
    facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest},
    id::{Name, RequestId},
    letter::{Letter, Post, Presence},
    message::{Envelope, Message, Party, Role},
};
use dagwright_negotiation::session::Ending;
use dagwright_store::Store;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    supervision::{FILE, plan, undisturbed},
    world::{Cast, Collapsing, Sunny, Tripwire, accepted, negotiate, spec},
};

use Role::{Extraction, Loading, Orchestrator, Transformation};

/// The network between processes, seen from one of them: its groups are its own.
struct Wire {
    network: Arc<InProcess>,
    host: String,
}

#[async_trait]
impl Bus for Wire {
    async fn publish(&self, topic: Topic, record: Record) -> Result<(), dagwright_bus::Error> {
        self.network.publish(topic, record).await
    }

    async fn subscribe(&self, topic: Topic, group: &str) -> Result<Subscription, dagwright_bus::Error> {
        self.network.subscribe(topic, &format!("{}/{group}", self.host)).await
    }
}

/// A world in which every look takes forever, and somebody is told of the first.
#[derive(Default)]
struct Endless(Notify);

#[async_trait]
impl Observer for Endless {
    async fn probe(&self, _: &ProbeRequest) -> ProbeReply {
        self.0.notify_one();
        std::future::pending().await
    }

    async fn type_steps(&self, _: &TypingRequest) -> TypingReply {
        std::future::pending().await
    }
}

/// A process on a network.
struct Process<'a> {
    network: &'a Arc<InProcess>,
    host: &'a str,
    incarnation: &'a str,
    roles: &'a [Role],
    observer: Arc<dyn Observer>,
    /// Who takes part beside the agents called `main`.
    guests: Vec<Party>,
    patience: Duration,
}

impl<'a> Process<'a> {
    fn new(network: &'a Arc<InProcess>, host: &'a str, roles: &'a [Role]) -> Self {
        let observer = Arc::new(Sunny(Tripwire::never()));
        let patience = Duration::from_secs(60);
        Self { network, host, incarnation: "1", roles, observer, guests: Vec::new(), patience }
    }

    /// Starts it with a store of its own, in which [`FILE`] is asked for.
    async fn start(self) -> Team {
        let store = Arc::new(Collapsing::default());
        store.ledger.append(&[accepted(FILE, &spec(FILE))]).expect("appends");
        let far = Far {
            bus: Arc::new(Wire { network: self.network.clone(), host: self.host.into() }),
            host: self.host.into(),
            incarnation: self.incarnation.into(),
            patience: self.patience,
        };
        let mut lineup = Lineup { roles: self.roles.iter().copied().collect(), far: Some(far), ..Lineup::default() };
        lineup.parties.extend(self.guests);
        let cast = Cast { observer: self.observer, lineup, ..Cast::healthy(&store) };
        cast.start().await.expect("a team")
    }
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

fn network() -> Arc<InProcess> {
    Arc::new(InProcess::new())
}

#[track_caller]
fn same(found: &Negotiated, wanted: &Negotiated) {
    assert_eq!(plan(found), plan(wanted), "the plan");
    let timeless = |negotiated: &Negotiated| negotiated.transcript.0.iter().map(Envelope::timeless).collect::<Vec<_>>();
    assert_eq!(timeless(found), timeless(wanted), "the transcript");
}

#[test]
fn agents_that_are_apart_say_and_agree_on_the_same() {
    let alone = undisturbed().1;
    let splits: [&[&[Role]]; 5] = [
        &[&[Orchestrator], &[Extraction, Transformation, Loading]],
        &[&[Orchestrator], &[Extraction], &[Transformation], &[Loading]],
        &[&[Orchestrator, Loading], &[Extraction, Transformation]],
        &[&[Orchestrator], &[Extraction, Transformation, Loading], &[Extraction, Transformation, Loading]],
        &[&[Orchestrator, Extraction, Transformation, Loading], &[Extraction]],
    ];
    for split in splits {
        run(async {
            let network = network();
            let mut teams = Vec::new();
            for (index, roles) in split.iter().enumerate() {
                teams.push(Process::new(&network, &format!("host-{index}"), roles).start().await);
            }
            same(&negotiate(&teams[0], FILE).await.expect("an answer"), &alone);
        });
    }
}

#[test]
fn agents_that_come_late_are_waited_for() {
    let alone = undisturbed().1;
    run(async {
        let network = network();
        let leader = Process::new(&network, "leader", &[Orchestrator]).start().await;
        assert_eq!(leader.missing().len(), 3);
        assert!(leader.fault().is_some_and(|fault| fault.contains("extraction@main")));
        let late = async {
            tokio::task::yield_now().await;
            Process::new(&network, "agents", &[Extraction, Transformation, Loading]).start().await
        };
        let (found, _agents) = tokio::join!(negotiate(&leader, FILE), late);
        same(&found.expect("an answer"), &alone);
        assert_eq!((leader.missing(), leader.fault()), (Vec::new(), None));
    });
}

#[test]
fn a_process_that_is_killed_midway_and_started_again_goes_on() {
    let alone = undisturbed().1;
    run(async {
        let network = network();
        let leader = Process::new(&network, "leader", &[Orchestrator]).start().await;
        let endless = Arc::new(Endless::default());
        let agents = [Extraction, Transformation, Loading];
        let first = Process { observer: endless.clone(), ..Process::new(&network, "agents", &agents) }.start().await;
        let restart = async {
            endless.0.notified().await;
            drop(first);
            Process { incarnation: "2", ..Process::new(&network, "agents", &agents) }.start().await
        };
        let (found, _second) = tokio::join!(negotiate(&leader, FILE), restart);
        same(&found.expect("an answer"), &alone);
    });
}

#[test]
fn a_process_that_leaves_is_stood_in_for_at_once() {
    let alone = undisturbed().1;
    run(async {
        let network = network();
        let leader = Process::new(&network, "leader", &[Orchestrator]).start().await;
        let endless = Arc::new(Endless::default());
        let agents = [Extraction, Transformation, Loading];
        let first = Process { observer: endless.clone(), ..Process::new(&network, "first", &agents) }.start().await;
        let leave = async {
            endless.0.notified().await;
            let second = Process::new(&network, "second", &agents).start().await;
            first.leave().await;
            second
        };
        let (found, _second) = tokio::join!(negotiate(&leader, FILE), leave);
        same(&found.expect("an answer"), &alone);
    });
}

#[test]
fn an_agent_that_panics_elsewhere_is_told_what_it_needs() {
    let alone = undisturbed().1;
    run(async {
        let network = network();
        let leader = Process::new(&network, "leader", &[Orchestrator]).start().await;
        let once = Arc::new(Sunny(Tripwire::new(1, |request| matches!(request, ProbeRequest::Source { .. }))));
        let agents = [Extraction, Transformation, Loading];
        let agents = Process { observer: once, ..Process::new(&network, "agents", &agents) }.start().await;
        let found = negotiate(&leader, FILE).await.expect("an answer");
        assert_eq!(agents.restarts().of(Extraction), 1);
        same(&found, &alone);
    });
}

#[test]
fn a_role_that_nobody_runs_is_named() {
    run(async {
        let network = network();
        let leader = Process { patience: Duration::ZERO, ..Process::new(&network, "leader", &[Orchestrator]) };
        let leader = leader.start().await;
        let _agents = Process::new(&network, "agents", &[Extraction, Transformation]).start().await;
        let heard = async {
            while leader.missing() != [Party::sole(Loading)] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.expect("the others are there");
        let found = negotiate(&leader, FILE).await.expect("an answer");
        let Ending::Failed(problems) = found.ending else { panic!("{:?}", found.ending) };
        assert_eq!((problems[0].code, problems[0].subject.as_str()), (Code::AgentAway, "loading@main"));
    });
}

fn guest(role: Role) -> Party {
    Party { role, instance: Name::new("guest").expect("a name") }
}

/// An agent of somebody else's, in JSON: says that it is there, and goes along with everything. Returns what it was
/// told and what it answered, when the session has ended.
async fn passive(network: Arc<InProcess>, party: Party) -> Vec<Value> {
    let mut heard = network.subscribe(Topic::Agents, "guest").await.expect("a place");
    let say = async |key: &str, post: Value| {
        network
            .publish(Topic::Agents, Record { key: key.into(), payload: post.to_string().into() })
            .await
            .expect("heard");
    };
    let presence = json!({ "presence": { "party": party, "host": "theirs", "incarnation": "1" } });
    say("theirs", presence).await;
    let (mut told, mut sequence) = (Vec::new(), 0);
    loop {
        let record = heard.next().await.expect("the network");
        let Ok(mut post) = serde_json::from_slice::<Value>(&record.payload) else { continue };
        let letter = post["letter"].take();
        if letter["to_host"] != "theirs" {
            continue;
        }
        let envelope = &letter["envelope"];
        told.push(envelope["body"].clone());
        let refuse = |round: Value| json!({ "type": "refuse", "round": round, "reason": "not my affair" });
        let body = match envelope["body"]["type"].as_str().expect("a type") {
            "observe" => refuse(0.into()),
            "call_for_proposals" | "conflicts" => refuse(envelope["body"]["round"].clone()),
            "award" => json!({ "type": "committed" }),
            _ => return told,
        };
        sequence += 1;
        let answer = json!({ "letter": {
            "from_host": "theirs", "to_host": letter["from_host"],
            "envelope": {
                "session": envelope["session"], "sequence": sequence,
                "from": party, "to": envelope["from"], "body": body,
            },
        } });
        say(envelope["session"].as_str().expect("a session"), answer).await;
    }
}

#[test]
fn an_agent_of_somebody_elses_takes_part_in_json() {
    let alone = undisturbed().1;
    for role in Role::PARTICIPANTS {
        run(async {
            let network = network();
            let everyone = [Orchestrator, Extraction, Transformation, Loading];
            let leader = Process { guests: vec![guest(role)], ..Process::new(&network, "leader", &everyone) };
            let leader = leader.start().await;
            let (found, told) = tokio::join!(negotiate(&leader, FILE), passive(network.clone(), guest(role)));
            let found = found.expect("an answer");
            assert_eq!(plan(&found), plan(&alone));
            let kinds: Vec<_> = told.iter().map(|body| body["type"].as_str().expect("a type")).collect();
            assert_eq!(kinds, ["observe", "call_for_proposals", "award", "sealed"]);
            let said = found.transcript.0.iter().filter(|envelope| envelope.from == guest(role));
            assert_eq!(said.map(|it| it.body.kind()).collect::<Vec<_>>(), ["refuse", "refuse", "committed"]);
            let others = found.transcript.0.iter().filter(|it| it.from != guest(role) && it.to != guest(role));
            let wanted = alone.transcript.0.iter();
            let bodies = |it: &Envelope| (it.from.clone(), it.to.clone(), it.timeless().body);
            assert_eq!(others.map(bodies).collect::<Vec<_>>(), wanted.map(bodies).collect::<Vec<_>>());
        });
    }
}

/// Says everything that means no good, before anybody else can, to whatever is said on the network.
async fn troublemaker(network: Arc<InProcess>, told: Arc<Mutex<BTreeSet<&'static str>>>) {
    let mut heard = network.subscribe(Topic::Agents, "troublemaker").await.expect("a place");
    let junk: [&[u8]; 6] =
        [b"", b"{", b"{\"letter\":{}}", b"{\"presence\":{\"host\":\"\"}}", b"\xff\xff\xff", &[0; 4096]];
    for payload in junk {
        let record = Record { key: String::new(), payload: payload.into() };
        network.publish(Topic::Agents, record).await.expect("heard");
    }
    while let Some(record) = heard.next().await {
        let Ok((Post::Letter(letter), _)) = letter::from_record(&record) else { continue };
        if letter.envelope.from.role != Orchestrator || letter.from_host != "leader" {
            continue;
        }
        told.lock().expect("unharmed").insert(letter.envelope.body.kind());
        let lie = |from_host: &str, to_host: &str, from: Party, to: Party, body: Message| {
            let session = letter.envelope.session.clone();
            let envelope = Envelope { session, sequence: 1, from, to, body };
            Post::Letter(Letter { from_host: from_host.into(), to_host: to_host.into(), envelope })
        };
        let victim = letter.envelope.to.clone();
        let leader = letter.envelope.from.clone();
        let failed = || Message::CommitFailed { problems: Vec::new() };
        let nothing = || Message::Observed { observations: Vec::new() };
        let lies = [
            // In another one's name, from where that one is not; from one that nobody asked; from nowhere.
            lie("stranger", "leader", victim.clone(), leader.clone(), nothing()),
            lie("stranger", "leader", victim.clone(), leader.clone(), failed()),
            lie("stranger", "leader", guest(victim.role), leader.clone(), nothing()),
            lie("", "leader", victim.clone(), leader.clone(), nothing()),
            // To agents, in a participant's name, and for nobody.
            lie("stranger", "agents", guest(victim.role), victim.clone(), Message::Award { alternatives: Vec::new() }),
            lie("stranger", "nobody", leader.clone(), victim.clone(), nothing()),
            Post::Presence(Presence {
                party: guest(victim.role),
                host: "stranger".into(),
                incarnation: "1".into(),
                leaving: false,
            }),
        ];
        for lie in lies {
            network.publish(Topic::Agents, letter::to_record(&lie, Encoding::Protobuf)).await.expect("heard");
        }
    }
}

#[test]
fn what_means_no_good_changes_nothing() {
    let alone = undisturbed().1;
    run(async {
        let network = network();
        let leader = Process::new(&network, "leader", &[Orchestrator]).start().await;
        let agents = Process::new(&network, "agents", &[Extraction, Transformation, Loading]).start().await;
        let told = Arc::default();
        let trouble = tokio::spawn(troublemaker(network.clone(), Arc::clone(&told)));
        same(&negotiate(&leader, FILE).await.expect("an answer"), &alone);
        assert_eq!((leader.fault(), agents.fault()), (None, None));
        assert!(told.lock().expect("unharmed").contains("award"), "there was trouble to the end");
        trouble.abort();
    });
}

#[test]
fn a_session_that_ended_is_not_spoken_of_again() {
    run(async {
        let network = network();
        let leader = Process::new(&network, "leader", &[Orchestrator]).start().await;
        let _agents = Process::new(&network, "agents", &[Extraction, Transformation, Loading]).start().await;
        let first = negotiate(&leader, FILE).await.expect("an answer");
        // A late answer, from whoever served it.
        let envelope = Envelope {
            session: RequestId(FILE.into()),
            sequence: 9,
            from: Party::sole(Loading),
            to: Party::sole(Orchestrator),
            body: Message::CommitFailed { problems: Vec::new() },
        };
        let late = Post::Letter(Letter { from_host: "agents".into(), to_host: "leader".into(), envelope });
        network.publish(Topic::Agents, letter::to_record(&late, Encoding::Protobuf)).await.expect("heard");
        let again = negotiate(&leader, FILE).await.expect("the same answer, from the ledger");
        same(&again, &first);
    });
}
