//! The ledger as a cache of a log: takes in what the log says.

use dagwright_model::{
    event::Event,
    record::{Record, RecordBody},
};

use super::{Batch, Ledger, OrderedMap};
use crate::{Cache, Entry, Error, Store, keys};

impl<M: OrderedMap> Cache for Ledger<M> {
    fn foresee(&self, records: &[Record]) -> Result<Vec<Event>, Error> {
        self.stage(&mut Batch::default(), records)
    }

    fn absorb(&self, log: &str, position: u64, entries: &[Entry]) -> Result<(), Error> {
        if !keys::is_text(log) {
            return Err(Error::Misuse { what: "a log's name is empty, too long, or holds a zero byte" });
        }
        self.take_in(entries, Some((keys::reached(log), position)))
    }

    fn learn(&self, records: &[Record]) -> Result<(), Error> {
        self.take_in(&records.iter().cloned().map(Entry::Record).collect::<Vec<_>>(), None)
    }

    fn reached(&self, log: &str) -> Result<Option<u64>, Error> {
        let position = self.map.get(&keys::reached(log))?.map(<[u8; 8]>::try_from);
        Ok(position.and_then(Result::ok).map(u64::from_be_bytes))
    }

    fn flush(&self) -> Result<(), Error> {
        self.map.flush()
    }
}

impl<M: OrderedMap> Ledger<M> {
    /// Takes in what is not known yet, without waiting for the disk. What stands before something that was forgotten is
    /// applied by itself; it is all taken in again when this does not come to its end.
    fn take_in(&self, entries: &[Entry], reached: Option<(Vec<u8>, u64)>) -> Result<(), Error> {
        let mut positions = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.newest(&positions)?;
        let mut batch = Batch::default();
        let mut newest = before;
        for entry in entries {
            if let Some((request, until)) = self.ends(&batch, entry)? {
                self.map.apply(std::mem::take(&mut batch.0))?;
                positions.newest = Some(newest);
                // By the clock of who accepted it: what counts as its time depends on what else is known.
                let accepted = self.read(request, 0)?.first().map(|record| record.at);
                if accepted.is_some_and(|at| at <= until)
                    && let Some(summary) = self.request(request)?
                {
                    self.map.apply(self.removal(&summary)?.0)?;
                }
            }
            let record = match entry {
                Entry::Record(record) => record,
                Entry::Ask(ask) => {
                    self.stage_ask(&mut batch, ask)?;
                    continue;
                }
                Entry::Forgotten { .. } => continue,
            };
            match self.stage(&mut batch, std::slice::from_ref(record)) {
                Ok(events) => newest = batch.tell(newest, &events),
                // Known already.
                Err(Error::Conflict { expected, given, .. }) if given < expected => {}
                Err(error) => return Err(error),
            }
        }
        if let Some((key, position)) = reached {
            batch.put(key, position.to_be_bytes().to_vec());
        }
        self.map.apply(batch.0)?;
        positions.newest = Some(newest);
        drop(positions);
        // Not flushed: what a crash takes is read from the log again.
        self.told(before, newest);
        Ok(())
    }

    /// Returns the request that an entry says was forgotten, and until when it must have been accepted for that: one that
    /// is accepted again was forgotten in between, also where nothing else is left that says so.
    fn ends<'a>(
        &self,
        batch: &Batch,
        entry: &'a Entry,
    ) -> Result<Option<(&'a dagwright_model::id::RequestId, u64)>, Error> {
        match entry {
            Entry::Forgotten { request, accepted_at } => Ok(Some((request, *accepted_at))),
            Entry::Record(Record { request, sequence: 0, at, body: RecordBody::Accepted(_) })
                if batch.holds(&keys::summary(request), &self.map)?.is_some() =>
            {
                Ok(at.checked_sub(1).map(|until| (request, until)))
            }
            Entry::Record(_) | Entry::Ask(_) => Ok(None),
        }
    }
}
