//! What an owner asks to be made visible, and what it hears of that.

use tokio::sync::{mpsc, oneshot};

use super::{Outgoing, Ownership};

/// How many commits may wait for the next transaction.
const WAITING_MAX: usize = 1024;

/// What becomes visible together.
#[derive(Clone, Debug)]
pub struct Commit {
    /// On whose ownership it rests.
    pub ownership: Ownership,
    /// The offset of the received record that is done with, in the owned partition.
    pub consumed: Option<i64>,
    /// What is written.
    pub records: Vec<Outgoing>,
    /// What is written instead when the brokers do not take a record for its length; dead letters are shortened until
    /// they are taken. Without it nothing is: then the record that was to be consumed is in the way of those after it.
    pub otherwise: Option<Vec<Outgoing>>,
}

/// Says why a commit did not become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The partition was lost, or has to be acquired anew as it is not known what became visible. Whoever acts for the
    /// partition must stop.
    #[error("the partition was lost")]
    Lost,
    /// The record is not the first of those that were received and not committed. Nothing was written.
    #[error("the record is not the next to be committed")]
    OutOfOrder {
        /// The next one.
        expected: Option<i64>,
    },
    /// A record is longer than the brokers take. Nothing was written, or what was to be written
    /// [otherwise](Commit::otherwise); nothing else was harmed.
    #[error("a record is longer than Kafka takes")]
    TooLarge,
    /// The instance has ended.
    #[error("the instance has ended")]
    Closed,
}

/// Commits; clones share the transactions.
#[derive(Clone)]
pub struct Committer(mpsc::Sender<Job>);

/// What becomes of a submitted commit.
#[must_use = "whoever does not look may act for a partition that was lost"]
pub struct Outcome(oneshot::Receiver<Result<(), CommitError>>);

/// What the thread is asked for.
pub(crate) enum Job {
    Commit(Commit, oneshot::Sender<Result<(), CommitError>>),
    /// Look whether the brokers left something open.
    Look,
    /// Finish what was asked for before, then end.
    End,
}

// === impl Committer ===

impl Committer {
    /// Makes the thread's queue.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Job>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Makes everything in a commit visible at once; returns when it is.
    ///
    /// # Errors
    /// [`CommitError`]; only after [`CommitError::Lost`] it may have become visible all the same.
    ///
    /// # Cancel safety
    /// Not cancel safe: the commit may be made although nobody waits for its outcome.
    pub async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.submit(commit).await?.visible().await
    }

    /// Puts a commit after those that were submitted before; waits while too many are. Whoever does not wait for one
    /// outcome before the next commit of the same partition has to submit them in order.
    ///
    /// # Errors
    /// [`CommitError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe: the commit is not made.
    pub async fn submit(&self, commit: Commit) -> Result<Outcome, CommitError> {
        let (reply, outcome) = oneshot::channel();
        self.0.send(Job::Commit(commit, reply)).await.map_err(|_| CommitError::Closed)?;
        Ok(Outcome(outcome))
    }

    /// Returns what the producer asks by to look for what is open; it holds nobody.
    pub(crate) fn looks(&self) -> mpsc::WeakSender<Job> {
        self.0.downgrade()
    }

    pub(crate) async fn end(&self) {
        // When it has ended already, there is nobody to tell.
        let _ = self.0.send(Job::End).await;
    }

    pub(crate) fn try_end(&self) {
        let _ = self.0.try_send(Job::End);
    }
}

// === impl Outcome ===

impl Outcome {
    /// Returns when the commit is visible.
    ///
    /// # Errors
    /// See [`Committer::commit`].
    pub async fn visible(self) -> Result<(), CommitError> {
        self.0.await.unwrap_or(Err(CommitError::Closed))
    }
}
