//! A small case for the rules' tables: 1000 rows of `items` into the table `warehouse.items`.

use dagwright_model::{
    facts::{
        ColumnProfile, ColumnRef, Count, Identity, Privileges, SinkColumn, SinkInspection, SourceProfile, SplitProfile,
        TextCompression, TextProfile, TypedStep, WatermarkProfile,
    },
    id::Name,
    message::Facts,
    schema::Column,
    spec::{
        Airflow, Alerts, CsvOptions, Encoding, FileFormat, Goals, Incremental, Lag, Locator, Objective, OnMissing,
        OrderBy, Policy, Retries, Sink, SinkMode, Source, Spec, Step, WriteOptions,
    },
    units::ByteSize,
};

use crate::case::Case;

/// Makes a name.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

/// A spec with its facts, to be changed by a test.
pub(crate) struct Fixture {
    pub(crate) spec: Spec,
    pub(crate) facts: Facts,
    pub(crate) source: Name,
    pub(crate) sink: Name,
}

impl Fixture {
    /// A PostgreSQL table into another, new one.
    pub(crate) fn table() -> Self {
        let (source, sink) = (name("items"), name("warehouse"));
        let mut fixture = Self { spec: spec(&source, &sink), facts: Facts::default(), source, sink };
        let profile = profile(&fixture.source);
        fixture.facts.sources.insert(fixture.source.clone(), profile);
        fixture.facts.sinks.insert(fixture.sink.clone(), inspection(&fixture.sink));
        fixture
    }

    /// CSV files into a new PostgreSQL table.
    pub(crate) fn files(count: u64) -> Self {
        let mut fixture = Self::table();
        fixture.source_mut().locator = Locator::Uri("items-*.csv".into());
        let profile = fixture.profile_mut();
        profile.identity = Identity { scheme: "file".into(), ..Identity::default() };
        profile.format = Some(FileFormat::Csv);
        profile.files = count;
        profile.splits = vec![SplitProfile::Files { count }];
        profile.text = Some(TextProfile {
            encoding: Encoding::Utf8,
            compression: TextCompression::None,
            delimiter: Some(','),
            quote: Some('"'),
            escape: None,
            header: true,
            ragged: 0,
        });
        fixture
    }

    pub(crate) fn case(&self) -> Case<'_> {
        Case { spec: &self.spec, facts: &self.facts }
    }

    pub(crate) fn source_mut(&mut self) -> &mut Source {
        &mut self.spec.sources[&self.source]
    }

    pub(crate) fn sink_mut(&mut self) -> &mut Sink {
        &mut self.spec.sinks[&self.sink]
    }

    pub(crate) fn profile_mut(&mut self) -> &mut SourceProfile {
        self.facts.sources.get_mut(&self.source).expect("observed")
    }

    pub(crate) fn inspection_mut(&mut self) -> &mut SinkInspection {
        self.facts.sinks.get_mut(&self.sink).expect("observed")
    }

    pub(crate) fn column_mut(&mut self, column: &str) -> &mut ColumnProfile {
        self.profile_mut().columns.iter_mut().find(|seen| seen.column.name == column).expect("a column")
    }

    pub(crate) fn sink_column(&self, column: &str) -> &SinkColumn {
        self.facts.sinks[&self.sink].columns.iter().find(|known| known.column.name == column).expect("a column")
    }

    pub(crate) fn sink_column_mut(&mut self, column: &str) -> &mut SinkColumn {
        self.inspection_mut().columns.iter_mut().find(|known| known.column.name == column).expect("a column")
    }

    /// Reads incrementally.
    pub(crate) fn incremental(&mut self, cursor: &str, lag: Option<&str>) {
        let lag = lag.map(|text| Lag::Time(text.parse().expect("a span")));
        self.source_mut().incremental = Some(Incremental { cursor: cursor.into(), initial_value: None, lag });
    }

    /// Upserts by these columns.
    pub(crate) fn upsert(&mut self, key: &[&str]) {
        let sink = self.sink_mut();
        sink.mode = SinkMode::Upsert;
        sink.key = key.iter().map(ToString::to_string).collect();
    }

    /// Keeps the largest by this column of each key.
    pub(crate) fn dedupe(&mut self, column: &str) {
        self.sink_mut().dedupe = vec![OrderBy { column: column.into(), descending: true }];
    }

    /// Lets the sink exist with these of the source's columns.
    pub(crate) fn existing_sink(&mut self, columns: &[&str]) {
        let columns = columns.iter().map(|column| SinkColumn {
            column: self.column_mut(column).column.clone(),
            has_default: false,
            generated: false,
        });
        let columns = columns.collect();
        let inspection = self.inspection_mut();
        inspection.exists = true;
        inspection.columns = columns;
        inspection.rows = Some(1000);
    }

    /// Adds a step over the source, and lets the sinks write it.
    pub(crate) fn step(&mut self, step: &str, columns: &[&str], row_local: bool) {
        let step = name(step);
        let typed = columns.iter().map(|column| self.column_mut(column).column.clone()).collect();
        let origin =
            |column: &&str| (column.to_string(), ColumnRef { source: self.source.clone(), column: column.to_string() });
        self.spec.transform.push(Step { name: step.clone(), sql: format!("SELECT {} FROM items", columns.join(", ")) });
        self.facts.typing.steps.push(TypedStep {
            name: step.clone(),
            columns: typed,
            inputs: vec![self.source.clone()],
            row_local,
            blocking: !row_local,
            lineage: columns.iter().map(origin).map(|(column, origin)| (column, vec![origin])).collect(),
            passthrough: columns.iter().map(origin).collect(),
        });
        for sink in self.spec.sinks.values_mut() {
            sink.from = step.clone();
        }
    }

    /// Adds another sink like the first.
    pub(crate) fn second_sink(&mut self, sink: &str) {
        let sink = name(sink);
        let mut copy = self.spec.sinks[&self.sink].clone();
        if let Locator::Table { table, .. } = &mut copy.locator {
            table.table = sink.to_string();
        }
        self.spec.sinks.insert(sink.clone(), copy);
        self.facts.sinks.insert(sink.clone(), inspection(&sink));
    }
}

fn spec(source: &Name, sink: &Name) -> Spec {
    let table =
        |table: &str| Locator::Table { connection: name("db"), table: table.to_string().try_into().expect("a table") };
    let read = Source {
        locator: table("shop.items"),
        format: None,
        csv: CsvOptions::default(),
        incremental: None,
        columns: Default::default(),
        on_missing: OnMissing::Fail,
    };
    let write = Sink {
        locator: table("warehouse.items"),
        from: source.clone(),
        format: None,
        mode: SinkMode::Append,
        key: Vec::new(),
        dedupe: Vec::new(),
        min_rows: 1,
        meta_columns: true,
        write: WriteOptions::default(),
    };
    Spec {
        pipeline: name("items"),
        namespace: None,
        owner: None,
        description: None,
        tags: Vec::new(),
        params: Default::default(),
        sources: [(source.clone(), read)].into_iter().collect(),
        transform: Vec::new(),
        sinks: [(sink.clone(), write)].into_iter().collect(),
        quality: Vec::new(),
        schedule: None,
        goals: Goals { optimize: Objective::Cost, memory_max: ByteSize(512 << 20), deadline: None },
        policy: Policy::default(),
        retries: Retries::default(),
        airflow: Airflow::default(),
        alerts: Alerts::default(),
    }
}

fn identity() -> Identity {
    Identity {
        scheme: "postgresql".into(),
        host: Some("db.example".into()),
        port: Some(5432),
        database: Some("shop".into()),
    }
}

fn profile(source: &Name) -> SourceProfile {
    let column = |column: &str, data_type: &str, nullable: bool| ColumnProfile {
        column: Column { name: column.into(), data_type: data_type.parse().expect("a type"), nullable },
        confidence: 100,
        nulls: 0,
        distinct: None,
        min: None,
        max: None,
        misfits: Default::default(),
        classified: false,
    };
    SourceProfile {
        source: source.clone(),
        identity: identity(),
        exists: true,
        format: None,
        text: None,
        columns: vec![
            column("id", "int64", false),
            column("seen_at", "timestamptz", false),
            column("amount", "int64", true),
            column("label", "string", true),
        ],
        rows: Count { value: 1000, exact: true },
        bytes: Count { value: 100_000, exact: false },
        files: 0,
        rows_sampled: 1000,
        candidate_keys: vec![vec!["id".into()]],
        key_checks: Vec::new(),
        watermarks: vec![WatermarkProfile { column: "seen_at".into(), nulls: 0, regressions: 0, indexed: true }],
        splits: vec![SplitProfile::KeyRange { column: "id".into(), min: "1".into(), max: "1000".into() }],
        fingerprint: "f".into(),
    }
}

fn inspection(sink: &Name) -> SinkInspection {
    SinkInspection {
        sink: sink.clone(),
        identity: identity(),
        exists: false,
        columns: Vec::new(),
        unique_keys: Vec::new(),
        rows: None,
        privileges: Privileges { create: true, insert: true, update: true, delete: true, alter: true },
        bytes_free: None,
        referenced_by: Vec::new(),
    }
}
