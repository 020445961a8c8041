//! Messages of ten megabytes.

use dagwright_tests::{
    Workspace, http,
    kafka::{Client, Kafka, Listener, Record},
};

use crate::{PARTITIONS, Place, ROWS, assert_done_once, request, spec, until_all_ended};

const LONG: usize = 10 << 20;

/// How many long ones are sent: together more than the service may hold.
const LONG_ONES: usize = 8;

/// What the service may hold besides those 64 MiB of messages: what librdkafka reads ahead and sends.
const MEMORY_MAX_MIB: u64 = 384;

/// Text in which a compressor finds nothing.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'0' + (state % 75) as u8
    };
    (0..len).map(letter).collect()
}

/// Returns a client that may send long messages.
fn client(kafka: &Kafka) -> Client {
    let mut settings = kafka.settings(Listener::Plaintext);
    settings.insert("message.max.bytes", (2 * LONG).to_string());
    Client::new(&settings)
}

fn header<'a>(record: &'a Record, wanted: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(name, _)| name == wanted)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

/// Sends long messages in front of a valid one, and returns the dead letters.
fn send_long(kafka: &Kafka, prefix: &str, dead_letter_bytes_max: usize, count: usize) -> Vec<Record> {
    let place = Place { brokers: kafka.bootstrap(), prefix };
    let mut client = client(kafka);
    let longest = (2 * LONG).to_string();
    client.create_topic_with(&place.topic("requests"), PARTITIONS, &[("max.message.bytes", &longest)]);
    let bounded = dead_letter_bytes_max.to_string();
    client.create_topic_with(&place.topic("requests.dlq"), 1, &[("max.message.bytes", &bounded)]);
    let workspace = Workspace::new();
    workspace.write("in.csv", ROWS);
    for number in 0..count {
        let long = Record { partition: Some(0), ..Record::new("long", noise(number as u64, LONG)) };
        client.produce(&place.topic("requests"), &[long.header("theirs", "kept")]);
    }
    // Behind them, in the same partition and in another.
    let behind = |name| Record { partition: Some(0), ..request(&workspace, name, "1") };
    client.produce(&place.topic("requests"), &[behind("behind"), request(&workspace, "beside", "1")]);
    let daemon = place.start(&workspace);
    let pipelines = ["behind".to_owned(), "beside".to_owned()].into();
    assert_done_once(&workspace, &until_all_ended(&mut client, &place.topic("events"), &pipelines));
    let peak = daemon.memory_peak_mib();
    println!("{peak} MiB");
    assert!(peak < MEMORY_MAX_MIB, "it held {peak} MiB");

    let post = http::call(daemon.address, "POST", "/api/v1/requests", &[], &noise(0, LONG));
    post.refused(413, "DW0802");
    http::call(daemon.address, "GET", "/readyz", &[], b"").expect(200);
    let dead_letters = place.topic("requests.dlq");
    let letters = client.read(&dead_letters);
    assert_eq!(letters.len(), count, "each once");
    for (number, letter) in letters.iter().enumerate() {
        assert_eq!(header(letter, "dagwright-error-code"), Some("DW0802"));
        assert_eq!(header(letter, "theirs"), Some("kept"));
        assert_eq!(letter.key.as_deref(), Some(&b"long"[..]));
        let kept = letter.value.as_deref().expect("content");
        assert!(noise(number as u64, LONG).starts_with(kept), "letter {number}");
    }
    letters
}

#[test]
fn a_request_that_the_ledger_does_not_take_is_refused_and_told() {
    const TAKEN: usize = 100_000;
    let kafka = Kafka::shared();
    let place = Place { brokers: kafka.bootstrap(), prefix: "longest" };
    let mut client = client(kafka);
    let bounded = [("cleanup.policy", "compact"), ("max.message.bytes", &TAKEN.to_string())];
    client.create_topic_with(&place.topic("ledger"), PARTITIONS, &bounded);
    let workspace = Workspace::new();
    workspace.write("in.csv", ROWS);
    // Comments are kept, as whoever asks for the spec of a request is to see what was sent.
    let comment = String::from_utf8(noise(0, 4 * TAKEN)).expect("text");
    let long = Record::new("long", format!("# {comment}\n{}", spec(&workspace, "long")));
    let long = long.header("content-type", "application/yaml");
    // It makes the other topics.
    let _daemon = place.start(&workspace);
    client.produce(&place.topic("requests"), &[long, request(&workspace, "short", "1")]);
    let pipelines = ["long".to_owned(), "short".to_owned()].into();
    let kinds = until_all_ended(&mut client, &place.topic("events"), &pipelines);
    assert_eq!(kinds["long"], ["request.rejected"]);
    assert!(kinds["short"].iter().any(|kind| kind == "run.succeeded"), "{kinds:?}");
    let letters = client.read(&place.topic("requests.dlq"));
    assert_eq!(letters.iter().map(|it| header(it, "dagwright-error-code")).collect::<Vec<_>>(), [Some("DW0802")]);
}

#[test]
fn a_message_of_ten_megabytes_is_kept_whole_where_the_dead_letters_take_it() {
    for letter in send_long(Kafka::shared(), "long", 2 * LONG, LONG_ONES) {
        assert_eq!(letter.value.as_deref().map(<[u8]>::len), Some(LONG));
        assert_eq!(header(&letter, "dagwright-cut-from"), None);
    }
}

#[test]
fn a_message_of_ten_megabytes_is_cut_where_the_dead_letters_take_less() {
    const TAKEN: usize = 1_000_000;
    for letter in send_long(Kafka::shared(), "longer", TAKEN, 2) {
        let kept = letter.value.as_deref().map_or(0, <[u8]>::len);
        assert!((TAKEN - 4_096..TAKEN).contains(&kept), "{kept}");
        assert_eq!(header(&letter, "dagwright-cut-from"), Some(LONG.to_string().as_str()));
    }
}
