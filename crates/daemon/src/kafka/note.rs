//! What is counted and written down of a message once it is done with: not before, since until then it may come again.

use dagwright_agents::metrics::{Answer, received};
use dagwright_bus::kafka::Received;
use dagwright_model::{code::Code, record::Ingress};

use crate::{
    audit::{Entry, Outcome},
    metrics,
};

/// What came of a message, and what the audit log says of it.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) entry: Entry,
    came: Came,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Nothing here: it went on to its pipeline's partition.
    Forwarded,
    Accepted,
    Repeated,
    Refused(Code),
}

// === impl Note ===

impl Note {
    /// Begins with a message of which no more is known than where it is.
    pub(super) fn of(received: &Received, caller: Option<&str>) -> Self {
        let ownership = &received.ownership;
        let subject = format!("{}/{}/{}", ownership.topic(), ownership.partition(), received.offset);
        let caller = caller.unwrap_or("unknown").to_owned();
        let entry = Entry { caller, action: "submit".into(), subject: Some(subject), ..Entry::default() };
        Self { entry, came: Came::Forwarded }
    }

    pub(super) fn accepted(self) -> Self {
        Self { came: Came::Accepted, ..self }
    }

    pub(super) fn repeated(self) -> Self {
        Self { came: Came::Repeated, ..self }
    }

    pub(super) fn refused(self, code: Code) -> Self {
        Self { came: Came::Refused(code), ..self }
    }

    /// Counts it and writes it down.
    pub(super) fn tell(&self) {
        match self.came {
            Came::Forwarded => {}
            Came::Accepted => {
                received(Ingress::Kafka, Answer::Accepted);
                self.entry.write(Outcome::Accepted);
            }
            Came::Repeated => {
                received(Ingress::Kafka, Answer::Repeated);
                self.entry.write(Outcome::Repeated);
            }
            Came::Refused(code) => {
                let code = code.to_string();
                metrics::refused(Ingress::Kafka, &code);
                self.entry.write(Outcome::Refused(&code));
            }
        }
    }
}
