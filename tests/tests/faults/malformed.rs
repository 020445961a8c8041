//! Ten thousand malformed messages among valid ones.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_tests::{
    Workspace, http,
    kafka::{Kafka, Record},
};

use crate::{PARTITIONS, Place, ROWS, assert_done_once, messages::Hostility, request, until_all_ended};

const MESSAGES: u64 = 10_000;

/// After so many malformed ones comes a valid one.
const BETWEEN: u64 = 2_000;

/// How many are sent at a time.
const SENT: u64 = 1_000;

/// Names a message in its headers; it changes nothing of what the message means.
const SEED: &str = "tests-seed";

/// The most that the service may hold: what waits is bounded, whatever comes.
const MEMORY_MAX_MIB: u64 = 384;

/// Says what a message is to be known by; `DAGWRIGHT_SEED` makes others.
fn first_seed() -> u64 {
    std::env::var("DAGWRIGHT_SEED").map_or(0, |text| text.parse().expect("DAGWRIGHT_SEED is a number"))
}

/// Makes messages of which none may be taken on: those that can be read name what nobody here may touch.
fn malformed(hostility: &Hostility, seed: u64) -> Record {
    let message = hostility.message(seed);
    let headers = message.headers.into_iter().map(|(name, value)| (name, Some(value)));
    Record {
        key: message.heads.then(|| seed.to_string().into_bytes()),
        value: Some(bombed(message.body, seed)),
        headers: headers.chain([(SEED.to_owned(), Some(seed.to_string().into_bytes()))]).collect(),
        partition: i32::try_from(seed % u64::from(PARTITIONS)).ok(),
        offset: None,
    }
}

/// Lets some messages be as long as a broker takes.
fn bombed(body: Vec<u8>, seed: u64) -> Vec<u8> {
    const BYTES_MAX: usize = 900_000;
    let bombs = ["[", "{\"a\":", "- ", "&a [*a,*a]\n", "\u{0}", "9"];
    match usize::try_from(seed % 1_000) {
        Ok(number) if number < bombs.len() => bombs[number].repeat(BYTES_MAX / bombs[number].len()).into_bytes(),
        _ => body,
    }
}

#[test]
fn each_malformed_message_is_a_dead_letter_once_and_each_valid_one_runs_once() {
    let kafka = Kafka::shared();
    let place = Place { brokers: kafka.bootstrap(), prefix: "malformed" };
    let workspace = Workspace::new();
    workspace.write("in.csv", ROWS);
    let daemon = place.start(&workspace);
    let mut client = kafka.client();
    let first = first_seed();
    println!("seeds from {first} on");
    let hostility = Hostility::new(3_000, 1_000);
    let mut sent = BTreeMap::new();
    let mut pipelines = BTreeSet::new();
    for start in (0..MESSAGES).step_by(usize::try_from(SENT).expect("small")) {
        let mut records: Vec<_> =
            (start..start + SENT).map(|number| malformed(&hostility, first.wrapping_add(number))).collect();
        sent.extend(records.iter().map(|record| (seed_of(record), record.clone())));
        if start % BETWEEN == 0 {
            let pipeline = format!("p{start}");
            // In the middle, and once more at the end.
            records.insert(records.len() / 2, request(&workspace, &pipeline, "1"));
            records.push(request(&workspace, &pipeline, "1"));
            pipelines.insert(pipeline);
        }
        client.produce(&place.topic("requests"), &records);
        http::call(daemon.address, "GET", "/readyz", &[], b"").expect(200);
    }

    let mut kinds = until_all_ended(&mut client, &place.topic("events"), &pipelines);
    let refused = kinds.extract_if(.., |pipeline, _| !pipelines.contains(pipeline));
    for (pipeline, kinds) in refused {
        assert!(kinds.iter().all(|kind| kind == "request.rejected"), "{pipeline} was taken on: {kinds:?}");
    }
    assert_done_once(&workspace, &kinds);

    let dead_letters = place.topic("requests.dlq");
    let count = usize::try_from(MESSAGES).expect("small");
    assert_eq!(client.consume(&dead_letters, count).len(), count);
    let letters = client.read(&dead_letters);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for letter in &letters {
        let seed = seed_of(letter);
        let original = sent.remove(&seed).unwrap_or_else(|| panic!("seed {seed} died twice, or was never sent"));
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value), "seed {seed}");
        let (verdict, theirs): (Vec<_>, Vec<_>) =
            letter.headers.iter().partition(|(name, _)| name.starts_with("dagwright-"));
        assert!(theirs.into_iter().eq(&original.headers), "seed {seed}: {letter:?}");
        let text = |wanted: &str| {
            let (_, value) = verdict.iter().find(|(name, _)| name == wanted)?;
            String::from_utf8(value.clone()?).ok()
        };
        let code = text("dagwright-error-code").filter(|code| code.starts_with("DW0")).expect("a code");
        assert!(text("dagwright-error").is_some_and(|reason| !reason.is_empty()), "seed {seed}: {letter:?}");
        *codes.entry(code).or_default() += 1;
    }
    assert!(sent.is_empty(), "these came to nothing: {:?}", sent.keys());
    assert!(codes.len() >= 4, "they were all alike: {codes:?}");

    http::call(daemon.address, "GET", "/readyz", &[], b"").expect(200);
    let peak = daemon.memory_peak_mib();
    assert!(peak < MEMORY_MAX_MIB, "it held {peak} MiB");
    println!("{codes:?}, {peak} MiB");
}

#[track_caller]
fn seed_of(record: &Record) -> u64 {
    let (_, seed) = record.headers.iter().find(|(name, _)| name == SEED).expect("a seed");
    seed.as_deref().and_then(|seed| std::str::from_utf8(seed).ok()?.parse().ok()).expect("a number")
}
