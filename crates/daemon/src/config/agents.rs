//! `[agents]`: which agents a process runs, and who takes part in negotiations.

use std::{collections::BTreeSet, time::Duration};

use dagwright_agents::Lineup;
use dagwright_model::{
    id::Name,
    message::{Party, Role},
    units::Span,
};
use serde::Deserialize;

use super::{BusKind, list};

/// Which agents a process runs, and who takes part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agents {
    /// The roles whose agents run here.
    #[serde(deserialize_with = "list")]
    pub(crate) roles: Vec<String>,
    /// The name of the agents that run here.
    pub(crate) instance: Name,
    /// Who takes part in the negotiations that are led here, each as `<role>@<instance>`.
    #[serde(deserialize_with = "list")]
    pub(crate) parties: Vec<String>,
    /// How long a negotiation waits for an agent that no process runs.
    pub(crate) patience: Span,
}

// === impl Agents ===

impl Agents {
    /// Returns everything that is wrong: key, what, and what to do.
    pub(super) fn faults(&self, bus: BusKind) -> Vec<(String, String, &'static str)> {
        let mut faults = Vec::new();
        for (index, role) in self.roles.iter().enumerate().filter(|(_, text)| role(text).is_none()) {
            let hint = "give any of orchestrator, extraction, transformation, loading";
            faults.push((format!("agents.roles[{index}]"), format!("{role:?} is no role"), hint));
        }
        if self.roles.is_empty() {
            faults.push(("agents.roles".into(), "it is empty".into(), "give at least one role"));
        }
        for (index, text) in self.parties.iter().enumerate().filter(|(_, text)| party(text).is_none()) {
            let hint = "give <role>@<instance>, as loading@main; the orchestrator is none of them";
            faults.push((format!("agents.parties[{index}]"), format!("{text:?} is no party"), hint));
        }
        let lineup = self.lineup();
        if lineup.leads() {
            let lacks = |role: &Role| !lineup.parties.iter().any(|party| party.role == *role);
            for role in Role::PARTICIPANTS.into_iter().filter(lacks) {
                let hint = "every role takes part; add one as loading@main";
                faults.push(("agents.parties".into(), format!("nobody of role {role} takes part"), hint));
            }
        }
        if !lineup.is_complete() && bus == BusKind::InProcess && faults.is_empty() {
            let message = "agents of other processes are needed, and the bus does not leave this one".into();
            faults.push(("bus.kind".into(), message, "set bus.kind = \"kafka\", or let this process run every agent"));
        }
        faults
    }

    /// Returns who takes part and who is here, with no way to others yet. What is not valid is left out.
    pub(crate) fn lineup(&self) -> Lineup {
        Lineup {
            roles: self.roles.iter().filter_map(|text| role(text)).collect(),
            instance: self.instance.clone(),
            parties: self.parties.iter().filter_map(|text| party(text)).collect::<BTreeSet<_>>(),
            far: None,
        }
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.0)
    }
}

fn role(text: &str) -> Option<Role> {
    [Role::Orchestrator].into_iter().chain(Role::PARTICIPANTS).find(|role| role.as_str() == text)
}

fn party(text: &str) -> Option<Party> {
    let (of, instance) = text.split_once('@')?;
    let role = role(of).filter(|role| *role != Role::Orchestrator)?;
    Some(Party { role, instance: Name::new(instance).ok()? })
}

#[cfg(test)]
mod tests {
    use dagwright_model::units::Span;

    use super::{Agents, BusKind};

    #[track_caller]
    fn check(roles: &[&str], parties: &[&str], bus: BusKind, wanted: &[&str]) {
        let agents = Agents {
            roles: roles.iter().map(ToString::to_string).collect(),
            instance: "main".parse().expect("a name"),
            parties: parties.iter().map(ToString::to_string).collect(),
            patience: Span(0),
        };
        let keys: Vec<_> = agents.faults(bus).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, wanted);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let roles = ["orchestrator", "extraction", "transformation", "loading"];
        let mains = ["extraction@main", "transformation@main", "loading@main"];
        check(&roles, &mains, BusKind::InProcess, &[]);
        check(&roles[..1], &mains, BusKind::Kafka, &[]);
        check(&roles[..1], &mains, BusKind::InProcess, &["bus.kind"]);
        check(&roles[1..], &mains, BusKind::InProcess, &["bus.kind"]);
        check(&roles, &[&mains[..], &["loading@freeze"]].concat(), BusKind::InProcess, &["bus.kind"]);
        check(&roles, &mains[1..], BusKind::Kafka, &["agents.parties"]);
        check(&roles[1..], &[], BusKind::Kafka, &[]);
        check(&[], &mains, BusKind::Kafka, &["agents.roles"]);
        check(&["loading", "cook"], &mains, BusKind::Kafka, &["agents.roles[1]"]);
        let bad = ["loading", "orchestrator@main", "cook@main", "loading@Main"];
        let keys = ["agents.parties[3]", "agents.parties[4]", "agents.parties[5]", "agents.parties[6]"];
        check(&roles, &[&mains[..], &bad].concat(), BusKind::Kafka, &keys);
    }
}
