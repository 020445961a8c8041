//! The JSON Schemas of what events say, one for each kind.
//!
//! They are the schema of [`EventData`] with only what an event of the kind may say, and with all that each of them
//! does say required. Further properties are allowed: a reader must not choke on what a later version adds.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{EventData, EventKind};

/// What every event says.
const ALWAYS: [&str; 2] = ["pipeline", "request_id"];

/// What an event of a task says in addition to one of its run.
const OF_TASKS: [&str; 4] = ["dag_run_id", "task_id", "map_index", "try_number"];

// === impl EventKind ===

impl EventKind {
    /// Returns the JSON Schema (draft 2020-12) of the data of such events; its `$id` is [`EventKind::schema_uri`].
    #[must_use]
    pub fn json_schema(self) -> Value {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let whole = settings.into_generator().into_root_schema_for::<EventData>().to_value();
        let required = self.required();
        let mut said = required.clone();
        said.extend(self.optional());
        let properties = said.into_iter().map(|name| (name.to_owned(), property(&whole, name)));
        let properties: serde_json::Map<_, _> = properties.collect();
        json!({
            "$schema": whole["$schema"],
            "$id": self.schema_uri(),
            "title": self.type_name(),
            "type": "object",
            "required": required,
            "properties": properties,
        })
    }

    /// Returns the schemas of all kinds in one document, by the kinds' names in `$defs`; each is found there by its `$id`,
    /// which is what an event's `dataschema` says. By itself the document is the schema of the data of any event.
    #[must_use]
    pub fn json_schemas() -> Value {
        let schemas = Self::ALL.iter().map(|kind| (kind.as_str().to_owned(), kind.json_schema()));
        let any: Vec<_> = Self::ALL.iter().map(|kind| json!({ "$ref": kind.schema_uri() })).collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://dagwright.dev/schemas/events.v1.json",
            "title": "What events say",
            "anyOf": any,
            "$defs": schemas.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// Returns the properties that every event of this kind has.
    fn required(self) -> Vec<&'static str> {
        let mut names = ALWAYS.to_vec();
        match self {
            Self::RequestAccepted | Self::RequestRejected | Self::PlanDeadlocked => {}
            Self::PlanSealed | Self::DagCompiled => names.push("plan_hash"),
            Self::ApprovalNeeded => names.extend(["plan_hash", "schema_change"]),
            Self::DagDeployed | Self::DagRemoved => names.push("revision"),
            Self::RunStarted => names.extend(["plan_hash", "run_id"]),
            Self::RunSucceeded | Self::RunFailed | Self::RunCancelled => {
                names.extend(["plan_hash", "run_id", "rows"]);
            }
            Self::RemedyApplied => names.extend(["plan_hash", "run_id"]),
            Self::TaskStarted => {
                names.extend(["plan_hash", "run_id"]);
                names.extend(OF_TASKS);
            }
            Self::TaskSucceeded | Self::TaskFailed => {
                names.extend(["plan_hash", "run_id", "rows"]);
                names.extend(OF_TASKS);
            }
        }
        names
    }

    /// Returns the properties that some events of this kind have.
    fn optional(self) -> Vec<&'static str> {
        match self {
            Self::RequestAccepted => vec!["identity", "revision"],
            Self::RequestRejected => vec!["identity", "plan_hash", "run_id", "error"],
            // After a setback there was a plan.
            Self::PlanDeadlocked => vec!["plan_hash", "error"],
            Self::TaskFailed | Self::RunFailed | Self::RunCancelled => vec!["error"],
            Self::DagDeployed | Self::DagRemoved => vec!["plan_hash"],
            Self::ApprovalNeeded => vec!["drift"],
            Self::PlanSealed
            | Self::DagCompiled
            | Self::RunStarted
            | Self::TaskStarted
            | Self::TaskSucceeded
            | Self::RunSucceeded => Vec::new(),
            // Of a task that is tried again, of a whole run that failed, or of one that goes on by another plan.
            Self::RemedyApplied => [&OF_TASKS[..], &["error", "replan"]].concat(),
        }
    }
}

/// Returns the schema of a property, without the null that only says that other kinds have none: events leave out
/// what they do not say.
fn property(whole: &Value, name: &str) -> Value {
    let mut property = whole["properties"][name].clone();
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            property["type"] = one.clone();
        }
    }
    if let Some(Value::Array(branches)) = property.get_mut("anyOf") {
        branches.retain(|branch| branch["type"] != "null");
        if let [Value::Object(one)] = branches.as_slice() {
            let (mut one, about) = (one.clone(), property["description"].take());
            one.insert("description".into(), about);
            property = one.into();
        }
    }
    if let Some(fields) = property.as_object_mut() {
        fields.remove("default");
    }
    property
}
