//! One new file, invisible until it is whole.
//!
//! Locally it has a temporary name in the same folder and is renamed; in an object store it is a multipart upload that
//! is completed. Whatever is dropped before leaves nothing visible.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use object_store::{Attribute, Attributes, ObjectStore, PutMultipartOptions, WriteMultipart};
use tokio::runtime::Handle;

use super::{
    fault::Subject,
    listing,
    location::{Location, Store},
};
use crate::{error::Result, tally::SinkTally};

/// The size of an upload's parts: 10,000 of them, the most there may be, make 80 GB.
const UPLOAD_PART_BYTES: usize = 8 << 20;

/// How many parts of a file may be on their way.
const UPLOADS_MAX: usize = 4;

/// The key under which an object says which effect made it.
const EFFECT_ATTRIBUTE: &str = "dagwright-effect";

/// What the temporary names of local files start with.
pub(crate) const TEMPORARY_PREFIX: &str = ".dagwright-";

/// A file being written.
pub(crate) struct Output {
    target: Target,
    path: String,
    name: String,
    bytes: u64,
    tally: Arc<SinkTally>,
    subject: Subject,
}

enum Target {
    Local { file: BufWriter<File>, temporary: Temporary },
    Object { upload: Option<WriteMultipart>, runtime: Handle },
}

/// A temporary file; removed when dropped.
struct Temporary(Option<String>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // What cannot be removed now is removed when the next attempt begins.
            let _ = fs::remove_file(path);
        }
    }
}

/// A whole file that is not visible yet.
pub(crate) struct Finished {
    target: Target,
    /// Where it will be.
    pub(crate) path: String,
    name: String,
    /// Its size.
    pub(crate) bytes: u64,
    subject: Subject,
}

// === impl Output ===

impl Output {
    /// Starts the file that will be at `path`; `tag` tells temporary files of different writers apart, `effect` is
    /// remembered with an object.
    pub(crate) async fn create(
        location: &Location,
        path: &str,
        tag: &str,
        effect: &str,
        tally: Arc<SinkTally>,
        subject: &Subject,
    ) -> Result<Self> {
        let name = location.display(path);
        let target = match &location.store {
            Store::Local => {
                let folder = folder_of(path);
                fs::create_dir_all(folder).map_err(|error| subject.io(&name, error))?;
                let temporary = format!("{folder}/{TEMPORARY_PREFIX}{tag}-{}.tmp", std::process::id());
                let file = File::create(&temporary).map_err(|error| subject.io(&name, error))?;
                let temporary = Temporary(Some(temporary));
                Target::Local { file: BufWriter::with_capacity(1 << 20, file), temporary }
            }
            Store::Object { client, .. } => {
                let mut attributes = Attributes::new();
                attributes.insert(Attribute::Metadata(EFFECT_ATTRIBUTE.into()), effect.to_owned().into());
                let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
                let upload = client.put_multipart_opts(&listing::key(path, subject)?, options).await;
                let upload = upload.map_err(|error| subject.object(&name, error))?;
                let upload = WriteMultipart::new_with_chunk_size(upload, UPLOAD_PART_BYTES);
                Target::Object { upload: Some(upload), runtime: Handle::current() }
            }
        };
        Ok(Self { target, path: path.into(), name, bytes: 0, tally, subject: subject.clone() })
    }

    /// How many bytes were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What messages call the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits while too much is on its way; to be called between writes.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        if let Target::Object { upload: Some(upload), .. } = &mut self.target {
            upload.wait_for_capacity(UPLOADS_MAX).await.map_err(|error| self.subject.object(&self.name, error))?;
        }
        Ok(())
    }

    /// Makes the file whole and durable; from a blocking thread.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        if let Target::Local { file, .. } = &mut self.target {
            let flushed = file.flush().and_then(|()| file.get_ref().sync_all());
            flushed.map_err(|error| self.subject.io(&self.name, error))?;
        }
        Ok(Finished { target: self.target, path: self.path, name: self.name, bytes: self.bytes, subject: self.subject })
    }

    /// Gives up.
    pub(crate) async fn abort(self) {
        if let Target::Object { upload: Some(upload), .. } = self.target {
            // The store's own rules remove what cannot be removed now.
            let _ = upload.abort().await;
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Local { file, .. } => {
                file.write_all(bytes).map_err(|error| io::Error::other(self.subject.io(&self.name, error)))?;
            }
            Target::Object { upload: Some(upload), runtime } => {
                let _in_runtime = runtime.enter();
                upload.write(bytes);
            }
            Target::Object { upload: None, .. } => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        self.bytes += bytes.len() as u64;
        self.tally.bytes.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Finished ===

impl Finished {
    /// Returns what tells this very file from another at its place: see [`mark_of`].
    pub(crate) fn mark(&self, effect: &str) -> Result<String> {
        match &self.target {
            Target::Local { temporary: Temporary(Some(path)), .. } => {
                let metadata = fs::metadata(path).map_err(|error| self.subject.io(&self.name, error))?;
                Ok(local_mark(&metadata))
            }
            Target::Local { .. } => Err(self.subject.internal("a file is published twice")),
            Target::Object { .. } => Ok(effect.to_owned()),
        }
    }

    /// Makes the file visible, replacing one of the same name.
    pub(crate) async fn publish(self) -> Result<()> {
        match self.target {
            Target::Local { file, mut temporary } => {
                drop(file);
                let Some(path) = temporary.0.take() else {
                    return Err(self.subject.internal("a file is published twice"));
                };
                let renamed = fs::rename(&path, &self.path).and_then(|()| sync_folder(folder_of(&self.path)));
                renamed.map_err(|error| {
                    temporary.0 = Some(path);
                    self.subject.io(&self.name, error)
                })
            }
            Target::Object { upload: Some(upload), .. } => {
                upload.finish().await.map(|_| ()).map_err(|error| self.subject.object(&self.name, error))
            }
            Target::Object { upload: None, .. } => Err(self.subject.internal("a file is published twice")),
        }
    }

    /// Gives up.
    pub(crate) async fn abort(self) {
        if let Target::Object { upload: Some(upload), .. } = self.target {
            let _ = upload.abort().await;
        }
    }
}

/// Returns the folder that a path is in.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder })
}

/// Makes a folder's entries durable.
pub(crate) fn sync_folder(folder: &str) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn local_mark(metadata: &fs::Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("{}-{}", metadata.ino(), metadata.len())
}

/// Returns the mark of the file that is at `path` now: locally its inode, which a rename keeps, and size; of an object
/// the effect that made it.
pub(crate) async fn mark_of(location: &Location, path: &str, subject: &Subject) -> Result<Option<String>> {
    let name = location.display(path);
    match &location.store {
        Store::Local => match fs::metadata(path) {
            Ok(metadata) => Ok(Some(local_mark(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(subject.io(&name, error)),
        },
        Store::Object { client, .. } => {
            let options = object_store::GetOptions::new().with_head(true);
            match client.get_opts(&listing::key(path, subject)?, options).await {
                Ok(found) => {
                    let attribute = found.attributes.get(&Attribute::Metadata(EFFECT_ATTRIBUTE.into()));
                    // One that others made has no such mark, but is there.
                    Ok(Some(attribute.map(|effect| effect.to_string()).unwrap_or_default()))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(subject.object(&name, error)),
            }
        }
    }
}

/// Removes files; one that is gone already is as good.
pub(crate) async fn remove(location: &Location, paths: &[String], subject: &Subject) -> Result<()> {
    use object_store::ObjectStoreExt;
    for path in paths {
        let name = location.display(path);
        match &location.store {
            Store::Local => match fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(subject.io(&name, error)),
            },
            Store::Object { client, .. } => match client.delete(&listing::key(path, subject)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(subject.object(&name, error)),
            },
        }
    }
    Ok(())
}

/// Gives a file another name, replacing one that has it.
pub(crate) async fn rename(location: &Location, from: &str, to: &str, subject: &Subject) -> Result<()> {
    use object_store::ObjectStoreExt;
    match &location.store {
        Store::Local => {
            let renamed = fs::rename(from, to).and_then(|()| sync_folder(folder_of(to)));
            renamed.map_err(|error| subject.io(&location.display(to), error))
        }
        Store::Object { client, .. } => {
            let (from, to) = (listing::key(from, subject)?, listing::key(to, subject)?);
            client.rename(&from, &to).await.map_err(|error| subject.object(&location.display(to.as_ref()), error))
        }
    }
}

/// Removes temporary files that earlier attempts left in a local folder.
pub(crate) fn remove_temporary(location: &Location, folder: &str, tag_prefix: &str) {
    if !matches!(location.store, Store::Local) {
        return;
    }
    let prefix = format!("{TEMPORARY_PREFIX}{tag_prefix}");
    let Ok(entries) = fs::read_dir(Path::new(folder)) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".tmp")) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
