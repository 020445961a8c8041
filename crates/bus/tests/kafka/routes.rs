//! Requests that are elsewhere at home, and those that nobody can read.

use dagwright_bus::kafka::{
    ATTEMPTS, Commit, DeadLetters, Destination, ERROR, ERROR_CODE, Error, FORWARDED_FROM, Outgoing, Producer, Topics,
};
use dagwright_model::code::Code;

use crate::harness::{Broker, Station, assert_once, instance, make_topic, produce, read, settings, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_where_its_pipeline_is_at_home() {
    let broker = Broker::shared();
    let mut settings = settings(&broker.address, "forward", "a");
    settings.ingress = vec!["foreign".into()];
    make_topic(&broker.address, "foreign", 2, "delete").await;
    let topics = Topics::ensure(&settings).await.unwrap();
    // Without a key, with a wrong one, and from another topic; one has a header without a value.
    let header = ("note".to_owned(), None);
    let mut submitted = Vec::new();
    for number in 0..20 {
        let value = format!("pipeline-{number}/x");
        let (topic, key) = match number % 3 {
            0 => (&topics.requests, None),
            1 => (&topics.requests, Some("elsewhere")),
            _ => (&topics.ingress[0], Some("elsewhere")),
        };
        produce(&broker.address, topic, key, &value, std::slice::from_ref(&header)).await;
        submitted.push(value);
    }
    let station = Station::start(&settings).await;
    until("every record is in the cache", || station.cache.len() == submitted.len());
    assert_once(&broker.address, &topics, &submitted);
    for record in station.cache.records() {
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        assert_eq!(record.partition, topics.home(value.split('/').next().unwrap()));
    }
    let forwarded: Vec<_> = read(&broker.address, &topics.requests)
        .into_iter()
        .filter(|found| found.headers.iter().any(|(name, _)| name == FORWARDED_FROM))
        .collect();
    assert_eq!(forwarded.len() as u64, station.stats.forwarded.get());
    assert!(forwarded.len() >= 13, "all without a key may be at home by chance: {forwarded:?}");
    for found in &forwarded {
        let pipeline = found.value.as_deref().unwrap().split('/').next();
        assert_eq!(found.key.as_deref(), pipeline);
        assert_eq!(found.headers[0], ("note".into(), None));
        let from = found.headers[1].1.clone().unwrap();
        assert!(from.starts_with("foreign/") || from.starts_with("forward.requests.v1/"), "{from}");
    }
    station.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_can_be_seen_and_sent_again() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "dead", "a");
    let (instance, mut requests, _, stats) = instance(&settings).await;
    let topics = instance.topics().clone();
    let letters = DeadLetters::new(settings.clone(), topics.clone());
    let none = letters.list(&Default::default(), 10).await.unwrap();
    assert!(none.letters.is_empty() && none.next.is_empty());

    let headers = [("ce_id".to_owned(), Some(b"1".to_vec())), ("empty".to_owned(), None)];
    for value in ["{", "}"] {
        produce(&broker.address, &topics.requests, None, value, &headers).await;
        let received = requests.next().await.unwrap();
        assert_eq!((received.attempt(), received.header("ce_id")), (1, Some(&b"1"[..])));
        let records = vec![received.dead_letter(Code::RequestInvalid, "not JSON: <é>")];
        let commit = Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records };
        instance.commit(commit).await.unwrap();
    }
    assert_eq!(stats.dead_letters.get(), 2);
    let raw = read(&broker.address, &topics.dead_letters).remove(0);
    let verdict = [(ERROR_CODE, "DW0801"), (ERROR, "not JSON: <é>"), (ATTEMPTS, "1")];
    let verdict = verdict.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
    assert_eq!((raw.key, raw.value.as_deref()), (None, Some("{")));
    assert_eq!(raw.headers[..2], [("ce_id".into(), Some("1".into())), ("empty".into(), None)]);
    assert_eq!(raw.headers[2..], verdict);

    let first = letters.list(&Default::default(), 1).await.unwrap();
    let rest = letters.list(&first.next, 10).await.unwrap();
    assert!(!first.next.is_empty() && rest.next.is_empty());
    let all: Vec<_> = [first.letters, rest.letters].concat();
    assert_eq!(all.iter().map(|letter| letter.value.as_deref()).collect::<Vec<_>>(), [Some(&b"{"[..]), Some(b"}")]);
    let letter = letters.show(all[0].partition, all[0].offset).await.unwrap();
    assert_eq!(letter, all[0]);
    assert_eq!((letter.code.as_deref(), letter.error.as_deref()), (Some("DW0801"), Some("not JSON: <é>")));
    assert_eq!(letter.headers, headers);
    for (partition, offset) in [(0, 99), (7, 0), (0, -1)] {
        let error = letters.show(partition, offset).await.unwrap_err();
        assert!(matches!(error, Error::NoDeadLetter { .. }), "{error}");
        assert_eq!(error.code(), Code::DeadLetterUnknown);
    }

    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    letters.replay(&producer, letter.partition, letter.offset).await.unwrap();
    let again = requests.next().await.unwrap();
    assert_eq!((again.value.as_deref(), again.key.as_deref(), again.attempt()), (Some(&b"{"[..]), None, 2));
    assert_eq!(again.headers[..2], headers);
    assert_eq!(again.dead_letter(Code::RequestInvalid, "still").headers.last().unwrap().1, Some(b"2".to_vec()));
    assert_eq!(again.dead_letter(Code::RequestInvalid, "still").headers.len(), 5, "one verdict is enough");
    let done = Commit { ownership: again.ownership.clone(), consumed: Some(again.offset), records: Vec::new() };
    instance.commit(done).await.unwrap();
    assert_eq!(Outgoing::new(Destination::Ledger, "", "").len(), 0);
    instance.close().await;
}
