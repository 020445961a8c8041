//! What can go wrong with a store.

use std::{io, path::PathBuf, time::Duration};

use dagwright_model::{code::Code, id::RequestId};

/// What went wrong, and with which part of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process owns the folder.
    #[error("another process owns the store {} (waited {} s)", path.display(), waited.as_secs())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// The folder holds something else, and is left alone.
    #[error("{} is not a Dagwright store: it holds other files", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written in a format that this version does not know.
    #[error("the store {} has another format than this version reads ({FORMAT})", path.display(), FORMAT = crate::folder::FORMAT.trim())]
    Format {
        /// The folder.
        path: PathBuf,
    },
    /// The folder or a file in it could not be used.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database in the folder cannot be opened: it is damaged.
    #[error("the database in the store {} is damaged", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
    },
    /// The database failed.
    #[error("could not {operation} the store's database")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// What it says.
        source: ::sled::Error,
    },
    /// The database failed before, and takes nothing further until it is opened again.
    #[error("the store failed before and must be opened again")]
    Poisoned,
    /// Something stored does not read back.
    #[error("the store holds {what} that cannot be read")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another writer appended first.
    #[error("request {request} goes on at record {expected}, not at {given}: another writer was faster")]
    Conflict {
        /// The request.
        request: RequestId,
        /// The sequence that follows its last record.
        expected: u64,
        /// The sequence of the first record given.
        given: u64,
    },
    /// The request's pipeline belongs to another instance, or is about to: this one must stop acting for it.
    #[error("request {request} belongs to another instance now")]
    Elsewhere {
        /// The request.
        request: RequestId,
    },
    /// A record is longer than can be kept. Nothing was appended, and shorter ones can be.
    #[error("a record of request {request} is longer than {what} takes")]
    TooLong {
        /// The request.
        request: RequestId,
        /// What cannot take it.
        what: &'static str,
    },
    /// What this is a cache of could not be reached, or did not take it; nothing was written, or it is not known whether.
    #[error("could not write to the ledger's topic")]
    Unreached {
        /// The code of what was wrong.
        code: Code,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller gave records that do not belong together.
    #[error("cannot append: {what}")]
    Misuse {
        /// What is wrong with them.
        what: &'static str,
    },
}

// === impl Error ===

impl Error {
    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Busy { .. } => Code::StoreBusy,
            Self::Foreign { .. }
            | Self::Format { .. }
            | Self::Io { .. }
            | Self::Damaged { .. }
            | Self::Database { .. }
            | Self::Poisoned
            | Self::Unreadable { .. } => Code::StoreUnusable,
            Self::Elsewhere { .. } => Code::BusUnreachable,
            Self::TooLong { .. } => Code::RequestTooLarge,
            Self::Unreached { code, .. } => *code,
            Self::Conflict { .. } | Self::Misuse { .. } => Code::Internal,
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "wait until the other dagwright ends, or give this one another store.path",
            Self::Foreign { .. } => "give store.path a folder of its own",
            Self::Format { .. } => "use the version of dagwright that wrote it, or give store.path a new folder",
            Self::Io { .. } => "check that the folder exists, that it may be written, and that its disk has space",
            Self::Damaged { .. } | Self::Unreadable { .. } => {
                "move the folder away: the next run starts with an empty store; nothing is loaded twice into a sink that remembers effect keys"
            }
            Self::Database { .. } | Self::Poisoned => "check that the disk has space and is not failing, and try again",
            Self::Elsewhere { .. } => "ask again: the instance that has it now goes on with it",
            Self::TooLong { .. } => "make the spec shorter; with Kafka, or raise max.message.bytes of our topics",
            Self::Unreached { .. } => "ask again: asked twice it has one effect",
            Self::Conflict { .. } | Self::Misuse { .. } => "this is a bug in Dagwright; please report it",
        }
    }
}
