//! A spec and the facts about it, with the questions rules ask of both.
//!
//! Invariant: a [`Case`] only answers from spec and facts, and equal inputs give equal answers in equal order.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::code::Code;
use dagwright_model::{
    catalogue::{self, Connector},
    facts::{ColumnProfile, Identity, ProbeRequest, SinkInspection, SourceProfile, TypedStep, TypingRequest},
    id::Name,
    message::{Facts, Question},
    schema::Column,
    spec::{FileFormat, Locator, OnMissing, ParamType, Sink, SinkMode, Source, Spec},
    task::{Problem, SinkRef},
};

/// The binds that every step may use besides the parameters.
pub const INTERVAL_BINDS: [&str; 2] = ["data_interval_start", "data_interval_end"];

/// A spec and the facts about it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What is asked for.
    pub spec: &'a Spec,
    /// What is known.
    pub facts: &'a Facts,
}

/// Where a column of a relation comes from, unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// The source.
    pub source: &'a Name,
    /// What was seen of the column there.
    pub profile: &'a ColumnProfile,
    /// Whether every row of the source arrives, so that what was seen there holds here too.
    pub every_row: bool,
}

// === questions to the world ===

/// Returns what extraction is asked about the sources.
#[must_use]
pub fn source_questions(spec: &Spec) -> Vec<Question> {
    let keys: Vec<Vec<String>> = {
        let distinct: BTreeSet<_> = spec.sinks.values().filter(|sink| !sink.key.is_empty()).map(|s| &s.key).collect();
        distinct.into_iter().cloned().collect()
    };
    let ask = |(name, source): (&Name, &Source)| {
        Question::Probe(ProbeRequest::Source { name: name.clone(), source: source.clone(), keys: keys.clone() })
    };
    spec.sources.iter().map(ask).collect()
}

/// Returns what loading is asked about the sinks.
#[must_use]
pub fn sink_questions(spec: &Spec) -> Vec<Question> {
    let ask = |(name, sink): (&Name, &Sink)| {
        Question::Probe(ProbeRequest::Sink {
            name: name.clone(),
            locator: sink.locator.clone(),
            format: sink.format,
            mode: sink.mode,
        })
    };
    spec.sinks.iter().map(ask).collect()
}

/// Returns what transformation is asked about the steps, once the sources are known.
#[must_use]
pub fn typing_question(spec: &Spec, facts: &Facts) -> Question {
    let case = Case { spec, facts };
    let incremental =
        spec.sources.iter().filter_map(|(name, source)| Some((name.clone(), source.incremental.clone()?)));
    Question::Type(TypingRequest {
        sources: spec.sources.keys().map(|name| (name.clone(), case.source_columns(name))).collect(),
        steps: spec.transform.clone(),
        binds: case.binds(),
        gates: spec.quality.iter().map(|gate| (gate.name.clone(), gate.on.clone(), gate.rule.clone())).collect(),
        outputs: spec.sinks.values().map(|sink| sink.from.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
        incremental: incremental.collect(),
    })
}

// === impl Case ===

impl<'a> Case<'a> {
    /// Returns a source of the spec.
    ///
    /// # Panics
    /// When `name` is not a source: names come from the spec itself.
    #[must_use]
    pub fn source(&self, name: &Name) -> &'a Source {
        &self.spec.sources[name]
    }

    /// Returns the profile of a source, once it was observed.
    #[must_use]
    pub fn profile(&self, name: &Name) -> Option<&'a SourceProfile> {
        self.facts.sources.get(name)
    }

    /// Returns the inspection of a sink, once it was observed.
    #[must_use]
    pub fn inspection(&self, name: &Name) -> Option<&'a SinkInspection> {
        self.facts.sinks.get(name)
    }

    /// Returns why the sources cannot be read at all: those that are missing although they must not be.
    #[must_use]
    pub fn missing(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, source) in &self.spec.sources {
            if self.profile(name).is_none_or(|profile| profile.exists) {
                continue;
            }
            let declared = !source.columns.is_empty() && source.columns.values().all(|c| c.data_type.is_some());
            // A path that holds an interval need not be there yet; then the declared columns stand for it.
            let later = matches!(&source.locator, Locator::Uri(uri) if uri.contains("{data_interval_"));
            let hint = match source.on_missing {
                _ if declared && later => continue,
                OnMissing::Skip if declared => continue,
                OnMissing::Skip => format!("declare the type of every column under sources.{name}.columns"),
                OnMissing::Fail => format!(
                    "correct sources.{name}, or set on_missing: skip with declared column types if it may be absent"
                ),
            };
            problems.push(Problem {
                code: Code::SourceMissing,
                subject: name.to_string(),
                message: format!("there is nothing at {}", source.locator),
                hint,
            });
        }
        problems
    }

    /// Returns the columns of a source as they will be typed on reading.
    ///
    /// Text formats promise no value: that none was missing in the sample says nothing of tomorrow's file.
    #[must_use]
    pub fn source_columns(&self, name: &Name) -> Vec<Column> {
        let source = self.source(name);
        let Some(profile) = self.profile(name).filter(|profile| profile.exists) else {
            let declared = |(column, spec): (&String, &dagwright_model::spec::ColumnSpec)| {
                Some(Column { name: column.clone(), data_type: spec.data_type.clone()?, nullable: true })
            };
            return source.columns.iter().filter_map(declared).collect();
        };
        let is_text = matches!(profile.format, Some(FileFormat::Csv | FileFormat::Ndjson));
        let typed = |seen: &ColumnProfile| Column { nullable: seen.column.nullable || is_text, ..seen.column.clone() };
        profile.columns.iter().map(typed).collect()
    }

    /// Returns the typed step of that name.
    #[must_use]
    pub fn step(&self, name: &Name) -> Option<&'a TypedStep> {
        self.facts.typing.steps.iter().find(|step| step.name == *name)
    }

    /// Returns the columns of a source or step.
    #[must_use]
    pub fn columns(&self, relation: &Name) -> Vec<Column> {
        match self.step(relation) {
            Some(step) => step.columns.clone(),
            None if self.spec.sources.contains_key(relation) => self.source_columns(relation),
            None => Vec::new(),
        }
    }

    /// Returns the columns of a source that anything needs, in the source's order.
    #[must_use]
    pub fn needed_columns(&self, source: &Name) -> Vec<Column> {
        let all = self.source_columns(source);
        let Some(pushdown) = self.facts.typing.pushdown.get(source) else { return all };
        let wanted: BTreeSet<_> = pushdown.columns.iter().map(String::as_str).collect();
        let needed: Vec<_> = all.iter().filter(|column| wanted.contains(column.name.as_str())).cloned().collect();
        // `COUNT(*)` needs rows but no column; one column carries them.
        if needed.is_empty() { all.into_iter().take(1).collect() } else { needed }
    }

    /// Returns the predicates that hold for every row of a source that anything needs.
    #[must_use]
    pub fn filters(&self, source: &Name) -> &'a [String] {
        self.facts.typing.pushdown.get(source).map_or(&[], |pushdown| &pushdown.filters)
    }

    /// Returns the sources that a relation is made from.
    #[must_use]
    pub fn origins(&self, relation: &Name) -> BTreeSet<&'a Name> {
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![relation.as_str()];
        while let Some(next) = open.pop() {
            if !seen.insert(next) {
                continue;
            }
            match self.facts.typing.steps.iter().find(|step| step.name.as_str() == next) {
                Some(step) => open.extend(step.inputs.iter().map(Name::as_str)),
                None => found.extend(self.spec.sources.get_key_value(next).map(|(name, _)| name)),
            }
        }
        found
    }

    /// Returns the sinks that a source feeds, as the spec orders them.
    #[must_use]
    pub fn sinks_of(&self, source: &Name) -> Vec<SinkRef> {
        let fed = self.spec.sinks.iter().filter(|(_, sink)| self.origins(&sink.from).contains(source));
        fed.map(|(name, sink)| SinkRef { name: name.clone(), locator: sink.locator.clone() }).collect()
    }

    /// Returns the one source a relation is made from row by row, if every step on the way is row-local.
    #[must_use]
    pub fn row_local_source(&self, relation: &Name) -> Option<Name> {
        let mut current = relation.clone();
        // A step reads only earlier ones, so the way down is no longer than the steps are many.
        for _ in 0..=self.spec.transform.len() {
            let Some(step) = self.step(&current) else {
                return self.spec.sources.contains_key(&current).then_some(current);
            };
            match &step.inputs[..] {
                [only] if step.row_local => current = only.clone(),
                _ => return None,
            }
        }
        None
    }

    /// Returns where a relation's column comes from, when it is passed through unchanged.
    #[must_use]
    pub fn trace(&self, relation: &Name, column: &str) -> Option<Traced<'a>> {
        let (source, column) = match self.step(relation) {
            Some(step) => {
                let origin = step.passthrough.get(column)?;
                (&origin.source, origin.column.as_str())
            }
            None => (self.spec.sources.get_key_value(relation)?.0, column),
        };
        let profile = self.profile(source)?.columns.iter().find(|seen| seen.column.name == column)?;
        let every_row = self.filters(source).is_empty() && self.row_local_source(relation).as_ref() == Some(source);
        Some(Traced { source, profile, every_row })
    }

    /// Returns the connector of an observed system.
    #[must_use]
    pub fn connector(identity: &Identity) -> Option<&'static Connector> {
        catalogue::by_scheme(&identity.scheme)
    }

    /// Returns the types of everything SQL may bind.
    #[must_use]
    pub fn binds(&self) -> BTreeMap<String, ParamType> {
        let params = self.spec.params.iter().map(|(name, param)| (name.to_string(), param.param_type));
        params.chain(INTERVAL_BINDS.map(|name| (name.to_string(), ParamType::Timestamp))).collect()
    }

    /// Tells whether a sink is new or all of its content goes, so that no old schema binds the new rows.
    #[must_use]
    pub fn writes_afresh(&self, name: &Name) -> bool {
        let sink = &self.spec.sinks[name];
        let exists = self.inspection(name).is_some_and(|seen| seen.exists);
        // A table keeps its schema, grants and indexes when its rows are replaced; files do not.
        !exists || (sink.mode == SinkMode::Replace && matches!(sink.locator, Locator::Uri(_)))
    }
}
