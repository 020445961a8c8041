//! W3C trace contexts: taken from a request, handed to a process.
//!
//! A request has one trace. Its context stands in the ledger as `traceparent`, so its trace goes on wherever, and in
//! whichever process, the request goes on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    },
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The variable in which a process finds the context that it goes on with, as other tools have it too.
pub const VARIABLE: &str = "TRACEPARENT";

/// Something that lasted, told after the fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// What.
    pub name: &'static str,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it ended, likewise.
    pub ended_ms: u64,
    /// More about it.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Returns the context of a request that came with `given`: that one, when it is valid, else a new one, whose root span
/// is `made`'s.
pub fn adopt(given: Option<&str>, make: impl FnOnce() -> Span) -> Option<String> {
    match given.and_then(parse) {
        Some(context) => Some(print(&context)),
        None => of(&make()),
    }
}

/// Makes a span part of a request's trace: a child of the span that `traceparent` names.
///
/// Call it before the span is entered. Does nothing without a valid context.
pub fn continue_from(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // It fails where no traces are made, and then there is nothing to do.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Returns the context of a span, for whoever goes on elsewhere; `None` where no traces are made.
#[must_use]
pub fn of(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| print(&context))
}

/// Returns the id of the trace that a context belongs to.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<String> {
    parse(traceparent).map(|context| context.trace_id().to_string())
}

/// Tells whether whoever began the trace wants its spans.
#[must_use]
pub fn is_sampled(traceparent: &str) -> bool {
    parse(traceparent).is_some_and(|context| context.is_sampled())
}

/// Adds spans of what has happened already, as children of `parent`.
pub fn tell(scope: &'static str, parent: &Span, past: impl IntoIterator<Item = Past>) {
    tell_in(scope, &parent.context(), past);
}

/// Adds spans of what has happened already to a request's trace: children of the span that `traceparent` names.
pub fn tell_from(scope: &'static str, traceparent: Option<&str>, past: impl IntoIterator<Item = Past>) {
    if let Some(parent) = traceparent.and_then(parse) {
        tell_in(scope, &Context::new().with_remote_span_context(parent), past);
    }
}

fn tell_in(scope: &'static str, parent: &Context, past: impl IntoIterator<Item = Past>) {
    if !parent.span().span_context().is_sampled() {
        return;
    }
    let tracer = global::tracer(scope);
    for past in past {
        let attributes = past.attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
        let builder = SpanBuilder::from_name(past.name).with_start_time(at(past.began_ms)).with_attributes(attributes);
        let mut span = tracer.build_with_context(builder, parent);
        if let Some(failure) = past.failure {
            span.set_status(Status::error(failure));
        }
        // Somebody may have set the clock back meanwhile.
        span.end_with_timestamp(at(past.ended_ms.max(past.began_ms)));
    }
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// Reads `00-<trace>-<span>-<flags>`; later versions may have more after that (W3C Trace Context, 3.2).
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    if !is_hex(version, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    if !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

fn print(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags.to_u8())
}

#[cfg(test)]
mod tests {
    use super::{adopt, parse, print};

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn contexts_read_and_print() {
        for text in [GIVEN, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"] {
            assert_eq!(parse(text).map(|context| print(&context)).as_deref(), Some(text));
        }
        let later = parse(&GIVEN.replacen("00", "cc", 1)).map(|context| print(&context));
        assert_eq!(later.as_deref(), Some(GIVEN));
        let longer = format!("{}-what-comes", GIVEN.replacen("00", "cc", 1));
        assert!(parse(&longer).is_some());
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zeros = |from: &str| GIVEN.replace(from, &"0".repeat(from.len()));
        for bad in [
            String::new(),
            GIVEN.to_uppercase(),
            GIVEN.replacen("00", "ff", 1),
            format!("{GIVEN}-more"),
            GIVEN.replace('4', "g"),
            GIVEN[..54].to_owned(),
            zeros("4bf92f3577b34da6a3ce929d0e0e4736"),
            zeros("00f067aa0ba902b7"),
            "é".repeat(40),
        ] {
            assert!(parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_valid_context_is_kept_and_no_span_made() {
        assert_eq!(adopt(Some(GIVEN), || panic!("not needed")).as_deref(), Some(GIVEN));
        // Nothing makes traces here.
        assert_eq!(adopt(Some("nonsense"), tracing::Span::none), None);
    }
}
