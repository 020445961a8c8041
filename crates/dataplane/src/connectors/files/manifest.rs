//! What a file sink remembers: which parts belong to a folder, which effects are in it, how far its sources were read.
//!
//! A folder has it in `_dagwright/manifest.json`, a single file beside it in `.<name>.dagwright.json`. It is replaced in
//! one instant, and only if nobody else did so meanwhile: locally under a lock of the folder, in object stores by a
//! conditional put.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
};

use dagwright_model::{canonical, code::Code, schema::Column, task::SinkCounts};
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};

use super::{
    fault::Subject,
    listing,
    location::{Location, Store},
    output,
};
use crate::error::Result;

/// The folder within a sink's folder that is Dagwright's own.
pub(crate) const FOLDER: &str = "_dagwright";

/// The version of the manifest's form.
const VERSION: u32 = 1;

/// How many effects are remembered; the oldest are forgotten first. At one run a minute that is a week.
const EFFECTS_MAX: usize = 10_000;

/// How often an update that others overtook is tried again.
const UPDATES_MAX: usize = 100;

/// The largest manifest read.
const BYTES_MAX: u64 = 256 << 20;

/// What a file sink remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The folder's files; for a single file: none.
    #[serde(default)]
    pub(crate) parts: Vec<Part>,
    /// The effects, oldest first.
    #[serde(default)]
    pub(crate) effects: Vec<Effect>,
    /// Whether older effects were forgotten.
    #[serde(default)]
    pub(crate) forgetful: bool,
    /// The committed cursors, by `<pipeline>/<source>`.
    #[serde(default)]
    pub(crate) cursors: BTreeMap<String, String>,
    /// The columns last written.
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
    /// For a single file: the effect of a file that was about to be renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
}

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its name within the folder.
    pub(crate) file: String,
    /// The effect it came with; `None`: it was there before.
    pub(crate) effect: Option<EffectId>,
    /// Its rows, where known.
    pub(crate) rows: Option<u64>,
    /// Its size.
    pub(crate) bytes: u64,
}

/// Which effect: a run's on a sink, or a partition's share of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EffectId {
    /// The effect key.
    pub(crate) key: String,
    /// The partition, where each one writes for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
}

/// An effect that is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effect {
    /// Which.
    #[serde(flatten)]
    pub(crate) id: EffectId,
    /// Its generation.
    pub(crate) generation: u32,
    /// What it counted.
    pub(crate) counts: SinkCounts,
}

/// An effect that is visible if the file has this mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// The effect.
    pub(crate) effect: Effect,
    /// Its cursors, by `<pipeline>/<source>`.
    pub(crate) cursors: BTreeMap<String, String>,
    /// See [`output::mark_of`].
    pub(crate) mark: String,
}

/// A manifest as it was read.
struct Read {
    manifest: Option<Manifest>,
    version: Option<UpdateVersion>,
}

// === impl Manifest ===

impl Manifest {
    /// Finds an effect of at least this generation.
    pub(crate) fn effect(&self, id: &EffectId, generation: u32) -> Option<&Effect> {
        self.effects.iter().rev().find(|effect| effect.id == *id && effect.generation >= generation)
    }

    /// Remembers an effect instead of its earlier generations.
    pub(crate) fn remember(&mut self, effect: Effect) {
        self.effects.retain(|known| known.id != effect.id);
        self.effects.push(effect);
        if let Some(surplus) = self.effects.len().checked_sub(EFFECTS_MAX).filter(|surplus| *surplus > 0) {
            self.effects.drain(..surplus);
            self.forgetful = true;
        }
    }

    /// Returns the names of the parts.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.parts.iter().map(|part| part.file.as_str()).collect()
    }
}

/// Returns where the manifest of a location is.
pub(crate) fn path(location: &Location) -> String {
    if location.is_folder() {
        return format!("{}{FOLDER}/manifest.json", location.path);
    }
    let (folder, name) =
        location.path.rsplit_once('/').map_or(("", location.path.as_str()), |(folder, name)| (folder, name));
    let slash = if location.path.contains('/') { "/" } else { "" };
    format!("{folder}{slash}.{name}.dagwright.json")
}

/// Reads the manifest of a location, if there is one.
pub(crate) async fn read(location: &Location, subject: &Subject) -> Result<Option<Manifest>> {
    Ok(read_with_version(location, &path(location), subject).await?.manifest)
}

/// Returns the parts of a folder that has a manifest.
pub(crate) async fn visible_parts(location: &Location, subject: &Subject) -> Result<Option<Vec<String>>> {
    if matches!(location.store, Store::Object { lists: false, .. }) {
        return Ok(None);
    }
    let manifest = read(location, subject).await?;
    Ok(manifest.map(|manifest| manifest.parts.into_iter().map(|part| part.file).collect()))
}

/// Changes the manifest of a location in one instant; `change` may be called again when others overtake it, and gives
/// `None` to leave everything as it is.
pub(crate) async fn update<T>(
    location: &Location,
    subject: &Subject,
    mut change: impl FnMut(&mut Manifest) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let path = path(location);
    let name = location.display(&path);
    for _ in 0..UPDATES_MAX {
        // Held until the new manifest is in place.
        let _lock = match &location.store {
            Store::Local => Some(lock(&path).map_err(|error| subject.io(&name, error))?),
            Store::Object { .. } => None,
        };
        let Read { manifest, version } = read_with_version(location, &path, subject).await?;
        let mut manifest = manifest.unwrap_or_default();
        manifest.version = VERSION;
        let Some(result) = change(&mut manifest)? else { return Ok(None) };
        let text = canonical::to_pretty(&manifest);
        match &location.store {
            Store::Local => {
                // Under the lock nobody else writes it, and what a killed process left is written over.
                put_local(&path, text.as_bytes(), "manifest").map_err(|error| subject.io(&name, error))?;
                return Ok(Some(result));
            }
            Store::Object { client, .. } => {
                if put_object(client.as_ref(), &path, text, version, subject).await? {
                    return Ok(Some(result));
                }
            }
        }
    }
    let message = format!("{name} is changed by others all the time");
    Err(subject.error(Code::SinkUnreachable, message, "let fewer tasks write to this sink at once"))
}

/// Locks the folder of a manifest against other writers; waits for them.
fn lock(path: &str) -> io::Result<File> {
    let folder = output::folder_of(path);
    fs::create_dir_all(folder)?;
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

/// Replaces a small local file in one instant, durably; `tag` names its temporary file.
pub(crate) fn put_local(path: &str, bytes: &[u8], tag: &str) -> io::Result<()> {
    let folder = output::folder_of(path);
    fs::create_dir_all(folder)?;
    let temporary = format!("{folder}/{}{tag}.tmp", output::TEMPORARY_PREFIX);
    let written = fs::write(&temporary, bytes)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| output::sync_folder(folder));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Puts an object if it still has a version; false when it has another one.
async fn put_object(
    client: &dyn ObjectStore,
    path: &str,
    text: String,
    version: Option<UpdateVersion>,
    subject: &Subject,
) -> Result<bool> {
    use object_store::Error as E;
    let key = listing::key(path, subject)?;
    let mode = version.map_or(PutMode::Create, PutMode::Update);
    let options = PutOptions { mode, ..PutOptions::default() };
    match client.put_opts(&key, PutPayload::from(text.clone()), options).await {
        Ok(_) => Ok(true),
        Err(E::Precondition { .. } | E::AlreadyExists { .. }) => Ok(false),
        // A store without conditional puts: the engine's one task per sink is then the only guard.
        Err(E::NotImplemented { .. } | E::NotSupported { .. }) => {
            let put = client.put_opts(&key, PutPayload::from(text), PutOptions::default()).await;
            put.map(|_| true).map_err(|error| subject.object(path, error))
        }
        Err(error) => Err(subject.object(path, error)),
    }
}

/// Reads a small file whole.
pub(crate) async fn read_small(
    location: &Location,
    path: &str,
    subject: &Subject,
) -> Result<Option<(Vec<u8>, UpdateVersion)>> {
    let name = location.display(path);
    let too_large = || {
        let message = format!("{name} is larger than {} MiB", BYTES_MAX >> 20);
        subject.error(Code::SinkUnreachable, message, "this is no manifest of Dagwright; move it away")
    };
    match &location.store {
        Store::Local => match fs::metadata(path).and_then(|metadata| Ok((metadata.len(), fs::read(path)?))) {
            Ok((size, _)) if size > BYTES_MAX => Err(too_large()),
            Ok((_, bytes)) => Ok(Some((bytes, UpdateVersion { e_tag: None, version: None }))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(subject.io(&name, error)),
        },
        Store::Object { client, .. } => {
            use object_store::ObjectStoreExt;
            match client.get(&listing::key(path, subject)?).await {
                Ok(found) if found.meta.size > BYTES_MAX => Err(too_large()),
                Ok(found) => {
                    let version =
                        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                    let bytes = found.bytes().await.map_err(|error| subject.object(&name, error))?;
                    Ok(Some((bytes.to_vec(), version)))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(subject.object(&name, error)),
            }
        }
    }
}

async fn read_with_version(location: &Location, path: &str, subject: &Subject) -> Result<Read> {
    let Some((bytes, version)) = read_small(location, path, subject).await? else {
        return Ok(Read { manifest: None, version: None });
    };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(location, path, subject).caused_by(error))?;
    if manifest.version != VERSION {
        return Err(unreadable(location, path, subject));
    }
    Ok(Read { manifest: Some(manifest), version: Some(version) })
}

fn unreadable(location: &Location, path: &str, subject: &Subject) -> crate::error::Error {
    let code = if subject.sink { Code::SinkDrifted } else { Code::SourceMalformed };
    let message = format!("{} is no manifest that this version reads", location.display(path));
    subject.error(code, message, "use the version of Dagwright that wrote it, or start with an empty folder")
}
