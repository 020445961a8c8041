//! Inspects a file sink: what is there, and what may be done to it.

use std::path::Path;

use dagwright_model::{
    facts::{Privileges, SinkColumn, SinkInspection},
    id::Name,
    spec::{FileFormat, Locator},
};
use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};

use super::{
    fault::Subject,
    listing,
    location::{Location, Store},
    manifest,
    parquet_read::Opened,
};
use crate::{error::Result, types::model_columns};
use dagwright_model::{code::Code, task::RunContext};

/// Inspects a sink.
pub(crate) async fn inspect(
    name: &Name,
    locator: &Locator,
    format: Option<FileFormat>,
    run: &RunContext,
) -> Result<SinkInspection> {
    let subject = Subject::sink(name);
    let Locator::Uri(uri) = locator else {
        return Err(subject.error(Code::TaskSpecInvalid, "a file sink has no URI", "plan again"));
    };
    let location = Location::resolve(uri, run, &subject)?;
    let manifest = manifest::read(&location, &subject).await?;
    let mut files = if matches!(location.store, Store::Object { lists: false, .. }) {
        Vec::new()
    } else {
        // As a source sees it: a sink that is not there yet is no trouble.
        listing::list(&location, &Subject { sink: false, ..subject.clone() }).await?
    };
    if format == Some(FileFormat::Parquet) {
        files.retain(|file| file.size > 0);
    }
    let mut columns = manifest.as_ref().map(|manifest| manifest.columns.clone()).unwrap_or_default();
    let mut rows = None;
    if format == Some(FileFormat::Parquet) && !files.is_empty() {
        let mut sum = 0;
        for file in &files {
            // The footers of a large folder would take longer to read than they are worth.
            if files.len() > 100 && sum > 0 {
                break;
            }
            let opened = Opened::new(&location.store, file, &subject).await?;
            if columns.is_empty() {
                columns = model_columns(opened.schema()).unwrap_or_default();
            }
            sum += u64::try_from(opened.metadata.metadata().file_metadata().num_rows()).unwrap_or_default();
        }
        rows = (files.len() <= 100).then_some(sum);
    }
    if let Some(manifest) = &manifest {
        let known: Option<u64> = manifest.parts.iter().map(|part| part.rows).sum();
        rows = rows.or(known.filter(|_| location.is_folder()));
    }
    let exists = !files.is_empty();
    let columns = if exists { columns } else { Vec::new() };
    let columns = columns.into_iter().map(|column| SinkColumn { column, has_default: false, generated: false });
    let (writable, bytes_free) = match &location.store {
        Store::Local => local(&location.path),
        // A store tells only when it is tried.
        Store::Object { lists, .. } => (*lists, None),
    };
    Ok(SinkInspection {
        sink: name.clone(),
        identity: location.identity.clone(),
        exists,
        columns: columns.collect(),
        unique_keys: Vec::new(),
        rows,
        privileges: Privileges { create: writable, insert: writable, update: false, delete: writable, alter: writable },
        bytes_free,
        referenced_by: Vec::new(),
    })
}

/// Rounds down to three significant bits: free space changes with every log line, and facts that mean the same are to
/// be equal bytes.
fn coarse(bytes: u64) -> u64 {
    const BITS: u32 = 3;
    let dropped = (u64::BITS - bytes.leading_zeros()).saturating_sub(BITS);
    bytes >> dropped << dropped
}

/// Tells whether files can be made in the nearest folder that exists, and how much space is there.
fn local(path: &str) -> (bool, Option<u64>) {
    let mut folder = if path.ends_with('/') { Some(Path::new(path)) } else { Path::new(path).parent() };
    while let Some(found) = folder {
        if found.is_dir() {
            let writable = access(found, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
            // The widths of these differ between systems.
            #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "platforms differ")]
            let free = statvfs(found)
                .ok()
                .map(|found| coarse(u64::from(found.blocks_available()) * u64::from(found.fragment_size())));
            return (writable, free);
        }
        if found.exists() {
            return (false, None);
        }
        folder = found.parent();
    }
    (false, None)
}
