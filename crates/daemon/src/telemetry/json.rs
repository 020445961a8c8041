//! Log lines as JSON: one object a line, with what the spans around it know.
//!
//! `timestamp`, `level`, `target` and `message` stand first, then `request_id` and `trace_id` where a span or the event
//! itself has them, then the event's own fields under `fields`.

use std::{collections::BTreeMap, fmt, io::Write};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

/// What a line takes from the spans around it, and shows at its top.
const INHERITED: [&str; 2] = ["request_id", "trace_id"];

/// Writes lines.
pub(super) struct Lines<W> {
    writer: W,
}

/// What a span has for the lines in it.
#[derive(Debug, Default)]
struct Ids(BTreeMap<&'static str, Value>);

struct Fields<'a>(&'a mut Map<String, Value>);

// === impl Lines ===

impl<W> Lines<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut ids = Ids::default();
        attributes.record(&mut ids);
        span.extensions_mut().insert(ids);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(ids) = span.extensions_mut().get_mut::<Ids>() {
            values.record(ids);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Map::new();
        event.record(&mut Fields(&mut fields));
        let mut line = Map::new();
        line.insert("timestamp".into(), json!(Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)));
        line.insert("level".into(), json!(event.metadata().level().as_str()));
        line.insert("target".into(), json!(event.metadata().target()));
        line.insert("message".into(), fields.remove("message").unwrap_or_default());
        // The innermost span counts, and the event itself before all.
        let scope = context.event_scope(event).into_iter().flatten();
        for span in scope.collect::<Vec<_>>().into_iter().rev() {
            if let Some(Ids(ids)) = span.extensions().get::<Ids>() {
                line.extend(ids.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            }
        }
        for name in INHERITED {
            line.extend(fields.remove(name).map(|value| (name.to_owned(), value)));
        }
        if !fields.is_empty() {
            line.insert("fields".into(), Value::Object(fields));
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // Nobody to tell it to.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(text.as_bytes());
    }
}

// === impl Ids, Fields ===

impl Visit for Ids {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if INHERITED.contains(&field.name()) {
            self.0.insert(field.name(), json!(format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};
    use tracing_subscriber::{Registry, fmt::MakeWriter, layer::SubscriberExt};

    use super::Lines;

    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub(in crate::telemetry) fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        tracing::subscriber::with_default(Registry::default().with(Lines::new(sink.clone())), log);
        sink.lines()
    }

    #[test]
    fn a_line_has_the_ids_of_the_spans_around_it_and_of_itself() {
        let lines = lines(|| {
            let outer = tracing::info_span!("request", request_id = "r1", trace_id = "t1", other = 1);
            let _outer = outer.enter();
            let inner = tracing::info_span!("task", role = "loading", trace_id = tracing::field::Empty);
            inner.in_scope(|| tracing::warn!(target: "audit", rows = 3, "two\nlines"));
            inner.record("trace_id", "t2");
            inner.in_scope(|| tracing::info!(request_id = %"r2", "other"));
        });
        assert_eq!(lines[0]["request_id"], "r1");
        assert_eq!(lines[0]["trace_id"], "t1");
        assert_eq!(lines[0]["target"], "audit");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[0]["fields"], json!({ "rows": 3 }));
        assert_eq!((&lines[1]["request_id"], &lines[1]["trace_id"]), (&json!("r2"), &json!("t2")));
        assert_eq!(lines.len(), 2);
    }
}
