//! What a session hears, what it wants done, and how it ends.

use dagwright_model::{
    message::{Bound, Conflict, Envelope, Party},
    plan::Plan,
    task::Problem,
};

/// What happens to a session. Times are milliseconds of any clock that does not run backwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session begins.
    Opened {
        /// Now.
        at_ms: u64,
    },
    /// A message came.
    Received {
        /// The message.
        envelope: Envelope,
        /// Now.
        at_ms: u64,
    },
    /// Time passed.
    TimePassed {
        /// Now.
        at_ms: u64,
    },
    /// A party was started anew, and knows nothing.
    Restarted {
        /// Which.
        party: Party,
        /// Whether it ended while it worked for this session.
        blamed: bool,
        /// Now.
        at_ms: u64,
    },
    /// Nobody was there for a party for longer than one waits.
    Absent {
        /// Which.
        party: Party,
        /// Now.
        at_ms: u64,
    },
    /// The session was built anew from what the ledger has of it; what was on its way may be lost.
    Resumed {
        /// Now.
        at_ms: u64,
    },
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this.
    Send(Envelope),
    /// The session ended; nothing follows.
    End(Box<Ending>),
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With a plan.
    Sealed(Box<Plan>),
    /// Without one: no combination fits, and nobody has anything further to offer.
    Deadlocked(Vec<Conflict>),
    /// Without one: a bound was hit.
    Expired {
        /// Which.
        bound: Bound,
        /// The conflicts known by then.
        conflicts: Vec<Conflict>,
    },
    /// Without one: something could not be observed, or a commitment failed.
    Failed(Vec<Problem>),
}
