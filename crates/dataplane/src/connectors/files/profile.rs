//! Profiles a source of files: what negotiation may know of it.
//!
//! Small sources are read whole, and every number is exact; of large ones the head and evenly spread pieces are read,
//! and numbers say that they are estimates. Equal files give equal profiles, wherever and whenever they are read: no
//! modification time is in one. Values of classified and masked columns are hashed and compared, and never shown.

mod column;
mod dialect;
mod nested;
mod parquet;
mod sample;
mod sketch;
mod text;

use std::io::Read;

use dagwright_model::{
    canonical,
    facts::{Count, KeyCheck, SourceProfile, SplitProfile, WatermarkProfile},
    id::Name,
    schema::DataType,
    spec::{self, FileFormat},
};

use self::{column::ColumnState, sketch::Repeats};
use super::{
    fault::Subject,
    input, listing,
    listing::Listed,
    location::{Location, Store},
};
use crate::error::Result;

/// Up to this size a source is read whole.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// What is asked about a source.
#[derive(Clone)]
struct Question {
    name: Name,
    source: spec::Source,
    keys: Vec<Vec<String>>,
    location: Location,
    files: Vec<Listed>,
    /// Whether everything is read.
    whole: bool,
    subject: Subject,
}

/// What is seen while rows pass by.
#[derive(Default)]
struct Observed {
    names: Vec<String>,
    columns: Vec<ColumnState>,
    keys: Vec<KeyState>,
    /// All records, malformed ones included.
    rows: u64,
}

/// What is seen of a set of columns.
struct KeyState {
    names: Vec<String>,
    /// `None` when one of the columns does not exist.
    columns: Option<Vec<usize>>,
    repeats: Repeats,
    nulls: u64,
}

/// Profiles a source.
pub(crate) async fn profile(
    name: &Name,
    source: &spec::Source,
    keys: &[Vec<String>],
    location: &Location,
    subject: &Subject,
) -> Result<SourceProfile> {
    let files = listing::list(location, subject).await?;
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let question = Question {
        name: name.clone(),
        source: source.clone(),
        keys: keys.to_vec(),
        location: location.clone(),
        files,
        whole: bytes <= WHOLE_BYTES_MAX,
        subject: subject.clone(),
    };
    if question.files.is_empty() {
        return Ok(question.empty());
    }
    let runtime = tokio::runtime::Handle::current();
    let answered = tokio::task::spawn_blocking(move || match question.format()? {
        FileFormat::Parquet => parquet::profile(&question, &runtime),
        format => text::profile(&question, format),
    });
    answered.await.map_err(|_| subject.internal("a profile ended early"))?
}

// === impl Question ===

impl Question {
    fn empty(&self) -> SourceProfile {
        SourceProfile {
            source: self.name.clone(),
            identity: self.location.identity.clone(),
            exists: false,
            format: self.source.format,
            text: None,
            columns: Vec::new(),
            rows: Count { value: 0, exact: true },
            bytes: Count { value: 0, exact: true },
            files: 0,
            rows_sampled: 0,
            candidate_keys: Vec::new(),
            key_checks: Vec::new(),
            watermarks: Vec::new(),
            splits: Vec::new(),
            fingerprint: String::new(),
        }
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    fn column_spec(&self, name: &str) -> Option<&spec::ColumnSpec> {
        self.source.columns.get(name)
    }

    /// Tells the format: as the spec says, else by the content, else by the ending.
    fn format(&self) -> Result<FileFormat> {
        if let Some(format) = self.source.format {
            return Ok(format);
        }
        let Some(file) = self.files.iter().find(|file| file.size > 0) else { return Ok(FileFormat::Csv) };
        let mut head = Vec::new();
        let stored = input::open(&self.location.store, file, Some(0..file.size.min(4)), None, &self.subject)?;
        stored.take(4).read_to_end(&mut head).map_err(|error| self.subject.io(&file.name, error))?;
        if head == b"PAR1" {
            return Ok(FileFormat::Parquet);
        }
        let name = file.path.to_ascii_lowercase();
        let name = [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        Ok(match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("parquet" | "pq") => FileFormat::Parquet,
            Some("csv" | "tsv" | "psv") => FileFormat::Csv,
            Some("ndjson" | "jsonl" | "ldjson") => FileFormat::Ndjson,
            _ => text::format(self, file)?,
        })
    }

    /// Puts what was observed together.
    fn answer(&self, format: FileFormat, observed: Observed, rows: Count, complete: bool) -> Result<SourceProfile> {
        let mut candidate_keys: Vec<Vec<String>> = Vec::new();
        let mut columns = Vec::with_capacity(observed.columns.len());
        let mut watermarks: Vec<(column::Rank, usize, WatermarkProfile)> = Vec::new();
        let cursor = self.source.incremental.as_ref().map(|incremental| incremental.cursor.as_str());
        for (index, (name, state)) in observed.names.iter().zip(observed.columns).enumerate() {
            let is_key = complete && state.is_key();
            let concluded = state.conclude(name, self.column_spec(name), complete, !complete);
            if let Some((rank, watermark)) = concluded.watermark
                && (cursor == Some(name) || ColumnState::is_promising(&rank, &watermark, observed.rows))
            {
                watermarks.push((rank, index, watermark));
            }
            // Measurements that happen to differ identify nothing.
            let is_float = matches!(concluded.profile.column.data_type, DataType::Float32 | DataType::Float64);
            if is_key && !is_float {
                candidate_keys.push(vec![name.clone()]);
            }
            columns.push(concluded.profile);
        }
        watermarks.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut key_checks = Vec::new();
        for key in observed.keys {
            // A key that names no column is the negotiation's to refuse; it gets no check.
            if key.columns.is_none() {
                continue;
            }
            let exact = complete && !key.repeats.overflowed;
            let unique = exact && key.repeats.duplicates == 0 && key.nulls == 0 && observed.rows > 0;
            let smaller = |known: &Vec<String>| known.iter().all(|name| key.names.contains(name));
            if unique && !candidate_keys.iter().any(smaller) {
                candidate_keys.push(key.names.clone());
            }
            let duplicates = Count { value: key.repeats.duplicates, exact };
            key_checks.push(KeyCheck { columns: key.names, duplicates, nulls: key.nulls });
        }
        candidate_keys.sort_by_key(Vec::len);
        let files = self.files.len() as u64;
        let splits = if files > 1 { vec![SplitProfile::Files { count: files }] } else { Vec::new() };
        Ok(SourceProfile {
            exists: true,
            format: Some(format),
            columns,
            rows,
            bytes: Count { value: self.bytes(), exact: true },
            files,
            rows_sampled: observed.rows,
            candidate_keys,
            key_checks,
            watermarks: watermarks.into_iter().map(|(_, _, watermark)| watermark).collect(),
            splits,
            fingerprint: self.fingerprint()?,
            ..self.empty()
        })
    }

    /// Digests what the files are: of local ones size and content (of large ones samples of it), of others the store's
    /// entity tag. Names are relative to the base, so that clones of a folder agree.
    fn fingerprint(&self) -> Result<String> {
        let mut seen = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let content = match &self.location.store {
                Store::Object { .. } => file.version.clone().unwrap_or_default(),
                Store::Local => {
                    let mut digest = String::new();
                    for range in sample::ranges(file.size, self.whole) {
                        let mut bytes = Vec::new();
                        let stored = input::open(&self.location.store, file, Some(range), None, &self.subject);
                        stored?.read_to_end(&mut bytes).map_err(|error| self.subject.io(&file.name, error))?;
                        digest = canonical::hash_bytes(format!("{digest}{}", canonical::hash_bytes(&bytes)).as_bytes());
                    }
                    digest
                }
            };
            let name = match &self.location.base {
                Some(_) => file.name.as_str(),
                None => file.name.rsplit('/').next().unwrap_or(&file.name),
            };
            seen.push((name.to_owned(), file.size, content));
        }
        Ok(canonical::hash(&seen))
    }
}

// === impl Observed ===

impl Observed {
    /// Begins to observe these columns.
    fn new(names: Vec<String>, question: &Question) -> Self {
        let columns = names.iter().map(|name| ColumnState::new(question.column_spec(name))).collect();
        let mut observed = Self { names, columns, keys: Vec::new(), rows: 0 };
        observed.set_keys(question);
        observed
    }

    /// Looks the asked keys' columns up; those found late were NULL in the rows before.
    fn set_keys(&mut self, question: &Question) {
        if self.keys.is_empty() {
            let key = |names: &Vec<String>| KeyState {
                names: names.clone(),
                columns: None,
                repeats: Repeats::default(),
                nulls: 0,
            };
            self.keys = question.keys.iter().map(key).collect();
        }
        for key in self.keys.iter_mut().filter(|key| key.columns.is_none()) {
            let find = |name: &String| self.names.iter().position(|known| known == name);
            key.columns = key.names.iter().map(find).collect();
            key.nulls = self.rows;
        }
    }

    /// Sees a row: each column's text (`None` is NULL) and whether it is a string for sure.
    fn row<'a>(&mut self, whole: bool, cell: impl Fn(usize) -> Option<(&'a [u8], bool)>) {
        self.rows += 1;
        for (index, state) in self.columns.iter_mut().enumerate() {
            match cell(index) {
                None => state.null(),
                Some((text, string)) => state.value(text, string, whole),
            }
        }
        for key in &mut self.keys {
            let Some(columns) = &key.columns else { continue };
            let mut joined = Vec::with_capacity(64);
            let mut null = false;
            for column in columns {
                match cell(*column) {
                    None => null = true,
                    Some((text, _)) => {
                        joined.extend_from_slice(&(text.len() as u64).to_le_bytes());
                        joined.extend_from_slice(text);
                    }
                }
            }
            if null {
                key.nulls += 1;
            } else {
                key.repeats.add(sketch::hash(&joined));
            }
        }
    }
}
