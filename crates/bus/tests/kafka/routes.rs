//! Requests that are elsewhere at home, and those that nobody can read.

use dagwright_bus::kafka::{
    ATTEMPTS, Address, Commit, DeadLetters, Destination, ERROR, ERROR_CODE, Error, FORWARDED_FROM, Instance, ORIGIN,
    Outgoing, Place, Producer, REPLAY_OF, Received, Requests, Selection, Topics,
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

/// Receives the next record and puts it to the dead letters.
async fn bury(instance: &Instance, requests: &mut Requests, code: Code) -> Received {
    let received = requests.next(1).await.pop().unwrap();
    let records = vec![received.dead_letter(code, "not JSON: <é>")];
    let commit =
        Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records, otherwise: None };
    instance.commit(commit).await.unwrap();
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_can_be_seen_and_sent_again() {
    let broker = Broker::shared();
    let mut settings = settings(&broker.address, "dead", "a");
    settings.ingress = vec!["dead-foreign".into()];
    make_topic(&broker.address, "dead-foreign", 1, "delete").await;
    let (instance, mut requests, _, stats) = instance(&settings).await;
    let topics = instance.topics().clone();
    let letters = DeadLetters::new(settings.clone(), topics.clone());
    let all = Selection { limit: 10, ..Selection::default() };
    let none = letters.list(&all).await.unwrap();
    assert!(none.letters.is_empty() && none.older.is_empty());

    let headers = [("ce_id".to_owned(), Some(b"1".to_vec())), ("empty".to_owned(), None)];
    let mut places = Vec::new();
    let foreign = &topics.ingress[0];
    for (topic, value, code) in [
        (&topics.requests, "{", Code::RequestInvalid),
        (&topics.requests, "}", Code::RequestInvalid),
        (foreign, "{}", Code::NotAllowed),
    ] {
        produce(&broker.address, topic, None, value, &headers).await;
        let received = bury(&instance, &mut requests, code).await;
        assert_eq!((received.attempt(), received.header("ce_id")), (1, Some(&b"1"[..])));
        places.push(received.place());
    }
    assert_eq!(stats.dead_letters.get(), 3);
    let raw = read(&broker.address, &topics.dead_letters).remove(0);
    let verdict = [(ERROR_CODE, "DW0801"), (ERROR, "not JSON: <é>"), (ATTEMPTS, "1"), (ORIGIN, &places[0].to_string())];
    let verdict = verdict.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
    assert_eq!((raw.key, raw.value.as_deref()), (None, Some("{")));
    assert_eq!(raw.headers[..2], [("ce_id".into(), Some("1".into())), ("empty".into(), None)]);
    assert_eq!(raw.headers[2..], verdict);

    let listing = letters.list(&all).await.unwrap();
    assert!(listing.older.is_empty());
    let origins: Vec<Place> = listing.letters.iter().filter_map(|head| head.origin.clone()).rev().collect();
    assert_eq!(origins, places, "the newest first");
    let mut paged = Vec::new();
    let mut next = Selection { limit: 1, ..Selection::default() };
    loop {
        let page = letters.list(&next).await.unwrap();
        paged.extend(page.letters);
        next.before = page.older;
        if next.before.is_empty() {
            break;
        }
    }
    assert_eq!(paged, listing.letters);
    let of_code = Selection { code: Some("DW0801".into()), ..all.clone() };
    assert_eq!(letters.list(&of_code).await.unwrap().letters, listing.letters[1..]);
    let of_topic = Selection { topic: Some(foreign.clone()), ..all.clone() };
    assert_eq!(letters.list(&of_topic).await.unwrap().letters, listing.letters[..1]);

    let head = &listing.letters[2];
    let letter = letters.show(head.address).await.unwrap();
    assert_eq!((&letter.head, letter.value.as_deref()), (head, Some(&b"{"[..])));
    assert_eq!((head.code.as_deref(), head.error.as_deref()), (Some("DW0801"), Some("not JSON: <é>")));
    assert_eq!((head.attempts, head.bytes, letter.headers.as_slice()), (1, Some(1), &headers[..]));
    for (partition, offset) in [(0, 99), (7, 0), (0, -1)] {
        let error = letters.show(Address { partition, offset }).await.unwrap_err();
        assert!(matches!(error, Error::NoDeadLetter { .. }), "{error}");
        assert_eq!(error.code(), Code::DeadLetterUnknown);
    }

    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let mut replayed = letters.replay(&producer, head.address).await.unwrap();
    for attempt in [2, 3] {
        assert_eq!(replayed.attempt, attempt);
        let again = bury(&instance, &mut requests, Code::RequestInvalid).await;
        assert_eq!((again.value.as_deref(), again.key.as_deref(), again.attempt()), (Some(&b"{"[..]), None, attempt));
        assert_eq!((again.place(), again.replay_of()), (replayed.place.clone(), Some(places[0].clone())));
        assert_eq!(again.headers[..2], headers);
        assert_eq!(again.headers.iter().filter(|(name, _)| name == REPLAY_OF).count(), 1);
        let newest = letters.list(&Selection { limit: 1, ..all.clone() }).await.unwrap().letters.remove(0);
        assert_eq!((newest.attempts, newest.origin), (attempt, Some(again.place())));
        replayed = letters.replay(&producer, newest.address).await.unwrap();
    }
    bury(&instance, &mut requests, Code::RequestInvalid).await;
    let listing = letters.list(&all).await.unwrap();
    assert_eq!(listing.letters.len(), 6);
    let once: Vec<_> = listing.newest_of_each().into_iter().map(|head| (head.attempts, head.origin)).collect();
    let wanted = [(4, replayed.place.clone()), (1, places[2].clone()), (1, places[1].clone())];
    assert_eq!(once, wanted.map(|(attempts, origin)| (attempts, Some(origin))));

    // What came from elsewhere goes back there, where it may ask for less.
    let back = letters.replay(&producer, listing_address(&letters, &of_topic).await).await.unwrap();
    assert_eq!(back.place.topic, *foreign);
    settings.ingress.clear();
    let elsewhere = DeadLetters::new(settings.clone(), Topics::named(&settings));
    let refused = elsewhere.replay(&producer, back.address).await.unwrap_err();
    assert!(matches!(refused, Error::Homeless { .. }), "{refused}");
    let forged = [(ORIGIN.to_owned(), Some(b"dagwright.ledger.v1/0/0".to_vec()))];
    produce(&broker.address, &topics.dead_letters, None, "x", &forged).await;
    let newest = letters.list(&Selection { limit: 1, ..all }).await.unwrap().letters.remove(0);
    let refused = letters.replay(&producer, newest.address).await.unwrap_err();
    assert_eq!(refused.code(), Code::BusUnfit, "{refused}");
    assert_eq!(Outgoing::new(Destination::Ledger, "", "").len(), 0);
    instance.close().await;
}

async fn listing_address(letters: &DeadLetters, selection: &Selection) -> Address {
    letters.list(selection).await.unwrap().letters[0].address
}
