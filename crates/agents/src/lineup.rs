//! Who takes part in negotiations, who of them runs here, and how to reach the others.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use dagwright_bus::Bus;
use dagwright_model::{
    id::Name,
    message::{Party, Role, SOLE_INSTANCE},
};

/// Who takes part in negotiations, and who of them runs here.
#[derive(Clone, Debug)]
pub struct Lineup {
    /// The roles whose agents run here; with [`Role::Orchestrator`], negotiations can be asked for here.
    pub roles: BTreeSet<Role>,
    /// The name of the agents that run here.
    pub instance: Name,
    /// Everyone who takes part in the negotiations that are led here, wherever they run.
    pub parties: BTreeSet<Party>,
    /// The way to other processes; `None` where everybody is here.
    pub far: Option<Far>,
}

/// The way to other processes.
#[derive(Clone)]
pub struct Far {
    /// What carries letters there and back.
    pub bus: Arc<dyn Bus>,
    /// Names this process among those that use the bus; the same after a restart.
    pub host: String,
    /// Names this life of the process.
    pub incarnation: String,
    /// How long a negotiation waits for an agent that no process runs.
    pub patience: Duration,
}

// === impl Lineup ===

impl Lineup {
    /// Returns the parties that run here, whoever's negotiations they take part in.
    #[must_use]
    pub fn here(&self) -> BTreeSet<Party> {
        let participants = Role::PARTICIPANTS.into_iter().filter(|role| self.roles.contains(role));
        participants.map(|role| Party { role, instance: self.instance.clone() }).collect()
    }

    /// Tells whether negotiations are led here.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.roles.contains(&Role::Orchestrator)
    }

    /// Tells whether nobody of another process is needed, and nobody there needs whoever is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.leads() && self.parties.is_subset(&self.here())
    }
}

impl Default for Lineup {
    /// One agent of each role, all of them here.
    fn default() -> Self {
        Self {
            roles: [Role::Orchestrator].into_iter().chain(Role::PARTICIPANTS).collect(),
            instance: Name::new(SOLE_INSTANCE).expect("a valid name"),
            parties: Role::PARTICIPANTS.map(Party::sole).into(),
            far: None,
        }
    }
}

// === impl Far ===

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Far").field("host", &self.host).field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}
