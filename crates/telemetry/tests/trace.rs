//! Spans of a request are one trace, whoever began it.

use dagwright_telemetry::trace::{self, Past};
use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::layer::SubscriberExt;

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Does something where spans are kept, and returns them in the order in which they ended.
fn spans(work: impl FnOnce()) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    // What is told after the fact goes by the global one; tests of this file run in one process, so each sees its own.
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    exporter.get_finished_spans().expect("spans")
}

static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_request_without_a_context_gets_a_root() {
    let mut context = None;
    let spans = spans(|| {
        context = trace::adopt(Some("nonsense"), || tracing::info_span!("request"));
        let span = tracing::info_span!("admission");
        trace::continue_from(&span, context.as_deref());
    });
    let context = context.expect("a context");
    let (root, child) = (&spans[0], &spans[1]);
    assert_eq!((root.name.as_ref(), child.name.as_ref()), ("request", "admission"));
    assert_eq!(context, format!("00-{}-{}-01", root.span_context.trace_id(), root.span_context.span_id()));
    assert_eq!(child.parent_span_id, root.span_context.span_id());
    assert_eq!(child.span_context.trace_id(), root.span_context.trace_id());
}

#[test]
fn what_happened_before_is_told_with_its_times() {
    let past = |name| Past {
        name,
        began_ms: 1_000,
        ended_ms: 1_250,
        attributes: vec![("agent", "loading".into())],
        failure: None,
    };
    let spans = spans(|| {
        let span = tracing::info_span!("negotiation");
        trace::continue_from(&span, Some(GIVEN));
        trace::tell("test", &span, [past("observe")]);
        trace::tell_from("test", Some(GIVEN), [Past { failure: Some("DW0201".into()), ..past("compile") }]);
        trace::tell_from("test", Some(&GIVEN.replace("-01", "-00")), [past("unwanted")]);
        trace::tell_from("test", None, [past("nobody's")]);
    });
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["observe", "compile", "negotiation"]);
    assert!(spans.iter().all(|span| span.span_context.trace_id().to_string() == GIVEN[3..35]));
    assert_eq!(spans[0].parent_span_id, spans[2].span_context.span_id());
    assert_eq!(spans[1].parent_span_id.to_string(), GIVEN[36..52]);
    assert_eq!(spans[0].end_time.duration_since(spans[0].start_time).expect("forwards").as_millis(), 250);
}

#[test]
fn a_trace_that_nobody_wants_keeps_its_id() {
    let unwanted = GIVEN.replace("-01", "-00");
    let mut context = None;
    let spans = spans(|| {
        let span = tracing::info_span!("run");
        trace::continue_from(&span, Some(&unwanted));
        context = trace::of(&span);
    });
    let context = context.expect("a context");
    assert_eq!((&context[3..35], &context[52..]), (&GIVEN[3..35], "-00"));
    assert!(!trace::is_sampled(&context) && spans.is_empty());
}
