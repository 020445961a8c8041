//! Says in codes what went wrong inside DataFusion, without repeating values from its messages.

use arrow::error::ArrowError;
use dagwright_model::code::Code;
use datafusion::{error::DataFusionError, parquet::errors::ParquetError};

use crate::error::Error;

/// Wraps one of our failures for its way through DataFusion.
#[must_use]
pub fn wrap(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Says what went wrong while a relation was computed.
///
/// DataFusion quotes values in many of its messages, so only their kind is kept; a failure of ours that travelled
/// through DataFusion comes out as it went in.
#[must_use]
pub fn run_failure(subject: &str, error: &DataFusionError) -> Error {
    match classify(error) {
        Kind::Ours(problem) => Error::from_problem(*problem),
        Kind::Memory => memory_exhausted(subject),
        Kind::Disk(code) => Error::new(
            code,
            subject,
            "the folder for temporary files could not be written",
            "free space in the staging area, or make it writable",
        )
        .caused_by(error.strip_backtrace()),
        Kind::Data(what) => Error::new(
            Code::SqlFailed,
            subject,
            format!("{what} while its rows were computed"),
            "guard the expression (TRY_CAST, NULLIF, CASE), or clean the rows in an earlier step",
        ),
        Kind::Panic => Error::new(
            Code::Internal,
            subject,
            "computing its rows ended in a panic",
            "report it together with the pipeline spec",
        ),
        Kind::Other => Error::new(
            Code::SqlFailed,
            subject,
            format!("{} while its rows were computed", name_of(error)),
            "simplify the SQL of the step; the task's log tells more",
        ),
    }
}

/// The failure of a task that needs more memory than it may use.
#[must_use]
pub fn memory_exhausted(subject: &str) -> Error {
    Error::new(
        Code::MemoryExhausted,
        subject,
        "its rows need more memory at once than the task's budget allows, even with spilling to disk",
        "raise goals.memory_max, or make joins and groups smaller",
    )
}

enum Kind {
    Ours(Box<dagwright_model::task::Problem>),
    Memory,
    Disk(Code),
    Data(&'static str),
    Panic,
    Other,
}

fn classify(error: &DataFusionError) -> Kind {
    match error {
        DataFusionError::ResourcesExhausted(message) if message.contains("disk") => {
            Kind::Disk(Code::StagingUnavailable)
        }
        DataFusionError::ResourcesExhausted(message) => {
            // It names operators and sizes, no values.
            tracing::info!(reason = message, "a memory pool is exhausted");
            Kind::Memory
        }
        DataFusionError::ArrowError(error, _) => classify_arrow(error),
        DataFusionError::ParquetError(error) => classify_parquet(error),
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => Kind::Disk(Code::StagingUnavailable),
        DataFusionError::External(error) => classify_any(error.as_ref()),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => classify(inner),
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(Kind::Other, classify),
        DataFusionError::ExecutionJoin(_) => Kind::Panic,
        DataFusionError::Execution(message) => classify_message(message),
        DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Substrait(_)
        | DataFusionError::Ffi(_) => Kind::Other,
    }
}

fn classify_any(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Kind {
    if let Some(ours) = error.downcast_ref::<Error>() {
        return Kind::Ours(ours.problem.clone());
    }
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return classify(inner);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return classify_arrow(inner);
    }
    if let Some(inner) = error.downcast_ref::<ParquetError>() {
        return classify_parquet(inner);
    }
    if error.is::<std::io::Error>() { Kind::Disk(Code::StagingUnavailable) } else { Kind::Other }
}

fn classify_arrow(error: &ArrowError) -> Kind {
    match error {
        ArrowError::ExternalError(error) => classify_any(error.as_ref()),
        ArrowError::DivideByZero => Kind::Data("a division by zero"),
        ArrowError::ArithmeticOverflow(_) => Kind::Data("an arithmetic overflow"),
        ArrowError::CastError(_) | ArrowError::ParseError(_) => {
            Kind::Data("a value that does not fit the type it is cast to")
        }
        ArrowError::InvalidArgumentError(message) => classify_message(message),
        ArrowError::IoError(..) => Kind::Disk(Code::StagingUnavailable),
        ArrowError::ComputeError(message) => classify_message(message),
        ArrowError::OffsetOverflowError(_) => Kind::Data("texts of more than 2 GiB in one batch"),
        _ => Kind::Other,
    }
}

fn classify_parquet(error: &ParquetError) -> Kind {
    match error {
        ParquetError::External(error) => classify_any(error.as_ref()),
        _ => Kind::Disk(Code::StagingUnavailable),
    }
}

/// Some failures come as text alone; only what kind they are is read from it.
fn classify_message(message: &str) -> Kind {
    let lower = message.to_ascii_lowercase();
    if lower.contains("overflow") {
        Kind::Data("an arithmetic overflow")
    } else if lower.contains("divide by zero") || lower.contains("division by zero") {
        Kind::Data("a division by zero")
    } else if lower.contains("more than one row") {
        Kind::Data("a scalar subquery with more than one row")
    } else if lower.contains("cast") || lower.contains("pars") || lower.contains("convert") {
        Kind::Data("a value that does not fit the type it is cast to")
    } else if lower.contains("panic") {
        Kind::Panic
    } else {
        Kind::Other
    }
}

fn name_of(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::NotImplemented(_) => "something DataFusion does not implement",
        DataFusionError::Internal(_) => "an internal failure of DataFusion",
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) => "a failure to plan",
        _ => "a failure",
    }
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;
    use dagwright_model::code::Code;
    use datafusion::error::DataFusionError;

    use super::{run_failure, wrap};
    use crate::error::Error;

    #[track_caller]
    fn check(error: DataFusionError, wanted: Code) {
        let failure = run_failure("joined", &error);
        assert_eq!(failure.code(), wanted);
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }

    #[test]
    fn failures_keep_their_kind_and_lose_their_values() {
        let ours = || Error::new(Code::SourceMalformed, "flights", "m", "h");
        check(wrap(ours()), Code::SourceMalformed);
        check(ArrowError::ExternalError(Box::new(wrap(ours()))).into(), Code::SourceMalformed);
        check(DataFusionError::Shared(std::sync::Arc::new(wrap(ours()))), Code::SourceMalformed);
        check(DataFusionError::ResourcesExhausted("secret".into()), Code::MemoryExhausted);
        check(ArrowError::CastError("Cannot cast string 'secret'".into()).into(), Code::SqlFailed);
        check(ArrowError::DivideByZero.into(), Code::SqlFailed);
        check(DataFusionError::Execution("secret".into()), Code::SqlFailed);
        check(std::io::Error::other("secret").into(), Code::StagingUnavailable);
    }
}
