//! Profiles tables and queries.
//!
//! Types come from the catalog, so they are certain. Small relations are read whole, larger ones by a sample that is
//! the same each time (`TABLESAMPLE … REPEATABLE`, or the first rows of a query); what rests on a sample says so. Of
//! classified and masked columns no value leaves the server.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    facts::{ColumnProfile, Count, KeyCheck, SourceProfile, SplitProfile, WatermarkProfile},
    id::Name,
    schema::{Column, DECIMAL_PRECISION_MAX, DataType},
    spec::{self, Mask},
};
use sha2::{Digest, Sha256};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::{
    catalog::{PgColumn, Relation, UniqueKey, columns_of, read_from},
    connect::{Session, connection_of},
    fault::Subject,
    read::BEGIN,
    sql::quoted,
};
use crate::{connectors::Environment, error::Result};

/// Relations below this many rows are read whole.
const EXACT_ROWS_MAX: u64 = 100_000;

/// And only below this many bytes, for there are rows of megabytes.
const EXACT_BYTES_MAX: u64 = 256 << 20;

/// How many rows a sample should have.
const SAMPLE_ROWS: u64 = 30_000;

/// A source as it is looked at.
struct Look<'a> {
    session: &'a Session,
    source: &'a spec::Source,
    relation: Option<Relation>,
    /// What stands after `FROM` for all rows.
    from: String,
    /// What stands after `FROM` for those looked at.
    sample: String,
    columns: Vec<PgColumn>,
    exact: bool,
    rows: Count,
}

/// Profiles a source.
pub(crate) async fn profile(
    name: &Name,
    source: &spec::Source,
    keys: &[Vec<String>],
    environment: &Environment,
) -> Result<SourceProfile> {
    let subject = Subject::source(name.as_str());
    let connection = connection_of(&source.locator, &subject)?;
    let mut profile = SourceProfile {
        source: name.clone(),
        identity: environment.identity(connection)?,
        exists: false,
        format: None,
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
    };
    let session = Session::open(environment, &BTreeMap::new(), connection, subject).await?;
    session.run("start the transaction", BEGIN).await?;
    let Some((from, relation)) = read_from(&session, &source.locator, None).await? else { return Ok(profile) };
    let look = Look::new(&session, source, from, relation).await?;
    profile.exists = true;
    profile.rows = look.rows;
    let (columns, sampled) = look.columns().await?;
    profile.rows_sampled = sampled;
    profile.bytes = look.bytes();
    let declared = match &look.relation {
        Some(relation) => relation.unique_keys(&session).await?,
        None => Vec::new(),
    };
    let indexed = match &look.relation {
        Some(relation) => relation.indexed_columns(&session).await?,
        None => Vec::new(),
    };
    profile.key_checks = look.key_checks(keys, &declared).await?;
    profile.candidate_keys = candidate_keys(&declared, &profile.key_checks);
    profile.watermarks = look.watermarks(&columns, &indexed).await?;
    profile.splits = look.splits(&indexed).await?;
    profile.columns = columns;
    profile.fingerprint = fingerprint(&profile);
    Ok(profile)
}

// === impl Look ===

impl<'a> Look<'a> {
    async fn new(
        session: &'a Session,
        source: &'a spec::Source,
        from: String,
        relation: Option<Relation>,
    ) -> Result<Self> {
        let columns = columns_of(session, &from, relation.as_ref()).await?;
        let estimate = match &relation {
            Some(relation) if relation.kind != 'v' && relation.kind != 'f' => relation.rows_estimate,
            _ => None,
        };
        let estimate = match estimate {
            Some(estimate) => estimate,
            None => planner_estimate(session, &from).await?,
        };
        let bytes = relation.as_ref().map_or(0, |relation| relation.bytes);
        let mut look = Self {
            session,
            source,
            relation,
            sample: from.clone(),
            from,
            columns,
            exact: false,
            rows: Count { value: estimate, exact: false },
        };
        if estimate < EXACT_ROWS_MAX && bytes < EXACT_BYTES_MAX {
            // The estimate may be stale by any factor: counting stops where small ends.
            let limit = EXACT_ROWS_MAX + 1;
            let sql = format!("SELECT count(*) FROM (SELECT FROM {} LIMIT {limit}) AS counted", look.from);
            let counted = session.client.query_one(&sql, &[]).await;
            let counted: i64 = counted.map_err(|error| session.fault("count the rows", error))?.get(0);
            look.exact = counted.unsigned_abs() < limit;
            look.rows = Count { value: counted.unsigned_abs(), exact: look.exact };
        }
        if !look.exact {
            look.sample = look.sampled(estimate.max(EXACT_ROWS_MAX));
        }
        Ok(look)
    }

    fn sampled(&self, rows: u64) -> String {
        match &self.relation {
            Some(relation) if matches!(relation.kind, 'r' | 'm') => {
                // Whole percent and hundredths; the seed makes it the same rows each time.
                let hundredths = (SAMPLE_ROWS * 10_000 / rows.max(1)).clamp(1, 10_000);
                let percent = format!("{}.{:02}", hundredths / 100, hundredths % 100);
                format!("{} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (42)", self.from)
            }
            _ => format!("(SELECT * FROM {} LIMIT {SAMPLE_ROWS}) AS sampled", self.from),
        }
    }

    fn hidden(&self, name: &str) -> bool {
        let known = self.source.columns.get(name);
        known.is_some_and(|column| column.classification.is_some() || column.mask.is_some())
    }

    fn bytes(&self) -> Count {
        Count { value: self.relation.as_ref().map_or(0, |relation| relation.bytes), exact: false }
    }

    /// Profiles each column; also returns how many rows were looked at.
    async fn columns(&self) -> Result<(Vec<ColumnProfile>, u64)> {
        let mut selected = vec!["count(*)".to_owned()];
        for column in &self.columns {
            let name = quoted(&column.name);
            let comparable = column.native.cast.is_none()
                && !matches!(column.native.data_type, DataType::Json | DataType::List(_) | DataType::Struct(_));
            let shown =
                column.native.cast.is_none() && has_limits(&column.native.data_type) && !self.hidden(&column.name);
            let text = matches!(column.native.data_type, DataType::String { .. });
            let by = if text { format!("{name}::text COLLATE \"C\"") } else { name.clone() };
            selected.push(format!("count(*) - count({name})"));
            selected.push(if comparable { format!("count(DISTINCT {name})") } else { "NULL::int8".into() });
            selected.push(if shown { format!("min({by})::text") } else { "NULL::text".into() });
            selected.push(if shown { format!("max({by})::text") } else { "NULL::text".into() });
            let numeric = column.native.loose && matches!(column.native.data_type, DataType::Decimal { .. });
            // NaN and infinity are above every bound, or below.
            let finite = format!("FILTER (WHERE abs({name}) < 1e38)");
            selected.push(match numeric {
                true => format!("max(scale({name})) {finite}"),
                false => "NULL::int4".into(),
            });
            selected.push(match numeric {
                true => format!("max(length(trunc(abs({name}))::text)) {finite}"),
                false => "NULL::int4".into(),
            });
        }
        // A statement has at most 1664 columns, and so has a table at most 1600: looked at in portions.
        let mut profiles = Vec::with_capacity(self.columns.len());
        let mut sampled = 0;
        for (portion, columns) in selected[1..].chunks(6 * 200).zip(self.columns.chunks(200)) {
            let sql = format!("SELECT count(*), {} FROM {}", portion.join(", "), self.sample);
            let found = self.session.client.query_one(&sql, &[]).await;
            let row = found.map_err(|error| self.session.fault("look at the columns", error))?;
            sampled = row.get::<_, i64>(0).unsigned_abs();
            profiles.extend(columns.iter().enumerate().map(|(index, column)| self.column(column, &row, 1 + index * 6)));
        }
        Ok((profiles, sampled))
    }

    fn column(&self, column: &PgColumn, row: &Row, at: usize) -> ColumnProfile {
        let known = self.source.columns.get(&column.name);
        let nulls = row.get::<_, i64>(at).unsigned_abs();
        let (found, certain) = match column.native.loose {
            true => (decimal(row.get(at + 4), row.get(at + 5), &column.native.data_type), false),
            false => (column.native.data_type.clone(), true),
        };
        let declared = known.and_then(|known| known.data_type.clone());
        let data_type = match known.and_then(|known| known.mask) {
            Some(Mask::Hmac | Mask::Redact) => DataType::TEXT,
            Some(Mask::Null) | None => declared.clone().unwrap_or(found),
        };
        let masked_null = known.is_some_and(|known| known.mask == Some(Mask::Null));
        let nullable = column.nullable || masked_null;
        ColumnProfile {
            column: Column { name: column.name.clone(), data_type, nullable },
            confidence: if certain || declared.is_some() || self.exact { 100 } else { 90 },
            nulls,
            distinct: row.get::<_, Option<i64>>(at + 1).map(i64::unsigned_abs),
            min: row.get(at + 2),
            max: row.get(at + 3),
            misfits: BTreeMap::new(),
            classified: known.is_some_and(|known| known.classification.is_some()),
        }
    }

    async fn key_checks(&self, keys: &[Vec<String>], declared: &[UniqueKey]) -> Result<Vec<KeyCheck>> {
        let mut checks = Vec::new();
        let mut seen = BTreeSet::new();
        for key in keys {
            let known = |name: &String| self.columns.iter().any(|column| column.name == *name);
            if key.is_empty() || !key.iter().all(known) || !seen.insert(key) {
                continue;
            }
            let covers =
                |unique: &UniqueKey| unique.not_null && unique.columns.iter().all(|column| key.contains(column));
            let not_null = |name: &String| self.columns.iter().any(|column| column.name == *name && !column.nullable);
            if declared.iter().any(covers) && key.iter().all(not_null) {
                let duplicates = Count { value: 0, exact: true };
                checks.push(KeyCheck { columns: key.clone(), duplicates, nulls: 0 });
                continue;
            }
            let names: Vec<String> = key.iter().map(|name| quoted(name)).collect();
            let complete = names.iter().map(|name| format!("{name} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
            let sql = format!(
                "SELECT COALESCE(sum(rows - 1) FILTER (WHERE complete), 0)::int8,
                   COALESCE(sum(rows) FILTER (WHERE NOT complete), 0)::int8
                 FROM (SELECT count(*) AS rows, ({complete}) AS complete FROM {} GROUP BY {}) AS grouped",
                self.sample,
                names.join(", ")
            );
            let found = self.session.client.query_one(&sql, &[]).await;
            let row = found.map_err(|error| self.session.fault("look for repeated keys", error))?;
            checks.push(KeyCheck {
                columns: key.clone(),
                duplicates: Count { value: row.get::<_, i64>(0).unsigned_abs(), exact: self.exact },
                nulls: row.get::<_, i64>(1).unsigned_abs(),
            });
        }
        Ok(checks)
    }

    async fn watermarks(&self, columns: &[ColumnProfile], indexed: &[String]) -> Result<Vec<WatermarkProfile>> {
        let asked = self.source.incremental.as_ref().map(|incremental| incremental.cursor.as_str());
        let mut ranked = Vec::new();
        for (found, profiled) in self.columns.iter().zip(columns) {
            let is_indexed = indexed.contains(&found.name);
            let rank = match &found.native.data_type {
                DataType::TimestampTz | DataType::Timestamp => 0,
                DataType::Date => 1,
                data_type if data_type.is_integer() && is_indexed => 2,
                data_type if data_type.is_ordered() && asked == Some(found.name.as_str()) => 3,
                _ => continue,
            };
            // Another order than the stored one when masked.
            let masked = self.source.columns.get(&found.name).is_some_and(|known| known.mask.is_some());
            if found.native.cast.is_some() || masked {
                continue;
            }
            let name = quoted(&found.name);
            let stored = match &self.relation {
                Some(relation) if matches!(relation.kind, 'r' | 'm') => "ORDER BY ctid",
                _ => "",
            };
            let sql = format!(
                "SELECT count(*) FILTER (WHERE value < before)
                 FROM (SELECT {name} AS value, lag({name}) OVER ({stored}) AS before FROM {}) AS pairs",
                self.sample
            );
            let counted = self.session.client.query_one(&sql, &[]).await;
            let regressions: i64 =
                counted.map_err(|error| self.session.fault("look at the order of rows", error))?.get(0);
            let watermark = WatermarkProfile {
                column: found.name.clone(),
                nulls: profiled.nulls,
                regressions: regressions.unsigned_abs(),
                indexed: is_indexed,
            };
            ranked.push((watermark.nulls > 0, !is_indexed, rank, watermark.regressions, watermark));
        }
        ranked.sort_by_key(|(nulls, unindexed, rank, regressions, watermark)| {
            (*nulls, *unindexed, *rank, *regressions, watermark.column.clone())
        });
        Ok(ranked.into_iter().map(|(.., watermark)| watermark).collect())
    }

    async fn splits(&self, indexed: &[String]) -> Result<Vec<SplitProfile>> {
        let mut splits = Vec::new();
        for column in &self.columns {
            let splittable = column.native.cast.is_none()
                && (column.native.data_type.is_integer()
                    || matches!(column.native.data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz));
            if !splittable || column.nullable || !indexed.contains(&column.name) || self.hidden(&column.name) {
                continue;
            }
            let name = quoted(&column.name);
            let sql = format!("SELECT min({name})::text, max({name})::text FROM {}", self.from);
            let found = self.session.client.query_one(&sql, &[]).await;
            let row = found.map_err(|error| self.session.fault("find the smallest and largest key", error))?;
            if let (Some(min), Some(max)) = (row.get(0), row.get(1)) {
                splits.push(SplitProfile::KeyRange { column: column.name.clone(), min, max });
            }
        }
        Ok(splits)
    }
}

/// How many rows the planner expects.
async fn planner_estimate(session: &Session, from: &str) -> Result<u64> {
    let messages = session.client.simple_query(&format!("EXPLAIN (FORMAT JSON) SELECT * FROM {from}")).await;
    let messages = messages.map_err(|error| session.fault("estimate the rows", error))?;
    let text: String = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(plan[0]["Plan"]["Plan Rows"].as_f64().unwrap_or(0.0) as u64)
}

fn has_limits(data_type: &DataType) -> bool {
    data_type.is_number()
        || matches!(data_type, DataType::Date | DataType::Time | DataType::Timestamp | DataType::TimestampTz)
        || matches!(data_type, DataType::String { .. })
}

/// The narrowest decimal for what was seen of a `numeric` without precision; text where 38 digits are too few.
fn decimal(scale: Option<i32>, whole: Option<i32>, unseen: &DataType) -> DataType {
    let (Some(scale), Some(whole)) = (scale, whole) else { return unseen.clone() };
    match (u8::try_from(scale), u8::try_from(whole)) {
        (Ok(scale), Ok(whole)) if u16::from(scale) + u16::from(whole) <= u16::from(DECIMAL_PRECISION_MAX) => {
            DataType::Decimal { precision: DECIMAL_PRECISION_MAX, scale }
        }
        _ => DataType::TEXT,
    }
}

fn candidate_keys(declared: &[UniqueKey], checks: &[KeyCheck]) -> Vec<Vec<String>> {
    let declared = declared.iter().filter(|key| key.not_null).map(|key| &key.columns);
    let seen = checks.iter().filter(|check| check.duplicates == Count { value: 0, exact: true } && check.nulls == 0);
    let mut keys: Vec<Vec<String>> = declared.chain(seen.map(|check| &check.columns)).cloned().collect();
    keys.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    keys.dedup();
    keys
}

/// A digest of all that was seen.
fn fingerprint(profile: &SourceProfile) -> String {
    let seen =
        serde_json::to_vec(&(&profile.columns, profile.rows, profile.bytes, &profile.splits)).unwrap_or_default();
    hex::encode(Sha256::digest(seen))
}
