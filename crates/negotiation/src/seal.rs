//! The winning combination as a plan: tasks complete in every field, in an order that respects what they need.
//!
//! | placement | tasks |
//! |---|---|
//! | fused | `load_<sink>` (or `load`, for several sinks): from the sources to the sinks; after a setback also `cleanup` |
//! | mapped | `split_<source>`, `load_<sink>` once for each part, `publish_<sink>`, `cleanup` |
//! | staged | `extract_<source>`, `transform`, `load_<sink>`, `cleanup` |

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    facts::Identity,
    id::{Name, TaskId},
    message::{Alternative, Cost, Placement, Read, Role, Strategy, Write},
    plan::{PLAN_VERSION, Plan, PlannedTask},
    schema::Column,
    spec::{FileFormat, GateRule, Locator, ParamType, QualityGate, SinkMode, Step},
    task::{
        CursorCommit, IncrementalRead, Input, Move, Output, Publish, SinkWrite, SourceRead, Split, TASK_VERSION,
        TaskSpec, Work,
    },
    units::{Ratio, Span},
};

use crate::{case::Case, search::Combination};

/// The longest one try may take when the request sets no deadline: longer than any honest task on one machine.
const TIMEOUT: Span = Span(6 * 3_600_000);

/// The longest that clearing up may take; what it leaves is cleared by the next run.
const CLEANUP_TIMEOUT: Span = Span(10 * 60_000);

/// The share that `lossy_cast: quarantine` and `ragged: quarantine` may reject: as for gates that say nothing.
const MAX_REJECTED: Ratio = Ratio(10_000);

/// Makes the plan of a combination.
#[must_use]
pub fn seal(case: Case<'_>, combination: &Combination) -> Plan {
    let draft = Draft { case, chosen: &combination.chosen };
    let tasks = match combination.placement {
        Placement::Fused => draft.fused(combination.cost),
        Placement::Mapped => draft.mapped(combination.cost),
        Placement::Staged => draft.staged(),
    };
    let spec = case.spec;
    let plan = Plan {
        version: PLAN_VERSION,
        pipeline: spec.pipeline.clone(),
        dag_id: spec.dag_id(),
        spec_hash: spec.hash(),
        owner: spec.owner.clone(),
        description: spec.description.clone(),
        tags: spec.tags.clone(),
        params: spec.params.clone(),
        schedule: spec.schedule.clone(),
        deadline: spec.goals.deadline,
        policy: spec.policy,
        retries: spec.retries,
        airflow: spec.airflow.clone(),
        alerts: spec.alerts.clone(),
        connections: draft.connections(),
        tasks,
        choices: combination.choices.clone(),
        schema_change: combination.chosen.iter().map(|offer| offer.schema_change).max().unwrap_or_default(),
        cost: combination.cost,
    };
    debug_assert_eq!(unprovided(&plan), Vec::<String>::new(), "N4: no task needs what no predecessor provides");
    plan
}

/// Returns everything that a task needs and no task before it provides (N4); empty for every sealed plan.
#[must_use]
pub fn unprovided(plan: &Plan) -> Vec<String> {
    let mut missing = Vec::new();
    let mut staged: BTreeMap<&TaskId, BTreeSet<&Name>> = BTreeMap::new();
    for task in &plan.tasks {
        let id = &task.spec.id;
        let known = |other: &TaskId| staged.contains_key(other);
        let named = task.after.iter().chain(&task.mapped_over);
        missing.extend(named.filter(|other| !known(other)).map(|other| format!("{id} follows {other}")));
        let mut at_hand: BTreeSet<&Name> =
            task.after.iter().filter_map(|before| staged.get(before)).flatten().copied().collect();
        match &task.spec.work {
            Work::Move(work) => {
                for (relation, input) in &work.inputs {
                    if matches!(input, Input::Staged { .. }) && !at_hand.contains(relation) {
                        missing.push(format!("{id} reads {relation}"));
                    }
                }
                at_hand.extend(work.outputs.iter().filter_map(|output| match output {
                    Output::Staged { relation } => Some(relation),
                    Output::Sink(_) => None,
                }));
            }
            Work::Publish(publish) if !known(&publish.staged_by) => {
                missing.push(format!("{id} publishes what {} staged", publish.staged_by));
            }
            Work::Publish(_) | Work::Split(_) | Work::Cleanup => {}
        }
        staged.insert(id, at_hand);
    }
    missing
}

/// A plan in the making.
struct Draft<'a> {
    case: Case<'a>,
    chosen: &'a [Alternative],
}

// === impl Draft ===

impl Draft<'_> {
    fn fused(&self, cost: Cost) -> Vec<PlannedTask> {
        let sources = self.case.spec.sources.keys();
        let inputs = sources.map(|name| (name.clone(), Input::Source(self.source_read(name, false)))).collect();
        let work = self.whole_move(inputs);
        let tasks = vec![self.task(Role::Loading, self.load_id(), Work::Move(work), Vec::new(), cost)];
        // The run of an earlier version may have left what it staged.
        if self.case.facts.setbacks.is_empty() { tasks } else { self.with_cleanup(tasks) }
    }

    fn mapped(&self, cost: Cost) -> Vec<PlannedTask> {
        let source = self.case.spec.sources.keys().next().expect("a spec has a source");
        let parts = self.read(source).and_then(|read| read.parts.clone()).expect("a mapped plan reads in parts");
        let split_id = TaskId(format!("split_{source}"));
        let split = Split {
            source: source.clone(),
            read: self.source_read(source, false),
            by: parts.by,
            partitions_max: parts.count_max,
        };
        let mut tasks = vec![self.task(
            Role::Extraction,
            split_id.clone(),
            Work::Split(split),
            Vec::new(),
            Cost { confidence: cost.confidence, ..Cost::default() },
        )];
        let input = Input::Source(self.source_read(source, true));
        let work = self.whole_move([(source.clone(), input)].into_iter().collect());
        let load_id = self.load_id();
        let mut load = self.task(Role::Loading, load_id.clone(), Work::Move(work), vec![split_id.clone()], cost);
        load.mapped_over = Some(split_id);
        tasks.push(load);
        for name in self.case.spec.sinks.keys() {
            let publish = Publish { sink: self.sink_write(name), staged_by: load_id.clone() };
            let id = TaskId(format!("publish_{name}"));
            let cost = self.cost_of(Role::Loading, name.as_str());
            tasks.push(self.task(Role::Loading, id, Work::Publish(publish), vec![load_id.clone()], cost));
        }
        self.with_cleanup(tasks)
    }

    fn staged(&self) -> Vec<PlannedTask> {
        let spec = self.case.spec;
        let mut tasks = Vec::new();
        let extract_id = |source: &Name| TaskId(format!("extract_{source}"));
        for name in spec.sources.keys() {
            let gates = self.gates(|on| on == name);
            let inputs = [(name.clone(), Input::Source(self.source_read(name, false)))].into_iter().collect();
            let outputs = vec![Output::Staged { relation: name.clone() }];
            let work = self.work(inputs, Vec::new(), gates, outputs);
            let cost = self.cost_of(Role::Extraction, name.as_str());
            tasks.push(self.task(Role::Extraction, extract_id(name), Work::Move(work), Vec::new(), cost));
        }
        let transform_id = TaskId("transform".into());
        if !spec.transform.is_empty() {
            let steps: BTreeSet<&Name> = spec.transform.iter().map(|step| &step.name).collect();
            let used = self.case.facts.typing.steps.iter().flat_map(|step| &step.inputs);
            let used: BTreeSet<&Name> = used.filter(|input| spec.sources.contains_key(*input)).collect();
            let inputs = used.iter().map(|name| ((*name).clone(), self.staged_input(name))).collect();
            let wanted: BTreeSet<&Name> = spec.sinks.values().map(|s| &s.from).filter(|f| steps.contains(f)).collect();
            let outputs = wanted.into_iter().map(|relation| Output::Staged { relation: relation.clone() }).collect();
            let work = self.work(inputs, spec.transform.clone(), self.gates(|on| steps.contains(on)), outputs);
            let after = used.into_iter().map(extract_id).collect();
            let cost = self.cost_of(Role::Transformation, crate::participants::transformation::SUBJECT);
            tasks.push(self.task(Role::Transformation, transform_id.clone(), Work::Move(work), after, cost));
        }
        for (name, sink) in &spec.sinks {
            let before = match spec.sources.contains_key(&sink.from) {
                true => extract_id(&sink.from),
                false => transform_id.clone(),
            };
            let inputs = [(sink.from.clone(), self.staged_input(&sink.from))].into_iter().collect();
            let work = self.work(inputs, Vec::new(), Vec::new(), vec![Output::Sink(self.sink_write(name))]);
            let cost = self.cost_of(Role::Loading, name.as_str());
            tasks.push(self.task(Role::Loading, TaskId(format!("load_{name}")), Work::Move(work), vec![before], cost));
        }
        self.with_cleanup(tasks)
    }

    fn with_cleanup(&self, mut tasks: Vec<PlannedTask>) -> Vec<PlannedTask> {
        let after = tasks.iter().map(|task| task.spec.id.clone()).collect();
        let cost = Cost { confidence: 100, ..Cost::default() };
        let mut cleanup = self.task(Role::Orchestrator, TaskId("cleanup".into()), Work::Cleanup, after, cost);
        cleanup.teardown = true;
        cleanup.timeout = CLEANUP_TIMEOUT;
        tasks.push(cleanup);
        tasks
    }

    fn load_id(&self) -> TaskId {
        let mut sinks = self.case.spec.sinks.keys();
        match (sinks.next(), sinks.next()) {
            (Some(only), None) => TaskId(format!("load_{only}")),
            _ => TaskId("load".into()),
        }
    }

    /// Everything from the inputs to the sinks.
    fn whole_move(&self, inputs: BTreeMap<Name, Input>) -> Move {
        let spec = self.case.spec;
        let outputs = spec.sinks.keys().map(|name| Output::Sink(self.sink_write(name))).collect();
        self.work(inputs, spec.transform.clone(), self.gates(|_| true), outputs)
    }

    fn work(
        &self,
        inputs: BTreeMap<Name, Input>,
        steps: Vec<Step>,
        gates: Vec<QualityGate>,
        outputs: Vec<Output>,
    ) -> Move {
        let binds = self.binds(&steps, &gates, &inputs);
        Move { inputs, steps, binds, gates, max_rejected: MAX_REJECTED, outputs }
    }

    fn gates(&self, judged_here: impl Fn(&Name) -> bool) -> Vec<QualityGate> {
        self.case.spec.quality.iter().filter(|gate| judged_here(&gate.on)).cloned().collect()
    }

    /// Returns the binds that the SQL of a task names.
    fn binds(
        &self,
        steps: &[Step],
        gates: &[QualityGate],
        inputs: &BTreeMap<Name, Input>,
    ) -> BTreeMap<String, ParamType> {
        let mut used = BTreeSet::new();
        for step in steps {
            collect_binds(&step.sql, &mut used);
        }
        for gate in gates {
            if let GateRule::Check(sql) = &gate.rule {
                collect_binds(sql, &mut used);
            }
        }
        for input in inputs.values() {
            if let Input::Source(read) = input {
                read.filters.iter().for_each(|filter| collect_binds(filter, &mut used));
            }
        }
        let mut binds = self.case.binds();
        binds.retain(|name, _| used.contains(name.as_str()));
        binds
    }

    fn staged_input(&self, relation: &Name) -> Input {
        let columns = match self.read(relation) {
            Some(read) => read.columns.clone(),
            None => self.case.columns(relation),
        };
        Input::Staged { columns }
    }

    fn source_read(&self, name: &Name, partitioned: bool) -> SourceRead {
        let case = self.case;
        let source = case.source(name);
        let read = self.read(name).expect("every source has a chosen way to be read");
        let profile = case.profile(name);
        let format = profile.and_then(|profile| profile.format).or(source.format);
        let text = profile.and_then(|profile| profile.text.clone());
        let by_position = format == Some(FileFormat::Csv) && text.as_ref().is_some_and(|text| !text.header);
        let all = case.source_columns(name);
        let mut columns = read.columns.clone();
        let incremental = source.incremental.as_ref().and_then(|incremental| {
            let cursor = all.iter().find(|column| column.name == incremental.cursor)?;
            if !columns.contains(cursor) {
                columns.push(cursor.clone());
            }
            Some(IncrementalRead {
                incremental: incremental.clone(),
                data_type: cursor.data_type.clone(),
                committed_in: case.sinks_of(name),
            })
        });
        let is_read = |column: &String| columns.iter().any(|known| known.name == *column);
        let spec = source.columns.iter().filter(|(column, _)| is_read(column));
        let masks = spec.clone().filter_map(|(column, spec)| Some((column.clone(), spec.mask?))).collect();
        let classified = spec.filter(|(_, spec)| spec.classification.is_some()).map(|(c, _)| c.clone()).collect();
        SourceRead {
            locator: source.locator.clone(),
            format,
            text,
            null_values: source.csv.null_values.clone().unwrap_or_default(),
            ragged: source.csv.ragged.unwrap_or_default(),
            positions: if by_position { all.iter().map(|column| column.name.clone()).collect() } else { Vec::new() },
            masks,
            classified,
            filters: read.filters.clone(),
            incremental,
            on_missing: source.on_missing,
            lossy: read.on_misfit,
            partitioned,
            columns,
        }
    }

    fn sink_write(&self, name: &Name) -> SinkWrite {
        let case = self.case;
        let sink = &case.spec.sinks[name];
        let write = self.write(name).expect("every sink has a chosen way to be written");
        let cursor = |source: &Name| {
            let incremental = case.source(source).incremental.as_ref()?;
            let columns = case.source_columns(source);
            let column = columns.iter().find(|column| column.name == incremental.cursor)?;
            Some(CursorCommit {
                source: source.clone(),
                column: column.name.clone(),
                data_type: column.data_type.clone(),
            })
        };
        SinkWrite {
            name: name.clone(),
            relation: sink.from.clone(),
            locator: sink.locator.clone(),
            format: sink.format,
            write: sink.write.clone(),
            mode: sink.mode,
            strategy: write.strategy,
            columns: write.columns.clone(),
            lossy: write.on_misfit,
            key: sink.key.clone(),
            dedupe: write.dedupe.clone(),
            min_rows: sink.min_rows,
            meta_columns: sink.meta_columns
                && sink.mode == SinkMode::Append
                && matches!(sink.locator, Locator::Table { .. }),
            changes: write.edits.clone(),
            cursors: case.origins(&sink.from).into_iter().filter_map(cursor).collect(),
        }
    }

    fn task(&self, role: Role, id: TaskId, work: Work, after: Vec<TaskId>, cost: Cost) -> PlannedTask {
        let spec = self.case.spec;
        let provides = self.provides(&work);
        PlannedTask {
            role,
            spec: TaskSpec {
                version: TASK_VERSION,
                pipeline: spec.dag_id(),
                id,
                connections: self.connections_of(&work),
                work,
                memory_max: spec.goals.memory_max,
            },
            after,
            mapped_over: None,
            teardown: false,
            timeout: spec.goals.deadline.unwrap_or(TIMEOUT),
            provides,
            cost,
        }
    }

    fn provides(&self, work: &Work) -> BTreeMap<Name, Vec<Column>> {
        let relation = |output: &Output| match output {
            Output::Staged { relation } => match self.staged_input(relation) {
                Input::Staged { columns } => (relation.clone(), columns),
                Input::Source(read) => (relation.clone(), read.columns),
            },
            Output::Sink(write) => (write.relation.clone(), write.columns.clone()),
        };
        match work {
            Work::Move(work) => work.outputs.iter().map(relation).collect(),
            Work::Publish(publish) => {
                [(publish.sink.relation.clone(), publish.sink.columns.clone())].into_iter().collect()
            }
            Work::Split(_) | Work::Cleanup => BTreeMap::new(),
        }
    }

    fn connections_of(&self, work: &Work) -> BTreeMap<Name, Identity> {
        let mut locators: Vec<&Locator> = Vec::new();
        match work {
            Work::Split(split) => locators.push(&split.read.locator),
            Work::Move(work) => {
                for input in work.inputs.values() {
                    if let Input::Source(read) = input {
                        locators.push(&read.locator);
                        // The committed cursor is looked up where it stands.
                        let committed = read.incremental.iter().flat_map(|incremental| &incremental.committed_in);
                        locators.extend(committed.map(|sink| &sink.locator));
                    }
                }
                for output in &work.outputs {
                    if let Output::Sink(write) = output {
                        locators.push(&write.locator);
                    }
                }
            }
            Work::Publish(publish) => locators.push(&publish.sink.locator),
            Work::Cleanup => {}
        }
        let used: BTreeSet<&Name> = locators.into_iter().filter_map(connection).collect();
        let mut all = self.connections();
        all.retain(|name, _| used.contains(name));
        all
    }

    fn connections(&self) -> BTreeMap<Name, Identity> {
        let case = self.case;
        let read = case.spec.sources.iter().filter_map(|(name, source)| {
            Some((connection(&source.locator)?.clone(), case.profile(name)?.identity.clone()))
        });
        let written = case.spec.sinks.iter().filter_map(|(name, sink)| {
            Some((connection(&sink.locator)?.clone(), case.inspection(name)?.identity.clone()))
        });
        read.chain(written).collect()
    }

    fn offer(&self, role: Role, subject: &str) -> Option<&Alternative> {
        self.chosen.iter().find(|offer| offer.role == role && offer.subject == subject)
    }

    fn read(&self, source: &Name) -> Option<&Read> {
        match &self.offer(Role::Extraction, source.as_str())?.strategy {
            Strategy::Read(read) => Some(read),
            Strategy::Compute { .. } | Strategy::Write(_) => None,
        }
    }

    fn write(&self, sink: &Name) -> Option<&Write> {
        match &self.offer(Role::Loading, sink.as_str())?.strategy {
            Strategy::Write(write) => Some(write),
            Strategy::Compute { .. } | Strategy::Read(_) => None,
        }
    }

    fn cost_of(&self, role: Role, subject: &str) -> Cost {
        self.offer(role, subject).map(|offer| offer.cost).unwrap_or_default()
    }
}

fn connection(locator: &Locator) -> Option<&Name> {
    match locator {
        Locator::Uri(_) => None,
        Locator::Table { connection, .. } | Locator::Query { connection, .. } => Some(connection),
    }
}

/// Collects what stands behind each `$`: a superset of the binds, since literals are not told apart.
fn collect_binds<'a>(sql: &'a str, used: &mut BTreeSet<&'a str>) {
    for piece in sql.split('$').skip(1) {
        let end = piece.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(piece.len());
        used.insert(&piece[..end]);
    }
}
