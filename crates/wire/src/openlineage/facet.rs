//! Facets: what is said of a run, a job or a dataset, each after a schema of its own.

use serde_json::{Map, Value};

/// Who says so.
pub(super) const PRODUCER: &str = "https://dagwright.dev";

/// Where OpenLineage publishes the schemas of its facets.
const SCHEMAS: &str = "https://openlineage.io/spec/facets";

pub(super) const PROCESSING_ENGINE: Kind = Kind::of("processing_engine", "1-1-1", "ProcessingEngineRunFacet");
pub(super) const NOMINAL_TIME: Kind = Kind::of("nominalTime", "1-0-1", "NominalTimeRunFacet");
pub(super) const ERROR_MESSAGE: Kind = Kind::of("errorMessage", "1-0-1", "ErrorMessageRunFacet");
pub(super) const JOB_TYPE: Kind = Kind::of("jobType", "2-0-4", "JobTypeJobFacet");
pub(super) const DOCUMENTATION: Kind = Kind::of("documentation", "1-1-0", "DocumentationJobFacet");
pub(super) const OWNERSHIP: Kind = Kind::of("ownership", "1-0-1", "OwnershipJobFacet");
pub(super) const SQL: Kind = Kind::of("sql", "1-1-0", "SQLJobFacet");
pub(super) const SCHEMA: Kind = Kind::of("schema", "1-2-0", "SchemaDatasetFacet");
pub(super) const COLUMN_LINEAGE: Kind = Kind::of("columnLineage", "1-2-0", "ColumnLineageDatasetFacet");
pub(super) const INPUT_STATISTICS: Kind = Kind::of("inputStatistics", "1-0-0", "InputStatisticsInputDatasetFacet");
pub(super) const OUTPUT_STATISTICS: Kind = Kind::of("outputStatistics", "1-0-2", "OutputStatisticsOutputDatasetFacet");

/// A kind of facet, and the version of its schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    key: &'static str,
    version: &'static str,
    name: &'static str,
}

/// The facets of one subject, by their keys.
#[derive(Debug, Default)]
pub(super) struct Facets(Map<String, Value>);

// === impl Kind ===

impl Kind {
    const fn of(key: &'static str, version: &'static str, name: &'static str) -> Self {
        Self { key, version, name }
    }
}

// === impl Facets ===

impl Facets {
    /// Adds a facet, whose fields are those of `content`.
    pub(super) fn add(&mut self, kind: Kind, mut content: Value) {
        let Kind { key, version, name } = kind;
        content["_producer"] = PRODUCER.into();
        content["_schemaURL"] = format!("{SCHEMAS}/{version}/{name}.json#/$defs/{name}").into();
        self.0.insert(key.into(), content);
    }
}

impl From<Facets> for Value {
    fn from(facets: Facets) -> Self {
        Self::Object(facets.0)
    }
}
