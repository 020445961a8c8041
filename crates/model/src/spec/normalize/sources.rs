//! Checks sources and puts them in normal form.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::Value;

use super::{
    columns, one_or_several, params, site_of, sql, steps,
    uri::{self, Role},
};
use crate::{
    code::Code,
    id::Name,
    schema::DataType,
    spec::{
        ColumnSpec, CsvOptions, FileFormat, Incremental, Lag, Locator, Mask, OnMissing, Param, ParamType, QueryBind,
        SINGLE_SOURCE, Source,
        document::{self, LagText},
        report::{Report, Site, quoted},
    },
};

/// Checks all sources.
pub(super) fn normalize(
    single: Option<document::Source>,
    several: Option<IndexMap<Name, document::Source>>,
    params: &BTreeMap<Name, Param>,
    root: &Site<'_>,
    report: &mut Report,
) -> IndexMap<Name, Source> {
    let sources = one_or_several((single, SINGLE_SOURCE), (several, "sources"), root, report);
    let normal = sources.into_iter().map(|(name, source)| {
        let site = site_of(root, "sources", SINGLE_SOURCE, &name);
        let source = self::source(source, params, &site, report);
        (name, source)
    });
    normal.collect()
}

fn source(source: document::Source, params: &BTreeMap<Name, Param>, site: &Site<'_>, report: &mut Report) -> Source {
    let locator = locator(&source, params, site, report);
    let is_files = matches!(locator, Locator::Uri(_));
    if !is_files && source.format.is_some() {
        report.push(Code::SpecConflict, &site.key("format"), "`format` is for files", "remove it");
    }
    let csv = csv(source.csv, is_files, source.format, &site.key("csv"), report);
    let columns = self::columns(source.columns, &site.key("columns"), report);
    let incremental = source.incremental.map(|given| incremental(given, &columns, &site.key("incremental"), report));
    let typed = !columns.is_empty() && columns.values().all(|column| column.data_type.is_some());
    if source.on_missing == OnMissing::Skip && !typed {
        let message = "`skip` needs the type of every column";
        let hint = "list them under `columns`: without data there is nothing to infer them from";
        report.push(Code::SpecConflict, &site.key("on_missing"), message, hint);
    }
    Source { locator, format: source.format, csv, incremental, columns, on_missing: source.on_missing }
}

fn locator(source: &document::Source, params: &BTreeMap<Name, Param>, site: &Site<'_>, report: &mut Report) -> Locator {
    let hint = "a source has either `uri`, or `connection` with `table`, or `connection` with `query`";
    match (&source.uri, &source.connection, &source.table, &source.query) {
        (Some(uri), None, None, None) => {
            uri::check(uri, Role::Source, &site.key("uri"), report);
            return Locator::Uri(uri.clone());
        }
        (None, Some(connection), Some(table), None) => return self::table(connection, table, site, report),
        (None, Some(connection), None, Some(query)) => {
            let binds = query_binds(query, params, &site.key("query"), report);
            return Locator::Query { connection: connection.clone(), query: query.clone(), binds };
        }
        (None, Some(_), None, None) => {
            report.push(Code::SpecMissingKey, site, "the connection has neither `table` nor `query`", hint);
        }
        (None, None, None, None) => report.push(Code::SpecMissingKey, site, "nothing says where the source is", hint),
        (None, None, _, _) => {
            report.push(Code::SpecMissingKey, &site.key("connection"), "`connection` is missing", hint)
        }
        (None, Some(_), Some(_), Some(_)) => {
            report.push(Code::SpecConflict, site, "both `table` and `query` are there", hint);
        }
        (Some(_), _, _, _) => {
            report.push(Code::SpecConflict, site, "`uri` stands beside `connection`, `table` or `query`", hint);
        }
    }
    Locator::Uri(String::new())
}

/// Checks a table's name.
pub(super) fn table(connection: &Name, table: &str, site: &Site<'_>, report: &mut Report) -> Locator {
    match table.to_owned().try_into() {
        Ok(table) => Locator::Table { connection: connection.clone(), table },
        Err(_) => {
            let message = format!("{} is not a table name", quoted(table));
            let hint = "write `table` or `schema.table`, each part at most 63 bytes, without quotes";
            report.push(Code::SpecBadName, &site.key("table"), message, hint);
            Locator::Uri(String::new())
        }
    }
}

/// Checks a query and returns the binds it uses.
fn query_binds(
    query: &str,
    params: &BTreeMap<Name, Param>,
    site: &Site<'_>,
    report: &mut Report,
) -> BTreeMap<String, QueryBind> {
    let seen = sql::glance(query);
    steps::check_statement(&seen, site, report);
    params::check_binds(&seen.binds, params, site, report);
    let bind = |name: String| {
        let bind = match params.iter().find(|(known, _)| known.as_str() == name) {
            Some((_, param)) => {
                let sample = param.default.as_ref().or_else(|| param.allowed.as_ref()?.first());
                QueryBind { param_type: param.param_type, sample: sample.map(params::text) }
            }
            None => QueryBind { param_type: ParamType::Timestamp, sample: Some(params::widest_interval(&name).into()) },
        };
        (name, bind)
    };
    seen.binds.into_iter().map(bind).collect()
}

fn csv(
    options: Option<CsvOptions>,
    is_files: bool,
    format: Option<FileFormat>,
    site: &Site<'_>,
    report: &mut Report,
) -> CsvOptions {
    let Some(options) = options else { return CsvOptions::default() };
    if !is_files || format.is_some_and(|format| format != FileFormat::Csv) {
        report.push(Code::SpecConflict, site, "`csv` is for files of format csv", "remove it, or mend `format`");
    }
    let marks = [("delimiter", &options.delimiter), ("quote", &options.quote), ("escape", &options.escape)];
    for (key, mark) in &marks {
        if mark.as_deref().is_some_and(|mark| !is_mark(mark)) {
            let message = "not one printable ASCII character, or tab";
            report.push(
                Code::SpecWrongType,
                &site.key(key),
                message,
                "write it like \",\" or \"\\t\", with the quotes",
            );
        }
    }
    let [(_, delimiter), (key, quote), _] = marks;
    if delimiter.is_some() && delimiter == quote {
        report.push(Code::SpecConflict, &site.key(key), "the quote is the delimiter", "they must differ");
    }
    options
}

/// Tells whether a text can serve as a delimiter or quote.
pub(super) fn is_mark(text: &str) -> bool {
    let mut bytes = text.bytes();
    matches!((bytes.next(), bytes.next()), (Some(b'\t' | b' '..=b'~'), None))
}

fn columns(
    columns: BTreeMap<String, document::Classified>,
    site: &Site<'_>,
    report: &mut Report,
) -> BTreeMap<String, ColumnSpec> {
    for (name, column) in &columns {
        // Sites are looked up only for faults: a map may have very many columns.
        columns::name(name, || site.key(name), report);
        let textual = column.data_type.as_ref().is_none_or(|data_type| matches!(data_type, DataType::String { .. }));
        if matches!(column.mask, Some(Mask::Hmac | Mask::Redact)) && !textual {
            let message = "this mask makes text, and the column has another type";
            report.push(
                Code::SpecConflict,
                &site.key(name).key("mask"),
                message,
                "declare it as string, or use the mask \"null\"",
            );
        }
    }
    let spec = |column: document::Classified| ColumnSpec {
        data_type: column.data_type,
        classification: column.classification,
        mask: column.mask,
    };
    columns.into_iter().map(|(name, column)| (name, spec(column))).collect()
}

fn incremental(
    given: document::Incremental,
    columns: &BTreeMap<String, ColumnSpec>,
    site: &Site<'_>,
    report: &mut Report,
) -> Incremental {
    let cursor = site.key("cursor");
    columns::name(&given.cursor, || cursor.clone(), report);
    let declared = columns.get(&given.cursor);
    if declared.is_some_and(|column| column.mask.is_some() || column.classification.is_some()) {
        let message = "the cursor is a classified or masked column";
        let hint = "its values are kept from run to run; choose a column that is not secret";
        report.push(Code::SpecConflict, &cursor, message, hint);
    }
    let data_type = declared.and_then(|column| column.data_type.as_ref());
    if let Some(other) = data_type.filter(|data_type| !data_type.is_ordered()) {
        let message = format!("a column of type {other} cannot be a cursor");
        report.push(Code::SpecConflict, &cursor, message, "choose a number, date, timestamp or text that only grows");
    }
    let lag = given.lag.map(|lag| match lag {
        LagText::Time(span) => Lag::Time(span),
        LagText::Number(number) => Lag::Number(number),
    });
    if let (Some(lag), Some(data_type)) = (lag, data_type) {
        let temporal = matches!(data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz);
        let fits = match lag {
            Lag::Time(_) => temporal,
            Lag::Number(_) => data_type.is_number(),
        };
        if !fits && data_type.is_ordered() {
            let message = format!("this lag does not fit a cursor of type {data_type}");
            let hint = "a time span for dates and timestamps, a whole number for numbers, none for text";
            report.push(Code::SpecConflict, &site.key("lag"), message, hint);
        }
    }
    let initial_value = initial_value(given.initial_value, data_type, &site.key("initial_value"), report);
    Incremental { cursor: given.cursor, initial_value, lag }
}

fn initial_value(
    value: Option<Value>,
    data_type: Option<&DataType>,
    site: &Site<'_>,
    report: &mut Report,
) -> Option<String> {
    let text = match value? {
        Value::Null => return None,
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            let hint = "write a value of the cursor's type, such as 2013-01-01 or 0";
            report.push(Code::SpecWrongType, site, "expected text or a number", hint);
            return None;
        }
    };
    let fits = match data_type {
        Some(DataType::Date) => params::is_date(&text),
        Some(data_type) if data_type.is_integer() => text.parse::<i64>().is_ok(),
        Some(DataType::Timestamp | DataType::TimestampTz) => text.get(..10).is_some_and(params::is_date),
        _ => !text.is_empty(),
    };
    if !fits {
        let message = "the value is empty or does not fit the cursor's type";
        report.push(Code::SpecWrongType, site, message, "write it like 2013-01-01, 2013-01-01T10:00:00Z or 0");
    }
    Some(text)
}
