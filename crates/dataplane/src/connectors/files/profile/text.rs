//! Profiles CSV and NDJSON.

use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use dagwright_model::{
    code::Code,
    facts::{Count, SourceProfile, TextCompression, TextProfile},
    spec::{Encoding, FileFormat, Ragged},
};
use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::{
    super::{
        chunk::{self, CHUNK_BYTES, Chunk, Chunker},
        column::Syntax,
        csv::{self, Dialect, Shape, Table},
        input,
        json::Json,
        listing::Listed,
        text::{header_names, position_name},
    },
    Observed, Question,
    column::ColumnState,
    dialect,
    nested::Seen,
    sample,
};
use crate::{error::Result, tally::SourceTally};

/// How much of a text its encoding and dialect are told by.
const HEAD_BYTES: u64 = 256 << 10;

/// How much decompressed text is looked at in all; archives may hold far more than their size says.
const TEXT_BYTES_MAX: u64 = 512 << 20;

/// The most columns of NDJSON; more keys than that are data.
const KEYS_MAX: usize = 2000;

/// The start of a text, as stored but decompressed.
struct Head {
    bytes: Vec<u8>,
    compression: TextCompression,
    cut: bool,
}

/// Tells the format of a file without a telling name.
pub(super) fn format(question: &Question, file: &Listed) -> Result<FileFormat> {
    let head = head(question, file)?;
    let encoding = encoding(question, file, &head)?;
    Ok(dialect::format(lossy(&head.bytes, encoding).as_bytes()))
}

/// Profiles text files.
pub(super) fn profile(question: &Question, format: FileFormat) -> Result<SourceProfile> {
    let Some(first) = question.files.iter().find(|file| file.size > 0) else {
        return Err(empty(question));
    };
    let head = head(question, first)?;
    let encoding = encoding(question, first, &head)?;
    let text = lossy(&head.bytes, encoding);
    let options = &question.source.csv;
    let byte = |text: &Option<String>| text.as_deref().and_then(|text| text.bytes().next());
    let mut facts = TextProfile {
        encoding,
        compression: head.compression,
        delimiter: None,
        quote: None,
        escape: None,
        header: false,
        ragged: 0,
    };
    let reader = if format == FileFormat::Csv {
        // The last record of a head that is cut would look ragged.
        let found =
            dialect::dialect(text.as_bytes(), byte(&options.delimiter), byte(&options.quote), byte(&options.escape));
        let records = dialect::records(text.as_bytes(), found, 200);
        facts.header = options.header.unwrap_or_else(|| dialect::has_header(&records, found));
        let as_char = |byte: u8| char::from(byte);
        facts.delimiter = Some(as_char(found.delimiter));
        facts.quote = found.quote.map(as_char);
        facts.escape = found.escape.map(as_char);
        let Some(record) = records.first() else { return Err(empty(question)) };
        let names = if facts.header {
            header_names(record, found)
        } else {
            (0..csv::fields(record, found).len()).map(position_name).collect()
        };
        Reader::Csv {
            dialect: found,
            header: facts.header,
            syntax: Syntax::csv(found, options.null_values.as_deref().unwrap_or_default()),
            names,
            fill: options.ragged == Some(Ragged::Fill),
        }
    } else {
        if text.trim_start().starts_with('[') {
            return Err(question.subject.malformed(
                format!("{} is a JSON array, not one object a line", first.name),
                "write newline-delimited JSON, for example with `jq -c '.[]'`",
            ));
        }
        Reader::Ndjson
    };
    let tally = Arc::new(SourceTally::default());
    let mut seen = Pass {
        observed: match &reader {
            Reader::Csv { names, .. } => Observed::new(names.clone(), question),
            Reader::Ndjson => Observed::default(),
        },
        question,
        reader,
        encoding,
        tally: tally.clone(),
        ragged: 0,
        text_bytes: 0,
        stored_bytes: 0,
        nested: Vec::new(),
        keys: HashMap::new(),
    };
    let complete = seen.run(head.compression)?;
    facts.ragged = seen.ragged;
    let rows = if complete {
        Count { value: seen.observed.rows, exact: true }
    } else {
        Count { value: estimate(seen.observed.rows, question.bytes(), seen.stored_bytes), exact: false }
    };
    let Pass { observed, nested, .. } = seen;
    if observed.names.is_empty() {
        return Err(empty(question));
    }
    let mut answer = question.answer(format, observed, rows, complete)?;
    // Nested values are text to the observer; their type is known from their structure.
    for (profile, seen) in answer.columns.iter_mut().zip(&nested) {
        let declared = question
            .column_spec(&profile.column.name)
            .is_some_and(|spec| spec.data_type.is_some() || spec.mask.is_some());
        if let Some(seen) = seen
            && !declared
        {
            profile.column.data_type = seen.data_type();
            (profile.min, profile.max) = (None, None);
            profile.misfits.clear();
        }
    }
    answer.text = Some(facts);
    Ok(answer)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn estimate(rows: u64, bytes: u64, bytes_read: u64) -> u64 {
    if bytes_read == 0 { 0 } else { (rows as f64 * (bytes as f64 / bytes_read as f64)).round() as u64 }
}

fn empty(question: &Question) -> crate::error::Error {
    question.subject.error(
        Code::SourceEmpty,
        format!("{} has no data to infer a schema from", question.location.written),
        "wait until it has data; or check the path",
    )
}

fn head(question: &Question, file: &Listed) -> Result<Head> {
    let stored =
        input::open(&question.location.store, file, Some(0..file.size.min(HEAD_BYTES)), None, &question.subject)?;
    let (plain, compression) = input::decompressed(stored, &file.name, &question.subject)?;
    let mut bytes = Vec::new();
    let read = plain.take(HEAD_BYTES).read_to_end(&mut bytes);
    let cut = file.size > HEAD_BYTES || bytes.len() as u64 >= HEAD_BYTES;
    match read {
        Ok(_) => {}
        // An archive that is cut on purpose ends early.
        Err(_) if file.size > HEAD_BYTES && !bytes.is_empty() => {}
        Err(error) => return Err(question.subject.io(&file.name, error)),
    }
    Ok(Head { bytes, compression, cut })
}

fn encoding(question: &Question, file: &Listed, head: &Head) -> Result<Encoding> {
    if let Some(encoding) = question.source.csv.encoding {
        return Ok(encoding);
    }
    dialect::encoding(&head.bytes, head.cut).ok_or_else(|| {
        question.subject.malformed(
            format!("{} is not text", file.name),
            "check that it is the right file; if it is text, give its `csv.encoding`",
        )
    })
}

fn lossy(bytes: &[u8], encoding: Encoding) -> String {
    let encoding = match encoding {
        Encoding::Utf8 => UTF_8,
        Encoding::Utf16Le => UTF_16LE,
        Encoding::Utf16Be => UTF_16BE,
        Encoding::Latin1 => WINDOWS_1252,
    };
    encoding.decode_with_bom_removal(bytes).0.into_owned()
}

enum Reader {
    Csv { dialect: Dialect, header: bool, syntax: Syntax, names: Vec<String>, fill: bool },
    Ndjson,
}

/// One pass over a source or a sample of it.
struct Pass<'a> {
    question: &'a Question,
    reader: Reader,
    encoding: Encoding,
    observed: Observed,
    tally: Arc<SourceTally>,
    ragged: u64,
    text_bytes: u64,
    /// How much was read, as stored.
    stored_bytes: u64,
    /// NDJSON: for each column, its type if there are nested values.
    nested: Vec<Option<Seen>>,
    /// NDJSON: the columns by name.
    keys: HashMap<String, usize>,
}

impl Pass<'_> {
    /// Reads; tells whether everything was read.
    fn run(&mut self, compression: TextCompression) -> Result<bool> {
        let question = self.question;
        if question.whole {
            for file in &question.files {
                if !self.file(file, u64::MAX)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let seekable =
            compression == TextCompression::None && matches!(self.encoding, Encoding::Utf8 | Encoding::Latin1);
        if !seekable {
            for index in sample::heads(&question.files) {
                self.file(&question.files[index], sample::PIECE_BYTES)?;
            }
            return Ok(false);
        }
        for (index, range) in sample::pieces(&question.files) {
            let file = &question.files[index];
            let start = range.start;
            self.stored_bytes += range.end - range.start;
            let stored = input::open(&question.location.store, file, Some(range), None, &question.subject)?;
            let mut text = input::decoded(stored, self.encoding, &file.name, &question.subject)?;
            let mut bytes = Vec::new();
            text.read_to_end(&mut bytes).map_err(|error| question.subject.io(&file.name, error))?;
            self.piece(bytes, start == 0, &file.name)?;
        }
        if self.observed.rows == 0
            && let Some(first) = question.files.iter().find(|file| file.size > 0)
        {
            // Records longer than a piece: the first of them is read whole, or is longer than any may be.
            self.file(first, sample::PIECE_BYTES)?;
        }
        Ok(false)
    }

    /// Reads a file, or `most` bytes of its text; tells whether all of it was read.
    fn file(&mut self, file: &Listed, most: u64) -> Result<bool> {
        let (store, subject) = (&self.question.location.store, &self.question.subject);
        let before = self.tally.bytes.load(Relaxed);
        let text = input::open_text(store, file, self.encoding, Some(self.tally.clone()), subject)?;
        let dialect = self.dialect();
        let mut chunker = Chunker::new(text, dialect, CHUNK_BYTES, &file.name, subject);
        let mut read = 0;
        let mut shape = None;
        while let Some(mut chunk) = chunker.next()? {
            read += chunk.bytes.len() as u64;
            self.text_bytes += chunk.bytes.len() as u64;
            if shape.is_none() {
                shape = Some(self.shape(&mut chunk, &file.name)?);
            }
            self.chunk(&chunk, shape.as_deref(), &file.name)?;
            if read >= most || self.text_bytes >= TEXT_BYTES_MAX {
                self.stored_bytes += self.tally.bytes.load(Relaxed) - before;
                return Ok(false);
            }
        }
        self.stored_bytes += self.tally.bytes.load(Relaxed) - before;
        Ok(true)
    }

    fn dialect(&self) -> Option<Dialect> {
        match &self.reader {
            Reader::Csv { dialect, .. } => Some(*dialect),
            Reader::Ndjson => None,
        }
    }

    /// Reads a piece from the middle of a file: from the first record that looks whole.
    fn piece(&mut self, mut bytes: Vec<u8>, is_start: bool, name: &str) -> Result<()> {
        if !is_start {
            let line_end = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1);
            bytes.drain(..line_end);
            if let Reader::Csv { dialect, names, .. } = &self.reader {
                // Within a quoted field lines do not have the right number of fields.
                let mut skipped = 0;
                while skipped < bytes.len() {
                    let end = skipped + csv::record_end(&bytes[skipped..], *dialect);
                    let record = &bytes[skipped..end];
                    let record = record.strip_suffix(b"\n").unwrap_or(record);
                    if csv::fields(record, *dialect).len() == names.len() {
                        break;
                    }
                    let line = memchr::memchr(b'\n', &bytes[skipped..]).map_or(bytes.len(), |at| skipped + at + 1);
                    skipped = line;
                }
                bytes.drain(..skipped);
            }
        }
        let end = match self.dialect() {
            Some(dialect) => chunk::last_record_end(&bytes, dialect),
            None => memchr::memrchr(b'\n', &bytes).map(|at| at + 1),
        };
        bytes.truncate(end.unwrap_or(0));
        let mut chunk = Chunk { bytes, line: 1 };
        let header = is_start && !chunk.bytes.is_empty();
        let shape = if header { self.shape(&mut chunk, name)? } else { (0..self.observed.names.len()).collect() };
        self.chunk(&chunk, Some(&shape), name)
    }

    /// Removes a header, and returns the field of each column.
    fn shape(&self, chunk: &mut Chunk, name: &str) -> Result<Vec<usize>> {
        let Reader::Csv { dialect, header, names, .. } = &self.reader else { return Ok(Vec::new()) };
        if !header {
            return Ok((0..names.len()).collect());
        }
        let end = csv::record_end(&chunk.bytes, *dialect);
        let fields = header_names(&chunk.bytes[..end], *dialect);
        chunk.line += chunk::lines(&chunk.bytes[..end]);
        chunk.bytes.drain(..end);
        let find = |column: &String| {
            fields.iter().position(|field| field == column).ok_or_else(|| {
                self.question.subject.error(
                    Code::SourceDrifted,
                    format!("{name} has no column {column:?}, which other files of the source have"),
                    "use a pattern that matches files of one kind",
                )
            })
        };
        let mut found = names.iter().map(find).collect::<Result<Vec<_>>>()?;
        // One more than there are columns tells how many fields a record has.
        found.push(fields.len());
        Ok(found)
    }

    fn chunk(&mut self, chunk: &Chunk, shape: Option<&[usize]>, name: &str) -> Result<()> {
        let bytes = &chunk.bytes;
        let not_text = || {
            self.question.subject.malformed(
                format!("{name} holds bytes that are no text in the expected encoding"),
                "check that it is the right file, and give its `csv.encoding`",
            )
        };
        if std::str::from_utf8(bytes).is_err() || memchr::memchr(0, bytes).is_some() {
            return Err(not_text());
        }
        match &self.reader {
            Reader::Csv { dialect, syntax, names, fill, .. } => {
                let (fields, count) = match shape {
                    Some(shape) if shape.len() > names.len() => (&shape[..names.len()], shape[names.len()]),
                    Some(shape) => (shape, names.len()),
                    None => (&[][..], names.len()),
                };
                let mut table = Table::default();
                table.read(bytes, *dialect, &Shape { wanted: vec![true; count], fill: *fill });
                self.ragged += table.malformed.len() as u64;
                self.observed.rows += table.malformed.len() as u64;
                for row in table.spans.chunks_exact(count.max(1)) {
                    // Escapes are rare; a scratch for each column would cost more than it saves.
                    let texts: Vec<Option<std::borrow::Cow<'_, [u8]>>> = fields
                        .iter()
                        .map(|field| {
                            let span = row[*field];
                            if syntax.is_null(span, bytes) {
                                return None;
                            }
                            if span.form() == csv::Form::Escaped {
                                let mut clean = Vec::new();
                                syntax.text(span, bytes, &mut clean)?;
                                return Some(clean.into());
                            }
                            Some(span.of(bytes).into())
                        })
                        .collect();
                    self.observed.row(self.question.whole, |column| texts[column].as_deref().map(|text| (text, false)));
                }
            }
            Reader::Ndjson => {
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                    match Json::parse(line) {
                        Some(Json::Object(members)) => self.object(&members)?,
                        _ => {
                            self.ragged += 1;
                            self.observed.rows += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn object(&mut self, members: &[(std::borrow::Cow<'_, str>, Json<'_>)]) -> Result<()> {
        let mut texts: Vec<Option<(Vec<u8>, bool)>> = vec![None; self.observed.names.len()];
        for (name, value) in members {
            let index = match self.keys.get(name.as_ref()) {
                Some(index) => *index,
                None => {
                    let index = self.observed.names.len();
                    if index >= KEYS_MAX {
                        let message = format!("the objects have more than {KEYS_MAX} different keys");
                        return Err(self.question.subject.malformed(message, "write keys that are data as values"));
                    }
                    self.keys.insert(name.to_string(), index);
                    self.observed.names.push(name.to_string());
                    let mut state = ColumnState::new(self.question.column_spec(name));
                    (0..self.observed.rows - self.ragged).for_each(|_| state.null());
                    self.observed.columns.push(state);
                    self.nested.push(None);
                    texts.push(None);
                    self.observed.set_keys(self.question);
                    index
                }
            };
            texts[index] = match value {
                Json::Null => None,
                Json::String(text) => Some((text.as_bytes().to_vec(), true)),
                value => {
                    let mut text = Vec::new();
                    super::super::json::write(value, &mut text);
                    Some((text, false))
                }
            };
            let is_nested = matches!(value, Json::Array(_) | Json::Object(_));
            if is_nested || self.nested[index].is_some() {
                let known = self.nested[index].take().unwrap_or_else(|| {
                    // Scalars that came before make it a mixture.
                    if self.observed.columns[index].has_values() { Seen::Mixed } else { Seen::Nothing }
                });
                self.nested[index] = Some(known.and(Seen::of(value, 0)));
            }
        }
        self.observed
            .row(self.question.whole, |column| texts[column].as_ref().map(|(text, string)| (text.as_slice(), *string)));
        Ok(())
    }
}
