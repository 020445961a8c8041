//! What stands on the agents topic: letters between agents of different processes, and the word that an agent is there.
//!
//! Hosts name processes, parties name agents: which process speaks for a party is nobody's business but the post's, so
//! hosts stand on letters and never in a transcript.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::{Envelope, Party};

/// The longest name of a host or incarnation, in bytes.
pub const HOST_LENGTH_MAX: usize = 256;

/// A record of the agents topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Post {
    /// A message, with the processes it is from and for.
    Letter(Letter),
    /// An agent is there, or about to go.
    Presence(Presence),
}

/// A message, with the processes it is from and for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    /// The process that sends it; an answer is for it.
    pub from_host: String,
    /// The process that is to read it.
    pub to_host: String,
    /// What it says.
    pub envelope: Envelope,
}

/// Says that an agent is there: when it starts, then every two seconds; one that was not heard of for ten is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// The agent.
    pub party: Party,
    /// The process it runs in, by a name that no other process with that agent has: 1 to 256 bytes.
    pub host: String,
    /// Another one whenever the agent is started anew and remembers nothing: 1 to 256 bytes.
    pub incarnation: String,
    /// It takes part no longer.
    #[serde(default)]
    pub leaving: bool,
}

// === impl Post ===

impl Post {
    /// Returns the JSON Schema (draft 2020-12), its parts under `$defs`. Specs, questions and facts are objects in it, no
    /// more.
    #[must_use]
    pub fn json_schema() -> Value {
        let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Self>();
        schema.insert("$id".into(), "https://dagwright.dev/schemas/agents.v1.json".into());
        schema.to_value()
    }
}
