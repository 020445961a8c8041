//! What a session ends with over its agents.

use dagwright_model::{code::Code, message::Party, task::Problem};

use super::RESTARTS_MAX;

/// Says that an agent does not survive a session.
#[must_use]
pub fn lost(party: &Party) -> Problem {
    Problem {
        code: Code::AgentLost,
        subject: party.to_string(),
        message: format!("the agent ended {RESTARTS_MAX} times over this request, and once more"),
        hint: "the log says why it ended; submit the request again once that is mended".into(),
    }
}

/// Says that nobody is there for a party.
pub(super) fn away(party: &Party) -> Problem {
    let role = party.role;
    Problem {
        code: Code::AgentAway,
        subject: party.to_string(),
        message: format!("no process with the {role} agent {} is there", party.instance),
        hint: format!("start one that runs it (dagwright serve --roles {role}), then submit the request again"),
    }
}

/// Says that an agent passed over what it was asked about.
pub(super) fn unanswered(subject: &str) -> Problem {
    Problem {
        code: Code::AgentLost,
        subject: subject.into(),
        message: "the agent asked about it said nothing of it".into(),
        hint: "check that all agents are of this version".into(),
    }
}
