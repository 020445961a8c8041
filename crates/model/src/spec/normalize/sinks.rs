//! Checks sinks and puts them in normal form.

use indexmap::IndexMap;

use super::{
    Relations, columns, one_or_several, site_of, sources,
    uri::{self, Role},
};
use crate::{
    code::Code,
    id::Name,
    spec::{
        Compression, FileFormat, Locator, SINGLE_SINK, Sink, SinkMode, WriteOptions, document,
        report::{Report, Site, quoted},
    },
};

/// Checks all sinks.
pub(super) fn normalize(
    single: Option<document::Sink>,
    several: Option<IndexMap<Name, document::Sink>>,
    relations: &Relations,
    root: &Site<'_>,
    report: &mut Report,
) -> IndexMap<Name, Sink> {
    let sinks = one_or_several((single, SINGLE_SINK), (several, "sinks"), root, report);
    let normal = sinks.into_iter().filter_map(|(name, sink)| {
        let site = site_of(root, "sinks", SINGLE_SINK, &name);
        let sink = self::sink(sink, relations, &site, report)?;
        Some((name, sink))
    });
    normal.collect()
}

fn sink(sink: document::Sink, relations: &Relations, site: &Site<'_>, report: &mut Report) -> Option<Sink> {
    let from = from(sink.from.as_ref(), relations, site, report);
    let locator = locator(&sink, site, report);
    check_mode(&sink, &locator, site, report);
    if let Some(from) = &from {
        check_incremental(&sink, from, relations, site, report);
    }
    let dedupe = sink.dedupe.as_ref().map(|dedupe| {
        let site = site.key("dedupe").key("order_by");
        columns::order(&dedupe.order_by, &site, report)
    });
    let (format, write) = files(&sink, &locator, site, report);
    let is_table = matches!(locator, Locator::Table { .. });
    let appends_rows = is_table && sink.mode == SinkMode::Append;
    if sink.meta_columns.is_some() && !appends_rows {
        let message = "`meta_columns` is for appends to a table";
        report.push(Code::SpecConflict, &site.key("meta_columns"), message, "remove it");
    }
    let from = from?;
    let min_rows = sink.min_rows.unwrap_or_else(|| min_rows(&from, relations));
    Some(Sink {
        locator,
        from,
        format,
        mode: sink.mode,
        key: sink.key,
        dedupe: dedupe.unwrap_or_default(),
        min_rows,
        meta_columns: appends_rows && sink.meta_columns.unwrap_or(true),
        write,
    })
}

/// Returns what the sink writes: as given, or the last step, or the only source.
fn from(given: Option<&Name>, relations: &Relations, site: &Site<'_>, report: &mut Report) -> Option<Name> {
    if let Some(given) = given {
        relations.require(given, &site.key("from"), report);
        return Some(given.clone());
    }
    if let Some(step) = relations.steps.last() {
        return Some(step.name.clone());
    }
    match relations.sources.keys().collect::<Vec<_>>()[..] {
        [only] => Some(only.clone()),
        // That there is no source at all was reported already.
        [] => None,
        _ => {
            let message = "`from` is missing: there are several sources and no step";
            report.push(Code::SpecMissingKey, &site.key("from"), message, "name the source to write");
            None
        }
    }
}

fn locator(sink: &document::Sink, site: &Site<'_>, report: &mut Report) -> Locator {
    let hint = "a sink has either `uri`, or `connection` with `table`";
    match (&sink.uri, &sink.connection, &sink.table) {
        (Some(uri), None, None) => {
            uri::check(uri, Role::Sink, &site.key("uri"), report);
            return Locator::Uri(uri.clone());
        }
        (None, Some(connection), Some(table)) => return sources::table(connection, table, site, report),
        (None, None, None) => report.push(Code::SpecMissingKey, site, "nothing says where the sink is", hint),
        (None, Some(_), None) => report.push(Code::SpecMissingKey, &site.key("table"), "`table` is missing", hint),
        (None, None, Some(_)) => {
            report.push(Code::SpecMissingKey, &site.key("connection"), "`connection` is missing", hint);
        }
        (Some(_), _, _) => report.push(Code::SpecConflict, site, "`uri` stands beside `connection` or `table`", hint),
    }
    Locator::Uri(String::new())
}

fn check_mode(sink: &document::Sink, locator: &Locator, site: &Site<'_>, report: &mut Report) {
    let mode = site.key("mode");
    match (sink.mode, locator) {
        (SinkMode::OverwritePartitions | SinkMode::Scd2, _) => {
            let hint = "use `append`, `replace` or `upsert`";
            report.push(Code::SpecNotYet, &mode, "this mode is not yet supported", hint);
        }
        (SinkMode::Append, Locator::Uri(uri)) if !uri.is_empty() && !uri.ends_with('/') => {
            let message = "append needs a folder, and this is one file";
            let hint = "end the URI in `/`, for a folder to which each run adds parts; or use `replace`";
            report.push(Code::SpecConflict, &mode, message, hint);
        }
        (SinkMode::Upsert, Locator::Uri(_)) => {
            let hint = "upsert into a table; or use `replace`, or `append` and keep the latest row when reading";
            report.push(Code::SpecConflict, &mode, "files have no keys to upsert by", hint);
        }
        (SinkMode::Append | SinkMode::Replace | SinkMode::Upsert, _) => {}
    }
    let later = matches!(sink.mode, SinkMode::OverwritePartitions | SinkMode::Scd2);
    let key = site.key("key");
    if sink.mode == SinkMode::Upsert {
        if sink.key.is_empty() {
            let hint = "name the columns that identify a row";
            report.push(Code::SpecMissingKey, &key, "`upsert` needs a `key`", hint);
        } else {
            columns::check(&sink.key, &key, report);
        }
    } else if !sink.key.is_empty() && !later {
        let hint = "remove it, or use `upsert`; to demand that rows do not repeat, add a quality gate with `unique`";
        report.push(Code::SpecConflict, &key, "`key` counts only with `mode: upsert`", hint);
    }
    if sink.dedupe.is_some() && sink.mode != SinkMode::Upsert && !later {
        let message = "`dedupe` needs a `key`, and so `mode: upsert`";
        let hint = "remove it; or choose the row to keep in a step, with ROW_NUMBER()";
        report.push(Code::SpecConflict, &site.key("dedupe"), message, hint);
    }
}

/// Checks that what is new since the last run is written in a mode that means something.
/// Returns how many rows a run must bring when the spec does not say: an empty result is a surprise, except from a source
/// that hands on only what is new.
fn min_rows(from: &Name, relations: &Relations) -> u64 {
    let is_incremental = |name: &Name| relations.sources.get(name).is_some_and(|source| source.incremental.is_some());
    if relations.origins(from).into_iter().any(is_incremental) { 0 } else { 1 }
}

fn check_incremental(sink: &document::Sink, from: &Name, relations: &Relations, site: &Site<'_>, report: &mut Report) {
    for name in relations.origins(from) {
        let Some(incremental) = relations.sources.get(name).and_then(|source| source.incremental.as_ref()) else {
            continue;
        };
        match sink.mode {
            SinkMode::Replace => {
                let message = format!(
                    "`replace` would drop all older rows: the source {} hands on only what is new since the last run",
                    quoted(name.as_str())
                );
                let hint = "use `append` or `upsert`; or remove the source's `incremental`";
                report.push(Code::SpecConflict, &site.key("mode"), message, hint);
            }
            SinkMode::Append if incremental.lag.is_some() => {
                let message = format!(
                    "`append` would write rows twice: each run reads the `lag` of the source {} again",
                    quoted(name.as_str())
                );
                let hint = "use `upsert` with a key; or remove the lag, and lose rows that come late";
                report.push(Code::SpecConflict, &site.key("mode"), message, hint);
            }
            SinkMode::Append | SinkMode::Upsert | SinkMode::OverwritePartitions | SinkMode::Scd2 => {}
        }
    }
}

/// Checks format and options of a file sink, and fills them in.
fn files(
    sink: &document::Sink,
    locator: &Locator,
    site: &Site<'_>,
    report: &mut Report,
) -> (Option<FileFormat>, WriteOptions) {
    let Locator::Uri(uri) = locator else {
        if sink.format.is_some() {
            report.push(Code::SpecConflict, &site.key("format"), "`format` is for files", "remove it");
        }
        if sink.write != WriteOptions::default() {
            report.push(Code::SpecConflict, &site.key("write"), "`write` is for files", "remove it");
        }
        return (None, WriteOptions::default());
    };
    let (ending, compressed) = ending(uri);
    let format = match (sink.format, ending) {
        (Some(given), Some(ending)) if given != ending => {
            let message = "the format is not that of the file's ending";
            report.push(Code::SpecConflict, &site.key("format"), message, "rename the file, or mend the format");
            given
        }
        (Some(format), _) | (None, Some(format)) => format,
        (None, None) => {
            if !uri.is_empty() {
                let message = "`format` is missing, and the URI's ending does not tell it";
                let hint = "csv, ndjson or parquet; known endings are .csv, .tsv, .ndjson, .jsonl and .parquet";
                report.push(Code::SpecMissingKey, &site.key("format"), message, hint);
            }
            return (None, sink.write.clone());
        }
    };
    let write = write(sink, format, compressed, uri, &site.key("write"), report);
    (Some(format), write)
}

fn write(
    sink: &document::Sink,
    format: FileFormat,
    compressed: Option<Compression>,
    uri: &str,
    site: &Site<'_>,
    report: &mut Report,
) -> WriteOptions {
    let text = format != FileFormat::Parquet;
    let compression = site.key("compression");
    let by_default = if text { Compression::None } else { Compression::Zstd };
    let chosen = sink.write.compression.or(compressed).unwrap_or(by_default);
    match (chosen, text) {
        (Compression::Gzip, false) => {
            let message = "Parquet is not written with gzip";
            report.push(Code::SpecConflict, &compression, message, "use zstd, snappy or none");
        }
        (Compression::Snappy, true) => {
            let message = "text files are not written with Snappy";
            report.push(Code::SpecConflict, &compression, message, "use gzip, zstd or none");
        }
        _ if !text && compressed.is_some() => {
            let message = "a Parquet file is compressed inside; its ending is .parquet";
            report.push(Code::SpecConflict, &compression, message, "remove .gz or .zst from the URI");
        }
        _ if compressed.is_some_and(|ending| ending != chosen) => {
            let message = "the compression is not that of the file's ending";
            report.push(Code::SpecConflict, &compression, message, "rename the file, or mend the compression");
        }
        _ => {}
    }
    for (key, given) in [("delimiter", sink.write.delimiter.is_some()), ("header", sink.write.header.is_some())] {
        if given && format != FileFormat::Csv {
            report.push(Code::SpecConflict, &site.key(key), format!("`{key}` is for CSV"), "remove it");
        }
    }
    let delimiter = site.key("delimiter");
    if sink.write.delimiter.as_deref().is_some_and(|mark| !sources::is_mark(mark) || mark == "\"") {
        let message = "not one printable ASCII character other than the quote, or tab";
        report.push(Code::SpecWrongType, &delimiter, message, "write it like \",\" or \"\\t\", with the quotes");
    }
    let is_csv = format == FileFormat::Csv;
    let default_delimiter = if uri.to_ascii_lowercase().contains(".tsv") { "\t" } else { "," };
    WriteOptions {
        compression: Some(chosen),
        delimiter: is_csv.then(|| sink.write.delimiter.clone().unwrap_or_else(|| default_delimiter.into())),
        header: is_csv.then(|| sink.write.header.unwrap_or(true)),
    }
}

/// Reads format and compression off a file's ending.
fn ending(uri: &str) -> (Option<FileFormat>, Option<Compression>) {
    let name = uri.rsplit('/').next().unwrap_or(uri).to_ascii_lowercase();
    let (name, compression) = match name.rsplit_once('.') {
        Some((name, "gz" | "gzip")) => (name, Some(Compression::Gzip)),
        Some((name, "zst" | "zstd")) => (name, Some(Compression::Zstd)),
        _ => (name.as_str(), None),
    };
    let format = match name.rsplit_once('.') {
        Some((_, "csv" | "tsv")) => Some(FileFormat::Csv),
        Some((_, "ndjson" | "jsonl")) => Some(FileFormat::Ndjson),
        Some((_, "parquet")) => Some(FileFormat::Parquet),
        _ => None,
    };
    (format, compression)
}
