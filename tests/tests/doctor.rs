//! `dagwright doctor` before a real Kafka: what is wrong is told apart, with a code and how to mend it.

use dagwright_tests::{
    Ended, Workspace,
    daemon::Daemon,
    kafka::{Kafka, Listener, Settings},
};

/// Runs the doctor with settings of Kafka, and librdkafka's.
fn doctor(workspace: &Workspace, kafka: &str, properties: &Settings) -> Ended {
    let brokers = &properties["bootstrap.servers"];
    let others = properties.iter().filter(|(name, _)| **name != "bootstrap.servers");
    let lines: String = others.map(|(name, value)| format!("\"{name}\" = '{value}'\n")).collect();
    let config = workspace.write(
        "doctor.toml",
        format!("[bus]\nkind = \"kafka\"\n[kafka]\nbrokers = \"{brokers}\"\n{kafka}\n[kafka.properties]\n{lines}"),
    );
    let ended = workspace.dagwright().arg("doctor").arg("--config").arg(config).output();
    ended.expect("dagwright starts").into()
}

/// Asserts that one line says what is wrong, and that what to do names `hint`.
#[track_caller]
fn check(ended: &Ended, exit: i32, code: &str, of: &str, hint: &str) {
    ended.expect_problem(exit, code);
    let mut lines = ended.stdout.lines().skip_while(|line| !(line.contains(of) && line.contains(code)));
    let problem = lines.next().unwrap_or_else(|| panic!("no {code} of {of} in\n{}", ended.stdout));
    let remedy = lines.next().unwrap_or_default();
    assert!(remedy.contains(hint), "{problem}\n{remedy}");
    assert!(!ended.stdout.contains("guessed"), "a password is shown");
}

#[test]
fn what_is_wrong_with_a_cluster_is_told_apart() {
    let kafka = Kafka::start_secure();
    let workspace = Workspace::new();
    let right = kafka.settings(Listener::SaslSsl);
    let with = |name: &'static str, value: &str| {
        let mut settings = right.clone();
        settings.insert(name, value.to_owned());
        settings
    };

    // Nothing is there yet, and all of it can be made.
    let fresh = doctor(&workspace, "partitions = 4", &right);
    assert!(fresh.expect(0).stdout.contains("makes it with 4 partitions"), "{}", fresh.stdout);
    let mut client = kafka.client();
    assert!(!client.topics().expect("topics").iter().any(|topic| topic.starts_with("dagwright.")));

    let variables = [
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        ("DAGWRIGHT__KAFKA__PARTITIONS", "4"),
    ];
    let daemon = Daemon::with(&workspace, &variables, &[]);
    let written = client.read("dagwright.ledger.v1").len();
    let well = doctor(&workspace, "partitions = 4", &right);
    let told = &well.expect(0).stdout;
    for part in [
        "answers (SASL_SSL)",
        "dagwright.ledger.v1: 4 partitions, compacted",
        "1 member",
        "right to write",
        "right to transactions",
    ] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }
    assert_eq!(client.read("dagwright.ledger.v1").len(), written, "looking leaves nothing behind");
    drop(daemon);

    let stranger = kafka.stranger().to_str().expect("text").to_owned();
    check(&doctor(&workspace, "", &with("sasl.password", "guessed")), 3, "DW0817", "broker", "sasl.password");
    check(&doctor(&workspace, "", &with("ssl.ca.location", &stranger)), 3, "DW0817", "broker", "ssl.ca.location");
    check(&doctor(&workspace, "", &with("ssl.ca.location", "/nowhere/ca.pem")), 2, "DW0701", "broker", "default.toml");
    let address = &right["bootstrap.servers"];
    let plain: Settings = [("bootstrap.servers", address.clone())].into();
    check(&doctor(&workspace, "", &plain), 3, "DW0814", address, "security.protocol");
    let one_away = format!("127.0.0.1:1,{address}");
    let half = doctor(&workspace, "partitions = 4", &with("bootstrap.servers", &one_away));
    check(&half, 3, "DW0814", "broker 127.0.0.1:1", "nothing listens there");
    assert!(half.stdout.contains(&format!("broker {address}: answers")), "{}", half.stdout);

    // By count, by how it is kept, and not there.
    let counted = doctor(&workspace, "partitions = 5", &right);
    check(&counted, 2, "DW0816", "topic dagwright.requests.v1", "kafka.partitions");
    client.create_topic("odd.ledger.v1", 4);
    let kept = doctor(&workspace, "prefix = \"odd\"\npartitions = 4", &right);
    check(&kept, 2, "DW0816", "topic odd.ledger.v1", "cleanup.policy");
    let foreign = "partitions = 4\n[[kafka.ingress]]\ntopic = \"nowhere\"\nscopes = [\"submit\"]";
    check(&doctor(&workspace, foreign, &right), 2, "DW0816", "topic nowhere", "kafka.ingress");
}

#[test]
fn each_right_that_is_missing_is_named() {
    let kafka = Kafka::start_secure();
    let workspace = Workspace::new();
    let user = kafka.settings(Listener::SaslPlaintext);
    let name = user["sasl.username"].clone();
    let variables = [("DAGWRIGHT__BUS__KIND", "kafka"), ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap())];
    let mut daemon = Daemon::with(&workspace, &variables, &[]);
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
    let mut client = kafka.client();
    let looks = ["describe", "describe_configs"];
    let told = |what: &str, right: &str| check(&doctor(&workspace, "", &user), 3, "DW0817", what, right);

    assert!(doctor(&workspace, "", &user).expect(0).stdout.contains("right to write"));
    let written = client.read("dagwright.ledger.v1").len();
    client.grant("topic", "dagwright.ledger.v1", &name, &[&looks[..], &["read"]].concat());
    told("right to write", "*write* on all topics");
    client.grant("topic", "dagwright.ledger.v1", &name, &["write"]);
    assert!(doctor(&workspace, "", &user).expect(0).stdout.contains("right to write"));
    assert_eq!(client.read("dagwright.ledger.v1").len(), written);

    client.grant("topic", "dagwright.requests.dlq.v1", &name, &looks);
    told("right to read dagwright.requests.dlq.v1", "*read*");
    client.grant("topic", "dagwright.requests.dlq.v1", &name, &["read"]);
    client.grant("group", "dagwright", "somebody", &["read"]);
    told("group dagwright", "on the group");
    client.grant("group", "dagwright", &name, &["read"]);
    client.grant("transactional_id", "dagwright.dagwright.#doctor", "somebody", &["write"]);
    told("right to transactions", "transactional ids");
}
