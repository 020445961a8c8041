//! What was found: the sources and sinks, a line each.

use dagwright_model::{
    facts::{Count, SinkInspection, SourceProfile, TextCompression},
    message::Facts,
    spec::{Encoding, FileFormat},
};

use super::{indented, number, table};

/// Renders every source and sink.
pub(crate) fn facts(facts: &Facts) -> String {
    let mut rows = table();
    for source in facts.sources.values() {
        rows.add_row([source.source.to_string(), found(source), shape(source), kind(source)]);
    }
    for sink in facts.sinks.values() {
        rows.add_row([sink.sink.to_string(), standing(sink), String::new(), sink.identity.scheme.clone()]);
    }
    indented(&rows)
}

/// Renders a source in one line.
pub(crate) fn source(source: &SourceProfile) -> String {
    if source.exists { format!("{}, {}, {}", found(source), shape(source), kind(source)) } else { found(source) }
}

/// Renders a sink in one line.
pub(crate) fn sink(sink: &SinkInspection) -> String {
    format!("{} ({})", standing(sink), sink.identity.scheme)
}

fn found(source: &SourceProfile) -> String {
    if !source.exists {
        return "nothing there".into();
    }
    let files = if source.files > 1 { format!(" in {}", number::counted(source.files, "file")) } else { String::new() };
    format!(
        "{}, {}{files}",
        about(source.rows, |rows| number::counted(rows, "row")),
        about(source.bytes, number::bytes)
    )
}

fn about(count: Count, render: impl Fn(u64) -> String) -> String {
    if count.exact { render(count.value) } else { format!("about {}", render(count.value)) }
}

fn shape(source: &SourceProfile) -> String {
    number::counted(source.columns.len() as u64, "column")
}

fn kind(source: &SourceProfile) -> String {
    let format = match source.format {
        Some(FileFormat::Csv) => "CSV",
        Some(FileFormat::Ndjson) => "NDJSON",
        Some(FileFormat::Parquet) => "Parquet",
        None => return source.identity.scheme.clone(),
    };
    let Some(text) = &source.text else { return format.into() };
    let mut parts = vec![
        match text.encoding {
            Encoding::Utf8 => "UTF-8",
            Encoding::Utf16Le | Encoding::Utf16Be => "UTF-16",
            Encoding::Latin1 => "Latin-1",
        }
        .to_owned(),
    ];
    match text.compression {
        TextCompression::None => {}
        TextCompression::Gzip => parts.push("gzip".into()),
        TextCompression::Zstd => parts.push("zstd".into()),
    }
    if let Some(delimiter) = text.delimiter.filter(|delimiter| *delimiter != ',') {
        parts.push(format!("delimiter {}", delimiter.escape_default()));
    }
    format!("{format}, {}", parts.join(", "))
}

fn standing(sink: &SinkInspection) -> String {
    match (sink.exists, sink.rows) {
        (false, _) => "not there yet".into(),
        (true, Some(rows)) => format!("exists, {}", number::counted(rows, "row")),
        (true, None) => "exists".into(),
    }
}
