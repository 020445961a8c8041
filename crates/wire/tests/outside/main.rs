//! What comes in from the outside and goes out to it: CloudEvents, requests, OpenLineage, and the documents that promise them.

mod cloudevents;
mod documents;
mod hostile;
mod openlineage;
mod requests;
mod samples;
mod yaml;

use dagwright_wire::cloudevent::{Binding, Message};

/// Headers as a transport hands them over.
type Headers<'a> = Vec<(&'a str, &'a [u8])>;

/// Calls `read` with a message of these headers, whose values are texts.
fn with<T>(binding: Binding, headers: &[(&str, &str)], body: &[u8], read: impl FnOnce(Message<'_>) -> T) -> T {
    let headers: Headers<'_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    read(Message { binding, headers: &headers, body })
}
