//! What each connector can do: the one table that agents, validation and documentation read.

use crate::spec::SinkMode;

/// What a connector can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connector {
    /// Its name, in docs and metrics.
    pub name: &'static str,
    /// The URI schemes it answers to, as written in specs and connection URLs.
    pub schemes: &'static [&'static str],
    /// What it can do as a source; `None` cannot be read.
    pub source: Option<SourceAbilities>,
    /// What it can do as a sink; `None` cannot be written.
    pub sink: Option<SinkAbilities>,
}

/// What a connector can do as a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAbilities {
    /// Whether it is made of files: formats, globs, one partition a file.
    pub files: bool,
    /// Whether it evaluates predicates and projections itself.
    pub pushdown: bool,
    /// Whether it can be read by ranges of a key.
    pub key_ranges: bool,
}

/// What a connector can do as a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkAbilities {
    /// The modes it supports.
    pub modes: &'static [SinkMode],
    /// Whether many partitions can become visible in one instant.
    pub atomic_partitions: bool,
}

const FILE_SOURCE: SourceAbilities = SourceAbilities { files: true, pushdown: false, key_ranges: false };
const FILE_SINK: SinkAbilities =
    SinkAbilities { modes: &[SinkMode::Append, SinkMode::Replace], atomic_partitions: true };

/// Every connector.
pub const CONNECTORS: &[Connector] = &[
    Connector { name: "local", schemes: &["file"], source: Some(FILE_SOURCE), sink: Some(FILE_SINK) },
    Connector { name: "s3", schemes: &["s3"], source: Some(FILE_SOURCE), sink: Some(FILE_SINK) },
    Connector { name: "gcs", schemes: &["gs"], source: Some(FILE_SOURCE), sink: Some(FILE_SINK) },
    Connector { name: "azure", schemes: &["az"], source: Some(FILE_SOURCE), sink: Some(FILE_SINK) },
    Connector { name: "http", schemes: &["http", "https"], source: Some(FILE_SOURCE), sink: None },
    Connector {
        name: "postgres",
        schemes: &["postgresql", "postgres"],
        source: Some(SourceAbilities { files: false, pushdown: true, key_ranges: true }),
        sink: Some(SinkAbilities {
            modes: &[SinkMode::Append, SinkMode::Replace, SinkMode::Upsert],
            atomic_partitions: true,
        }),
    },
];

/// Returns the connector that answers to a URI scheme.
#[must_use]
pub fn by_scheme(scheme: &str) -> Option<&'static Connector> {
    CONNECTORS.iter().find(|connector| connector.schemes.contains(&scheme))
}
