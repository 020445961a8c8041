//! The bytes of a Parquet file, by ranges; of an object only while it is the one that was listed.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use object_store::{GetOptions, ObjectStore};
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    errors::{ParquetError, Result},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};

use super::{
    fault::Subject,
    listing::{self, Listed},
    location::Store,
};
use crate::error::Error;

/// How much of a file's end is read at first: most footers fit.
const FOOTER_BYTES: usize = 64 << 10;

/// Reads ranges of one file.
#[derive(Clone)]
pub(crate) struct ParquetBytes {
    store: Store,
    file: Arc<Listed>,
    subject: Subject,
}

// === impl ParquetBytes ===

impl ParquetBytes {
    /// Prepares to read a file.
    pub(crate) fn new(store: &Store, file: &Listed, subject: &Subject) -> Self {
        Self { store: store.clone(), file: Arc::new(file.clone()), subject: subject.clone() }
    }

    async fn get(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let Self { store, file, subject } = self.clone();
        match store {
            Store::Local => {
                let reading = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or_default()];
                    let read = File::open(&file.path).and_then(|opened| opened.read_exact_at(&mut bytes, range.start));
                    match read {
                        Ok(()) => Ok(Bytes::from(bytes)),
                        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                            Err(subject.changed(&file.name))
                        }
                        Err(error) => Err(subject.io(&file.name, error)),
                    }
                });
                reading.await.map_err(|_| self.subject.internal("a reader ended early"))?
            }
            Store::Object { client, .. } => {
                let options = GetOptions::new().with_range(Some(range)).with_if_match(file.version.clone());
                let found = client.get_opts(&listing::key(&file.path, &subject)?, options).await;
                let bytes = async { found?.bytes().await };
                bytes.await.map_err(|error| subject.object(&file.name, error))
            }
        }
    }
}

impl AsyncFileReader for ParquetBytes {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.get(range).await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.file.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}
