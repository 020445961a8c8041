//! Records that are longer than a topic takes: none holds up another, and of a dead letter as much is kept as fits.

use dagwright_bus::kafka::{
    Address, CUT_FROM, Commit, CommitError, DeadLetters, Destination, ERROR_CODE, Error, Outgoing, Producer, Topics,
};
use dagwright_model::code::Code;

use crate::harness::{Broker, instance, make_topic_with, noise, read, settings};

/// How long what is sent together to the dead letters may be in these tests.
const DEAD_LETTER_BYTES_MAX: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_no_topic_takes_whole_holds_nothing_up() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "lengths", "a");
    let bounded = DEAD_LETTER_BYTES_MAX.to_string();
    let dead_letters = Topics::named(&settings).dead_letters;
    make_topic_with(&broker.address, &dead_letters, 1, &[("max.message.bytes", &bounded)]).await;
    let (instance, mut requests, _, stats) = instance(&settings).await;
    let topics = instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();

    // Together the short ones are longer than may be sent together; alone, each is fine. One is too long on its own, and one
    // has an acceptance that is.
    let lengths = [3_000, 3_000, 100_000, 3_000, 3_000, 300, 3_000, 3_000, 3_000, 3_000];
    for (number, length) in lengths.into_iter().enumerate() {
        let request = Outgoing::new(Destination::Requests, "p", noise(number as u64, length));
        producer.produce(&request).await.unwrap();
    }
    let mut outcomes = Vec::new();
    for length in lengths {
        let received = requests.next(1).await.pop().unwrap();
        let letter = vec![received.dead_letter(Code::RequestInvalid, "of no use")];
        let (records, otherwise) = match length {
            300 => (vec![Outgoing::new(Destination::Ledger, "k", noise(99, 5_000_000))], Some(letter)),
            _ => (letter, None),
        };
        let commit =
            Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records, otherwise };
        outcomes.push(instance.committer().submit(commit).await.unwrap());
    }
    for (outcome, length) in outcomes.into_iter().zip(lengths) {
        let wanted = if length == 300 { Err(CommitError::TooLarge) } else { Ok(()) };
        assert_eq!(outcome.visible().await, wanted, "{length}");
    }

    let letters = read(&broker.address, &topics.dead_letters);
    assert_eq!(letters.len(), lengths.len(), "each once");
    for ((number, length), letter) in lengths.into_iter().enumerate().zip(&letters) {
        let (value, sent) = (letter.value.as_deref().expect("content"), noise(number as u64, length));
        let cut_from = letter.headers.iter().find(|(name, _)| name == CUT_FROM).and_then(|(_, value)| value.as_deref());
        if length > DEAD_LETTER_BYTES_MAX {
            let kept = DEAD_LETTER_BYTES_MAX - 2_000..DEAD_LETTER_BYTES_MAX;
            assert!(kept.contains(&value.len()) && sent.starts_with(value), "{}", value.len());
            assert_eq!(cut_from, Some("100000"));
            let address = Address { partition: letter.partition, offset: letter.offset };
            let archive = DeadLetters::new(settings.clone(), topics.clone());
            let refused = archive.replay(&producer, address).await.unwrap_err();
            assert!(matches!(refused, Error::DeadLetterCut { bytes: 100_000, .. }), "{refused}");
        } else {
            assert_eq!((value, cut_from), (sent.as_str(), None));
        }
        assert!(letter.headers.iter().any(|(name, _)| name == ERROR_CODE));
    }
    assert_eq!(read(&broker.address, &topics.ledger), []);
    assert_eq!(stats.dead_letters.get(), lengths.len() as u64);
    assert_eq!((stats.rebuilt.get(), stats.in_doubt.get()), (0, 0));
    assert!(instance.failure().borrow().is_none());
    instance.close().await;
}
