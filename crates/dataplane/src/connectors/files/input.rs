//! The bytes of a file, from a blocking thread: as stored, decompressed, in UTF-8.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use dagwright_model::{facts::TextCompression, spec::Encoding};
use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};
use futures::StreamExt;
use object_store::{GetOptions, ObjectStore};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    fault::Subject,
    listing::{self, Listed},
    location::Store,
};
use crate::{
    error::{Error, Result},
    tally::SourceTally,
};

/// How much is read from a file at once.
const READ_BYTES: usize = 256 << 10;

/// How many pieces of a download may wait to be read.
const PIECES_QUEUED_MAX: usize = 8;

/// Opens a file, or a range of it, for a blocking thread; must be called within a Tokio runtime.
pub(crate) fn open(
    store: &Store,
    file: &Listed,
    range: Option<Range<u64>>,
    tally: Option<Arc<SourceTally>>,
    subject: &Subject,
) -> Result<Box<dyn Read + Send>> {
    let whole = range.is_none();
    let range = range.unwrap_or(0..file.size);
    let expected = range.end.saturating_sub(range.start);
    let bytes: Box<dyn Read + Send> = match store {
        Store::Local => {
            let mut opened = File::open(&file.path).map_err(|error| subject.io(&file.name, error))?;
            if range.start > 0 {
                opened.seek(SeekFrom::Start(range.start)).map_err(|error| subject.io(&file.name, error))?;
            }
            // One byte more than listed, so that a file that grew is noticed.
            let limit = if whole { expected + 1 } else { expected };
            Box::new(opened.take(limit))
        }
        Store::Object { client, .. } => {
            let client = client.clone();
            let download = download(client, file.clone(), (!whole).then_some(range), subject.clone())?;
            Box::new(download)
        }
    };
    let local = matches!(store, Store::Local);
    let checked = Checked { bytes, read: 0, expected, local, file: file.clone(), tally, subject: subject.clone() };
    Ok(Box::new(checked))
}

/// Opens a text file whole: decompressed and in UTF-8 without byte order mark.
pub(crate) fn open_text(
    store: &Store,
    file: &Listed,
    encoding: Encoding,
    tally: Option<Arc<SourceTally>>,
    subject: &Subject,
) -> Result<Box<dyn Read + Send>> {
    let stored = open(store, file, None, tally, subject)?;
    decoded(decompressed(stored, &file.name, subject)?.0, encoding, &file.name, subject)
}

/// Decompresses, as the first bytes say.
pub(crate) fn decompressed(
    stored: Box<dyn Read + Send>,
    name: &str,
    subject: &Subject,
) -> Result<(Box<dyn Read + Send>, TextCompression)> {
    let mut stored = BufReader::with_capacity(READ_BYTES, stored);
    let head = stored.fill_buf().map_err(|error| subject.io(name, error))?;
    let compression = compression_of(head);
    let plain: Box<dyn Read + Send> = match compression {
        TextCompression::None => Box::new(stored),
        TextCompression::Gzip => {
            let archive = flate2::bufread::MultiGzDecoder::new(stored);
            Box::new(Archive { archive, kind: "gzip", name: name.into(), subject: subject.clone() })
        }
        TextCompression::Zstd => {
            let archive = zstd::stream::read::Decoder::with_buffer(stored).map_err(|error| subject.io(name, error))?;
            Box::new(Archive { archive, kind: "zstd", name: name.into(), subject: subject.clone() })
        }
    };
    Ok((plain, compression))
}

/// Decodes to UTF-8, without byte order mark.
pub(crate) fn decoded(
    plain: Box<dyn Read + Send>,
    encoding: Encoding,
    name: &str,
    subject: &Subject,
) -> Result<Box<dyn Read + Send>> {
    let decoder = match encoding {
        Encoding::Utf8 => return without_mark(plain).map_err(|error| subject.io(name, error)),
        Encoding::Utf16Le => UTF_16LE.new_decoder_with_bom_removal(),
        Encoding::Utf16Be => UTF_16BE.new_decoder_with_bom_removal(),
        Encoding::Latin1 => WINDOWS_1252.new_decoder_without_bom_handling(),
    };
    Ok(Box::new(Decoded {
        bytes: BufReader::with_capacity(READ_BYTES, plain),
        decoder,
        ended: false,
        waiting: Vec::new(),
        given: 0,
        name: name.into(),
        subject: subject.clone(),
    }))
}

/// Tells how bytes are compressed, by their magic numbers.
pub(crate) fn compression_of(head: &[u8]) -> TextCompression {
    match head {
        [0x1f, 0x8b, ..] => TextCompression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => TextCompression::Zstd,
        // A skippable frame, as parallel compressors write first.
        [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => TextCompression::Zstd,
        _ => TextCompression::None,
    }
}

/// Bytes as stored, counted, and compared with what was listed.
struct Checked {
    bytes: Box<dyn Read + Send>,
    read: u64,
    expected: u64,
    local: bool,
    file: Listed,
    tally: Option<Arc<SourceTally>>,
    subject: Subject,
}

impl Checked {
    fn verify(&self) -> Result<()> {
        if self.read != self.expected {
            return Err(self.subject.changed(&self.file.name));
        }
        if self.local {
            let now = std::fs::metadata(&self.file.path).map_err(|error| match error.kind() {
                // It was there when it was opened.
                io::ErrorKind::NotFound => self.subject.changed(&self.file.name),
                _ => self.subject.io(&self.file.name, error),
            })?;
            if Some(listing::local_version(&now)) != self.file.version {
                return Err(self.subject.changed(&self.file.name));
            }
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.bytes.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(self.subject.io(&self.file.name, error)),
        })?;
        self.read += read as u64;
        if let Some(tally) = &self.tally {
            tally.bytes.fetch_add(read as u64, Relaxed);
        }
        if read == 0 || self.read > self.expected {
            self.verify().map_err(io::Error::other)?;
        }
        Ok(read)
    }
}

/// Says of a decompressor's errors what they mean.
struct Archive<R> {
    archive: R,
    kind: &'static str,
    name: String,
    subject: Subject,
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted || error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return error;
            }
            let message = format!("{} is not whole {} data", self.name, self.kind);
            io::Error::other(self.subject.malformed(message, "compress the file again").caused_by(error))
        })
    }
}

/// Passes over the byte order mark of UTF-8.
fn without_mark(mut bytes: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut head = Vec::with_capacity(MARK.len());
    bytes.by_ref().take(MARK.len() as u64).read_to_end(&mut head)?;
    Ok(if head == MARK { bytes } else { Box::new(io::Cursor::new(head).chain(bytes)) })
}

/// Text of another encoding, as UTF-8.
struct Decoded {
    bytes: BufReader<Box<dyn Read + Send>>,
    decoder: Decoder,
    ended: bool,
    waiting: Vec<u8>,
    given: usize,
    name: String,
    subject: Subject,
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.waiting.len() {
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            let source = self.bytes.fill_buf()?;
            let last = source.is_empty();
            // A UTF-16 unit or Latin-1 byte becomes at most three bytes.
            self.waiting.resize(source.len() * 3 + 16, 0);
            let (result, read, written) =
                self.decoder.decode_to_utf8_without_replacement(source, &mut self.waiting, last);
            self.bytes.consume(read);
            self.waiting.truncate(written);
            self.given = 0;
            match result {
                DecoderResult::InputEmpty => self.ended = last,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    let message = format!("{} is not valid {}", self.name, self.decoder.encoding().name());
                    let hint = "give the right `csv.encoding`, or mend the file";
                    return Err(io::Error::other(self.subject.malformed(message, hint)));
                }
            }
        }
        let given = (self.waiting.len() - self.given).min(buffer.len());
        buffer[..given].copy_from_slice(&self.waiting[self.given..self.given + given]);
        self.given += given;
        Ok(given)
    }
}

/// A download, read from a blocking thread while a task fetches the next pieces.
struct Download {
    pieces: mpsc::Receiver<Result<Bytes>>,
    piece: Bytes,
}

fn download(
    client: Arc<dyn ObjectStore>,
    file: Listed,
    range: Option<Range<u64>>,
    subject: Subject,
) -> Result<Download> {
    let key = listing::key(&file.path, &subject)?;
    let (sender, pieces) = mpsc::channel(PIECES_QUEUED_MAX);
    Handle::current().spawn(async move {
        let options = GetOptions::new().with_if_match(file.version.clone()).with_range(range);
        let mut stream = match client.get_opts(&key, options).await {
            Ok(found) => found.into_stream(),
            Err(error) => {
                // The receiver may be gone; then nobody wants to know.
                let _ = sender.send(Err(subject.object(&file.name, error))).await;
                return;
            }
        };
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| subject.object(&file.name, error));
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    Ok(Download { pieces, piece: Bytes::new() })
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let given = self.piece.len().min(buffer.len());
        buffer[..given].copy_from_slice(&self.piece.split_to(given));
        Ok(given)
    }
}
