//! Folders of the staging area and the quarantine: on a local disk or in an object store, one interface for both.
//!
//! A file appears whole or not at all: local ones by renaming a temporary file, others by the store's own put.

use std::{env, path::PathBuf, sync::Arc};

use dagwright_model::{canonical, code::Code};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, buffered::BufWriter, local::LocalFileSystem, path::Path};
use url::Url;

use crate::error::{Error, Result};

/// The smallest part that S3 accepts in a multi-part upload; two of them are in flight.
const PART_BYTES: usize = 5 << 20;

/// The longest segment of a path; file systems end at 255 bytes, and object stores encode some of them threefold.
const SEGMENT_BYTES_MAX: usize = 120;

/// What object stores read from the environment.
const STORE_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// A folder.
#[derive(Clone, Debug)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Where it is, when it is local.
    local: Option<PathBuf>,
}

// === impl Folder ===

impl Folder {
    /// Opens a folder given as a path or URI; a relative path starts from `base`, or the working folder.
    ///
    /// # Errors
    /// DW0606 when the location is not usable.
    pub fn open(location: &str, base: Option<&str>) -> Result<Self> {
        match Url::parse(location) {
            Ok(url) if url.scheme() == "file" => match url.to_file_path() {
                Ok(path) => Self::open_local(path),
                Err(()) => Err(unusable("the file URI has no local path")),
            },
            // One letter is a drive, not a scheme.
            Ok(url) if url.scheme().len() > 1 => {
                let known = |name: &String| STORE_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
                let options = env::vars_os()
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                    .filter(|(name, _)| known(name))
                    .map(|(name, value)| (name.to_ascii_lowercase(), value));
                let (store, path) = object_store::parse_url_opts(&url, options)
                    .map_err(|error| unusable("the URI is not one of a store").caused_by(error))?;
                Ok(Self { store: Arc::from(store), path, local: None })
            }
            _ => {
                let folder = base.map_or_else(PathBuf::new, PathBuf::from).join(location);
                Self::open_local(std::path::absolute(&folder).unwrap_or(folder))
            }
        }
    }

    fn open_local(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder).map_err(|error| unusable("the folder cannot be made").caused_by(error))?;
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| unusable("the folder cannot be opened").caused_by(error))?
            .with_automatic_cleanup(true);
        let local = folder.canonicalize().unwrap_or(folder);
        Ok(Self { store: Arc::new(store), path: Path::default(), local: Some(local) })
    }

    /// Returns a folder inside; nothing is made before something is written.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let name = segment(name);
        let local = self.local.as_ref().map(|local| local.join(&name));
        Self { store: self.store.clone(), path: self.path.clone().join(name), local }
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Returns where a file inside is in the store.
    #[must_use]
    pub fn file(&self, name: &str) -> Path {
        self.path.clone().join(segment(name))
    }

    /// Returns where the folder is, when it is on a local disk.
    #[must_use]
    pub fn local(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    /// Opens a file inside for writing; it appears when the writer is shut down.
    #[must_use]
    pub fn writer(&self, name: &str) -> BufWriter {
        BufWriter::with_capacity(self.store.clone(), self.file(name), PART_BYTES).with_max_concurrency(2)
    }

    /// Lists the files inside, at any depth, by name; none when the folder does not exist.
    ///
    /// # Errors
    /// DW0606.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.list(Some(&self.path)).try_collect::<Vec<_>>().await;
        let mut files = match listed {
            Ok(files) => files,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(unusable("the folder cannot be listed").caused_by(error)),
        };
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(files)
    }

    /// Removes a file inside; succeeds when there is none.
    ///
    /// # Errors
    /// DW0606.
    pub async fn remove(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.file(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unusable("a file cannot be removed").caused_by(error)),
        }
    }

    /// Removes the folder with everything in it; succeeds when there is nothing.
    ///
    /// # Errors
    /// DW0606.
    pub async fn remove_all(&self) -> Result<()> {
        if let Some(local) = &self.local {
            return match tokio::fs::remove_dir_all(local).await {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(unusable("the folder cannot be removed").caused_by(error)),
            };
        }
        for file in self.list().await? {
            match self.store.delete(&file.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(unusable("a file cannot be removed").caused_by(error)),
            }
        }
        Ok(())
    }
}

/// Makes any text one segment of a path: letters, digits, `-`, `_`, `.` and `+` stay, all else becomes `~xx`.
///
/// Different texts give different segments; long ones end in their hash.
#[must_use]
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut safe = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'+' => safe.push(byte.into()),
            b'.' if index > 0 => safe.push('.'),
            // Writing to a String cannot fail.
            _ => drop(write!(safe, "~{byte:02x}")),
        }
    }
    if safe.len() > SEGMENT_BYTES_MAX {
        let hash = canonical::hash_bytes(text.as_bytes());
        safe.truncate(SEGMENT_BYTES_MAX - 33);
        safe = format!("{safe}-{}", &hash[..32]);
    }
    safe
}

/// The failure of a folder of Dagwright's own.
#[must_use]
pub fn unusable(message: &str) -> Error {
    Error::new(
        Code::StagingUnavailable,
        "staging",
        format!("the staging area or quarantine is not usable: {message}"),
        "check that the folder exists, is writable and has space, or that the store's credentials are set",
    )
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn any_text_is_one_segment() {
        assert_eq!(segment("01HQ-x_1.y"), "01HQ-x_1.y");
        assert_eq!(segment("dag/manual__2024-01-01T00:00:00+00:00"), "dag~2fmanual__2024-01-01T00~3a00~3a00+00~3a00");
        assert_eq!(segment(".."), "~2e.");
        assert_eq!(segment("../../etc"), "~2e.~2f..~2fetc");
        assert!(segment(&"é".repeat(500)).len() <= 120);
        assert_ne!(segment(&"a".repeat(500)), segment(&"a".repeat(501)));
    }
}
