//! Lists the files at a location, sorted by name, and notices when one changes.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use dagwright_model::code::Code;
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::{GetOptions, ObjectStore, path::Path as Key};

use super::{
    fault::Subject,
    location::{Location, Store},
    manifest,
};
use crate::error::Result;

/// The most files one source may have; more are a mistake in a pattern sooner than a wish.
pub(crate) const FILES_MAX: usize = 100_000;

const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A file as it was when it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What messages call it.
    pub(crate) name: String,
    /// Its absolute path, or its key.
    pub(crate) path: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// What changes with its content: an entity tag, or inode and modification time.
    pub(crate) version: Option<String>,
}

/// Lists the files at a location; none is not an error.
pub(crate) async fn list(location: &Location, subject: &Subject) -> Result<Vec<Listed>> {
    if location.is_folder() && !location.is_pattern() {
        // Within a folder that Dagwright writes, the manifest says what belongs to it.
        if let Some(parts) = manifest::visible_parts(location, subject).await? {
            return these(location, parts.iter().map(|part| format!("{}{part}", location.path)), subject).await;
        }
    }
    let mut found = match &location.store {
        Store::Local => {
            let (location, subject) = (location.clone(), subject.clone());
            let listing = tokio::task::spawn_blocking(move || list_local(&location, &subject));
            listing.await.map_err(|_| Subject::source("files").internal("listing ended early"))??
        }
        Store::Object { client, lists, .. } => list_objects(location, client.as_ref(), *lists, subject).await?,
    };
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Looks the named files up; one that is missing is an error.
pub(crate) async fn these(
    location: &Location,
    paths: impl Iterator<Item = String>,
    subject: &Subject,
) -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    for path in paths {
        let name = location.display(&path);
        found.push(look_up(location, &path, subject).await?.ok_or_else(|| {
            subject.error(
                Code::SourceMissing,
                format!("{name} is gone"),
                "list the source's files again: rerun the split",
            )
        })?);
    }
    Ok(found)
}

/// Looks one file up.
pub(crate) async fn look_up(location: &Location, path: &str, subject: &Subject) -> Result<Option<Listed>> {
    let name = location.display(path);
    match &location.store {
        Store::Local => match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(local(name, path, &metadata))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(subject.io(&name, error)),
        },
        Store::Object { client, .. } => {
            let key = key(path, subject)?;
            let head = client.get_opts(&key, GetOptions::new().with_head(true)).await;
            match head {
                Ok(found) => {
                    let version = found.meta.e_tag;
                    Ok(Some(Listed { name, path: path.into(), size: found.meta.size, version }))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(subject.object(&name, error)),
            }
        }
    }
}

/// Makes a key of an object store from text.
pub(crate) fn key(text: &str, subject: &Subject) -> Result<Key> {
    Key::parse(text).map_err(|error| {
        subject
            .error(Code::SpecBadUri, "a key is not usable", "use a key without empty, `.` or `..` parts")
            .caused_by(error)
    })
}

/// Describes a local file.
pub(crate) fn local(name: String, path: &str, metadata: &Metadata) -> Listed {
    Listed { name, path: path.into(), size: metadata.len(), version: Some(local_version(metadata)) }
}

/// Returns what changes with a local file's content.
pub(crate) fn local_version(metadata: &Metadata) -> String {
    format!("{}-{}-{}.{:09}", metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn list_local(location: &Location, subject: &Subject) -> Result<Vec<Listed>> {
    let path = &location.path;
    // A literal name wins over a pattern, for files called `a[1].csv`.
    match std::fs::metadata(path.trim_end_matches('/')) {
        Ok(metadata) if metadata.is_file() && !location.is_folder() => {
            return Ok(vec![local(location.display(path), path, &metadata)]);
        }
        Ok(metadata) if metadata.is_dir() => {
            let folder = Pattern::escape(path.trim_end_matches('/'));
            return match_local(&format!("{folder}/**/*"), location, subject);
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(subject.io(&location.written, error));
        }
        Ok(_) | Err(_) => {}
    }
    if !location.is_pattern() {
        return Ok(Vec::new());
    }
    // What the base contributes is no pattern; a path such as `../data/*.csv` has left the base.
    let within = location.base.as_deref().and_then(|base| Some((base, path.strip_prefix(base)?)));
    let (fixed, pattern) = within.unwrap_or(("", path.as_str()));
    let fixed = Pattern::escape(fixed);
    match_local(&format!("{fixed}{pattern}"), location, subject)
}

fn match_local(pattern: &str, location: &Location, subject: &Subject) -> Result<Vec<Listed>> {
    let matches = glob::glob_with(pattern, MATCHING).map_err(|error| bad_pattern(location, subject, error))?;
    let mut found = Vec::new();
    for path in matches {
        let path = path.map_err(|error| {
            let place = location.display(&error.path().to_string_lossy());
            subject.io(&place, error.into())
        })?;
        let Some(text) = path.to_str() else { continue };
        if is_internal(text) {
            continue;
        }
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            // Gone between listing and looking: as if it had gone before.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(subject.io(&location.display(text), error)),
        };
        if metadata.is_file() {
            found.push(local(location.display(text), text, &metadata));
            bound(found.len(), location, subject)?;
        }
    }
    Ok(found)
}

async fn list_objects(
    location: &Location,
    client: &dyn ObjectStore,
    lists: bool,
    subject: &Subject,
) -> Result<Vec<Listed>> {
    let path = &location.path;
    if !lists && (location.is_pattern() || location.is_folder()) {
        let hint = "name each file";
        return Err(subject.error(
            Code::SpecBadUri,
            format!("{}: files of a web server cannot be listed", location.written),
            hint,
        ));
    }
    if !location.is_pattern() && !location.is_folder() {
        return Ok(look_up(location, path, subject).await?.into_iter().collect());
    }
    let fixed = path.find(['*', '?', '[']).map_or(path.as_str(), |at| &path[..at]);
    let prefix = fixed.rfind('/').map(|at| &fixed[..at]).filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map(|prefix| key(prefix, subject)).transpose()?;
    let pattern = if location.is_folder() { format!("{path}**") } else { path.clone() };
    let pattern = if location.is_folder() && !location.is_pattern() {
        None
    } else {
        Some(Pattern::new(&pattern).map_err(|error| bad_pattern(location, subject, error))?)
    };
    let mut objects = client.list(prefix.as_ref());
    let mut found = Vec::new();
    while let Some(meta) = objects.try_next().await.map_err(|error| subject.object(&location.written, error))? {
        let key = meta.location.as_ref();
        let hidden = key.split('/').any(|part| part.starts_with('.'));
        let matches = match &pattern {
            Some(pattern) => pattern.matches_with(key, MATCHING),
            None => key.starts_with(path.as_str()) && !hidden,
        };
        if matches && !is_internal(key) && !key.ends_with('/') {
            found.push(Listed { name: location.display(key), path: key.into(), size: meta.size, version: meta.e_tag });
            bound(found.len(), location, subject)?;
        }
    }
    Ok(found)
}

/// Tells whether a path lies where Dagwright keeps its own files.
fn is_internal(path: &str) -> bool {
    path.split('/').any(|part| part == manifest::FOLDER || part.starts_with(".dagwright-") || part == "_SUCCESS")
}

fn bound(found: usize, location: &Location, subject: &Subject) -> Result<()> {
    if found <= FILES_MAX {
        return Ok(());
    }
    let message = format!("{} matches more than {FILES_MAX} files", location.written);
    Err(subject.error(Code::SpecBadUri, message, "use a narrower pattern"))
}

fn bad_pattern(location: &Location, subject: &Subject, error: glob::PatternError) -> crate::error::Error {
    let message = format!("{} is not a usable pattern: {}", location.written, error.msg);
    subject.error(Code::SpecBadUri, message, "use `*`, `?`, `**` between slashes, and `[…]`")
}
