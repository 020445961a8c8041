//! Which column of a sink is made from which columns of sources, as the typed steps say.
//!
//! Only what a column's value is computed from is told (`DIRECT`). What a join or a filter looks at decides which rows there
//! are; the plan does not keep that by column.

use dagwright_model::{facts::ColumnRef, task::SinkWrite};
use serde_json::{Map, Value, json};

use super::{Flow, RunEvent};

// === impl RunEvent ===

impl RunEvent<'_> {
    /// Returns the lineage of a sink's columns; `None` where it is not known any more.
    pub(super) fn column_lineage(&self, flow: &Flow<'_>, sink: &SinkWrite) -> Option<Value> {
        let mut fields = Map::new();
        let is_source = flow.sources.iter().any(|(source, _)| **source == sink.relation);
        let step = self.known.steps.get(&sink.relation);
        if !is_source && step.is_none() {
            return None;
        }
        for column in &sink.columns {
            let from: Vec<(ColumnRef, bool)> = match step.filter(|_| !is_source) {
                Some(step) => {
                    let unchanged = step.passthrough.get(&column.name);
                    let origins = step.lineage.get(&column.name).map_or(&[][..], Vec::as_slice);
                    origins.iter().map(|origin| (origin.clone(), unchanged == Some(origin))).collect()
                }
                // What is written as it was read.
                None => vec![(ColumnRef { source: sink.relation.clone(), column: column.name.clone() }, true)],
            };
            let from: Vec<_> = from.iter().filter_map(|(origin, same)| self.field(flow, origin, *same)).collect();
            // A constant, or a count of rows, is made from no column.
            if !from.is_empty() {
                fields.insert(column.name.clone(), json!({ "inputFields": from }));
            }
        }
        Some(json!({ "fields": fields }))
    }

    fn field(&self, flow: &Flow<'_>, origin: &ColumnRef, is_unchanged: bool) -> Option<Value> {
        let (source, read) = flow.sources.iter().find(|(source, _)| **source == origin.source)?;
        let dataset = self.source(source, read);
        let is_masked = read.masks.contains_key(&origin.column);
        let subtype = if is_unchanged && !is_masked { "IDENTITY" } else { "TRANSFORMATION" };
        let transformation = json!({ "type": "DIRECT", "subtype": subtype, "masking": is_masked });
        Some(json!({
            "namespace": dataset.namespace, "name": dataset.name, "field": origin.column,
            "transformations": [transformation],
        }))
    }
}
