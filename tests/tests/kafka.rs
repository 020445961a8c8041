//! The Kafka that the other tests use is one to rely on: it keeps records, hides what is not committed, and guards its
//! listeners.

use dagwright_tests::kafka::{Client, Kafka, Listener, Record, Settings};

#[test]
fn records_outlive_a_broker_that_was_killed() {
    let mut kafka = Kafka::start();
    let mut client = kafka.client();
    client.create_topic("kept", 1);
    let records = [
        Record::new("a", r#"{"n": 1, "text": "zwölf"}"#).header("ce_id", "1").header("ce_source", "/tests"),
        Record::new("b", ""),
        Record { value: Some("no key".into()), ..Record::default() },
        Record { key: Some("a".into()), ..Record::default() },
    ];
    kafka.console_produce("kept", &records);
    let before = client.consume("kept", records.len());
    assert_eq!(before.iter().cloned().map(Record::anywhere).collect::<Vec<_>>(), records);
    assert_eq!(before.iter().map(|record| record.offset).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);

    kafka.kill();
    kafka.restart();
    assert_eq!(client.read("kept"), before, "by the client that saw the broker go");
    assert_eq!(kafka.console_consume("kept", records.len()), records);
}

#[test]
fn what_is_not_committed_is_not_read() {
    let kafka = Kafka::shared();
    let mut client = kafka.client();
    client.create_topic("transactions", 3);
    let of = |value: &str| Record { partition: Some(1), ..Record::new("key", value) };
    client.produce_in("writer", "transactions", &[of("aborted")]);
    client.abort("writer");
    client.produce_in("writer", "transactions", &[of("first"), of("second")]);
    assert_eq!(client.read("transactions"), []);
    client.commit("writer");
    client.produce("transactions", &[of("third")]);
    let wanted = ["first", "second", "third"].map(|value| Record::new("key", value));
    assert_eq!(kafka.console_consume("transactions", 3), wanted);
    let read = client.read("transactions");
    assert_eq!(read.iter().map(|record| record.partition).collect::<Vec<_>>(), [Some(1); 3]);
    assert_eq!(read.into_iter().map(Record::anywhere).collect::<Vec<_>>(), wanted);
}

#[test]
fn listeners_refuse_wrong_passwords_and_clients_refuse_unknown_authorities() {
    #[track_caller]
    fn check(settings: &Settings, wanted: Result<(), &str>) {
        let topics = Client::new(settings).topics();
        let ended = topics.as_ref().map(|_| ()).map_err(|refused| refused.code.as_str());
        assert_eq!(ended, wanted, "{topics:?}");
    }

    let kafka = Kafka::start_secure();
    let stranger = kafka.stranger().to_str().expect("text").to_owned();
    check(&kafka.settings(Listener::Plaintext), Ok(()));
    for listener in [Listener::SaslPlaintext, Listener::SaslSsl, Listener::Ssl] {
        let right = kafka.settings(listener);
        check(&right, Ok(()));
        for (name, wrong, code) in
            [("sasl.password", "guessed", "_AUTHENTICATION"), ("ssl.ca.location", &stranger, "_SSL")]
        {
            if right.contains_key(name) {
                let mut settings = right.clone();
                settings.insert(name, wrong.to_owned());
                check(&settings, Err(code));
            }
        }
    }
}
