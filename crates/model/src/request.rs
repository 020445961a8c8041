//! What a requester sends: the data of `dev.dagwright.pipeline.requested.v1`, before ingress accepts it.
//!
//! Everything here is untrusted. Deliberately absent: who sent it and whether they may; that is ingress's to know.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{id::Name, record::Purpose, spec::Interval};

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is asked for.
    #[serde(default)]
    pub action: Action,
    /// The pipeline's spec: an object as in a spec file, or its text. Without one, `pipeline` names an applied one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = ["object", "string", "null"]))]
    pub spec: Option<Value>,
    /// The `dag_id` of a pipeline that is known already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// With `apply`: the spec's revision; one that is not above the applied one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What the run is told.
    #[serde(default)]
    pub run: RunWishes,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Negotiate and run once.
    #[default]
    Run,
    /// Make the spec the pipeline's, as a new revision.
    Apply,
    /// Run for an interval of the past; committed cursors neither bound the reading nor move.
    Backfill,
    /// No runs from now on, until a revision is applied.
    Pause,
    /// Forget the pipeline; its records and its data stay.
    Delete,
}

/// What a run is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunWishes {
    /// The data interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Values of the spec's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Name, Value>,
}

// === impl Request ===

impl Request {
    /// Returns the JSON Schema (draft 2020-12).
    #[must_use]
    pub fn json_schema() -> Value {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Self>();
        schema.insert("$id".into(), "https://dagwright.dev/schemas/pipeline.requested.v1.json".into());
        schema.to_value()
    }
}

// === impl Action ===

impl Action {
    /// Every action.
    pub const ALL: &'static [Self] = &[Self::Run, Self::Apply, Self::Backfill, Self::Pause, Self::Delete];

    /// Returns its name in a request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Apply => "apply",
            Self::Backfill => "backfill",
            Self::Pause => "pause",
            Self::Delete => "delete",
        }
    }

    /// Returns what the ledger calls it.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Run | Self::Backfill => Purpose::Run,
            Self::Apply => Purpose::Apply,
            Self::Pause => Purpose::Pause,
            Self::Delete => Purpose::Delete,
        }
    }
}
