//! Whatever stands in the place of what Airflow tells: it is read or refused, within bounds, and no refusal repeats it.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    proptest,
    sample::{Index, select},
    test_runner::Config,
};
use serde_json::{Value, json};

use super::{
    Refused, Told, What,
    fields::{MESSAGE_CHARS_MAX, TEXT_CHARS_MAX},
    posted::{self, Content},
    produced,
};

/// What must not get into a message.
const MARK: &str = "hunter2";

const SAMPLES: [&str; 4] = [
    include_str!("samples/posted-2.11.2.jsonl"),
    include_str!("samples/posted-3.3.2.jsonl"),
    include_str!("samples/produced-2.11.2.jsonl"),
    include_str!("samples/produced-3.3.2.jsonl"),
];

/// What was posted or produced, as it came.
fn sample() -> impl Strategy<Value = Value> {
    let value = |line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        match &line["value"] {
            Value::String(produced) => serde_json::from_str(produced).expect("JSON"),
            _ => line,
        }
    };
    select(SAMPLES.iter().flat_map(|sample| sample.lines().map(value)).collect::<Vec<Value>>())
}

fn hostile() -> impl Strategy<Value = Value> {
    let text = any::<String>().prop_map(|text| json!(format!("{MARK}{text}")));
    let long = (1_usize..5_000).prop_map(|length| json!(MARK.repeat(length)));
    let instant =
        any::<(i32, u8, u8)>().prop_map(|(year, month, day)| json!(format!("{year}-{month:02}-{day:02}T00:00:00Z")));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text,
        long,
        instant,
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((select(vec![MARK, "start", "end", "code", "type", "message", "sinks", "loaded"]), inner), 0..4)
                .prop_map(|members| Value::Object(
                    members.into_iter().map(|(key, value)| (key.into(), value)).collect()
                )),
        ]
    })
}

/// Reads bytes both ways, and holds what comes of it against its bounds.
fn check(bytes: &[u8]) {
    let posted = posted::read(bytes).map(|posted| match posted.content {
        Content::Told(told) => Some(*told),
        Content::Dropped(_) => None,
    });
    for read in [posted, produced::read(bytes)] {
        match read {
            Ok(Some(told)) => check_bounds(&told),
            Ok(None) => {}
            Err(refused) => {
                assert!(!refused.to_string().contains(MARK), "{refused}");
                assert!(matches!(refused, Refused::TooLong { .. }) == (refused.code().to_string() == "DW0802"));
            }
        }
    }
}

fn check_bounds(told: &Told) {
    let mut texts = vec![told.dag_id.as_str(), &told.run_id];
    match &told.what {
        What::Run(run) => {
            texts.extend(run.run_type.as_deref());
            texts.extend(run.request.as_ref().map(|request| request.0.as_str()));
            assert!(run.interval.is_none_or(|(start, end)| start < end));
        }
        What::Task(task) => {
            texts.push(&task.task.0);
            let message = task.failure.as_ref().and_then(|failure| failure.message.as_deref()).unwrap_or_default();
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX && !message.contains(char::is_control));
            // Whoever adds them up must not overflow.
            if let Some(counts) = &task.counts {
                let mut sum = counts.clone();
                (0..1_000).for_each(|_| sum.add(counts));
            }
        }
    }
    for text in texts {
        assert!(text.chars().count() <= TEXT_CHARS_MAX && !text.contains(char::is_control), "{text}");
    }
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, cases: 400, ..Config::default() })]

    #[test]
    fn any_value_in_any_field_is_read_or_refused(
        mut told in sample(), changes in vec((any::<Index>(), hostile()), 1..3),
    ) {
        let fields: Vec<_> = told.as_object().expect("an object").keys().cloned().collect();
        for (index, value) in changes {
            told[index.get(&fields)] = value;
        }
        check(told.to_string().as_bytes());
    }

    #[test]
    fn any_bytes_are_read_or_refused(told in sample(), changes in vec((any::<Index>(), any::<u8>()), 0..4), cut in any::<Index>()) {
        let mut bytes = told.to_string().into_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        check(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        check(&bytes);
    }
}
