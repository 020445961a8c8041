//! `common.proto`.

use dagwright_model::{
    code::Code,
    facts::Identity,
    message::{Cost, Role},
    schema::{Column, DataType},
    spec::{Interval, OrderBy},
    task::{Partition, PartitionRange, Problem, SplitBy, Status},
};

use super::{enum_pairs, required, text};
use crate::{Error, proto};

/// Confidence is in percent.
const CONFIDENCE_MAX: u32 = 100;

enum_pairs!(Role, proto::Role { Orchestrator, Extraction, Transformation, Loading });
enum_pairs!(Status, proto::Status { Succeeded, Failed, Cancelled });

// === Problem ===

impl From<&Problem> for proto::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code.to_string(),
            subject: problem.subject.clone(),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl TryFrom<proto::Problem> for Problem {
    type Error = Error;

    fn try_from(problem: proto::Problem) -> Result<Self, Error> {
        let code = Code::try_from(problem.code)
            .map_err(|_| Error::Invalid { field: "problem.code", wanted: "an error code" })?;
        Ok(Self { code, subject: problem.subject, message: problem.message, hint: problem.hint })
    }
}

// === Interval ===

impl From<&Interval> for proto::Interval {
    fn from(interval: &Interval) -> Self {
        Self { start: interval.start.clone(), end: interval.end.clone() }
    }
}

impl TryFrom<proto::Interval> for Interval {
    type Error = Error;

    fn try_from(interval: proto::Interval) -> Result<Self, Error> {
        Ok(Self { start: text(interval.start, "interval.start")?, end: text(interval.end, "interval.end")? })
    }
}

// === Cost ===

impl From<&Cost> for proto::Cost {
    fn from(cost: &Cost) -> Self {
        Self {
            rows: cost.rows,
            bytes: cost.bytes,
            cpu_ms: cost.cpu_ms,
            wall_ms: cost.wall_ms,
            memory_bytes: cost.memory_bytes,
            confidence: u32::from(cost.confidence),
        }
    }
}

impl TryFrom<proto::Cost> for Cost {
    type Error = Error;

    fn try_from(cost: proto::Cost) -> Result<Self, Error> {
        let confidence = u8::try_from(cost.confidence).ok().filter(|_| cost.confidence <= CONFIDENCE_MAX);
        Ok(Self {
            rows: cost.rows,
            bytes: cost.bytes,
            cpu_ms: cost.cpu_ms,
            wall_ms: cost.wall_ms,
            memory_bytes: cost.memory_bytes,
            confidence: confidence.ok_or(Error::Invalid { field: "cost.confidence", wanted: "at most 100" })?,
        })
    }
}

// === Column, OrderBy ===

pub(super) fn data_type(text: String, field: &'static str) -> Result<DataType, Error> {
    DataType::try_from(text).map_err(|_| Error::Invalid { field, wanted: "a type" })
}

impl From<&Column> for proto::Column {
    fn from(column: &Column) -> Self {
        Self { name: column.name.clone(), r#type: column.data_type.to_string(), nullable: column.nullable }
    }
}

impl TryFrom<proto::Column> for Column {
    type Error = Error;

    fn try_from(column: proto::Column) -> Result<Self, Error> {
        Ok(Self { name: column.name, data_type: data_type(column.r#type, "column.type")?, nullable: column.nullable })
    }
}

impl From<&OrderBy> for proto::OrderBy {
    fn from(term: &OrderBy) -> Self {
        Self { column: term.column.clone(), descending: term.descending }
    }
}

impl TryFrom<proto::OrderBy> for OrderBy {
    type Error = Error;

    fn try_from(term: proto::OrderBy) -> Result<Self, Error> {
        Ok(Self { column: text(term.column, "order_by.column")?, descending: term.descending })
    }
}

// === Identity ===

impl From<&Identity> for proto::Identity {
    fn from(identity: &Identity) -> Self {
        Self {
            scheme: identity.scheme.clone(),
            host: identity.host.clone(),
            port: identity.port.map(u32::from),
            database: identity.database.clone(),
        }
    }
}

impl TryFrom<proto::Identity> for Identity {
    type Error = Error;

    fn try_from(identity: proto::Identity) -> Result<Self, Error> {
        let port = identity.port.map(u16::try_from).transpose();
        Ok(Self {
            scheme: identity.scheme,
            host: identity.host,
            port: port.map_err(|_| Error::Invalid { field: "identity.port", wanted: "at most 65535" })?,
            database: identity.database,
        })
    }
}

// === SplitBy, Partition ===

impl From<&SplitBy> for proto::SplitBy {
    fn from(split: &SplitBy) -> Self {
        use proto::split_by::{By, Files};
        let by = match split {
            SplitBy::Files => By::Files(Files {}),
            SplitBy::KeyRange(column) => By::KeyRange(column.clone()),
        };
        Self { by: Some(by) }
    }
}

impl TryFrom<proto::SplitBy> for SplitBy {
    type Error = Error;

    fn try_from(split: proto::SplitBy) -> Result<Self, Error> {
        use proto::split_by::By;
        Ok(match required(split.by, "split_by.by")? {
            By::Files(_) => Self::Files,
            By::KeyRange(column) => Self::KeyRange(text(column, "split_by.key_range")?),
        })
    }
}

impl From<&Partition> for proto::Partition {
    fn from(partition: &Partition) -> Self {
        use proto::partition::{Files, KeyRange, Range};
        let range = match &partition.range {
            PartitionRange::Files(files) => Range::Files(Files { files: files.clone() }),
            PartitionRange::KeyRange { column, from, to } => {
                Range::KeyRange(KeyRange { column: column.clone(), from: from.clone(), to: to.clone() })
            }
        };
        Self { index: partition.index, count: partition.count, range: Some(range) }
    }
}

impl TryFrom<proto::Partition> for Partition {
    type Error = Error;

    fn try_from(partition: proto::Partition) -> Result<Self, Error> {
        use proto::partition::Range;
        let range = match required(partition.range, "partition.range")? {
            Range::Files(files) => PartitionRange::Files(files.files),
            Range::KeyRange(range) => PartitionRange::KeyRange {
                column: text(range.column, "partition.key_range.column")?,
                from: range.from,
                to: range.to,
            },
        };
        if partition.index >= partition.count {
            return Err(Error::Invalid { field: "partition.index", wanted: "below partition.count" });
        }
        Ok(Self { index: partition.index, count: partition.count, range })
    }
}
