//! Types a transform from its sources' columns alone: what `dagwright-task plan` answers.
//!
//! Every step and gate that does not plan is reported at once. Sources are then narrowed to what is needed, and the
//! steps are typed again over the narrowed sources: what this says is what a task with those reads will compute.

mod pushdown;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dagwright_model::{
    code::Code,
    facts::{ColumnRef, Pushdown, TransformTyping, TypedStep, TypingReply, TypingRequest},
    id::Name,
    schema::Column,
    task::Problem,
};

use crate::{
    error::{Error, Result},
    gates,
    transform::{
        Limits, PlannedStep, Session,
        lineage::{lineage, shape},
    },
    typing::table::TypingTable,
};

/// Planning alone needs no memory worth a limit.
const LIMITS: Limits = Limits { pool_bytes: 16 << 20, temp: None, cores: 2, frugal: false };

/// The steps planned over some columns of the sources.
pub(crate) struct PlannedSteps {
    pub(crate) steps: BTreeMap<Name, PlannedStep>,
}

/// Types the steps and gates of a request, and says what they need of the sources.
///
/// # Errors
/// Only what no request can cause; what does not plan is in the reply.
pub async fn type_transform(request: &TypingRequest) -> Result<TypingReply> {
    let problems = check(request).await?;
    if !problems.is_empty() {
        return Ok(TypingReply::Failed(problems));
    }
    let pushdown = pushdown::needed(request).await?;
    let narrowed = narrowed(request, &pushdown);
    let planned = plan_steps(&narrowed).await?;
    Ok(TypingReply::Typed(TransformTyping { steps: typed_steps(&narrowed, &planned), pushdown }))
}

/// The request over the needed columns alone.
pub(crate) fn narrowed(request: &TypingRequest, pushdown: &BTreeMap<Name, Pushdown>) -> TypingRequest {
    let mut narrowed = request.clone();
    for (name, columns) in &mut narrowed.sources {
        if let Some(needed) = pushdown.get(name) {
            columns.retain(|column| needed.columns.contains(&column.name));
        }
    }
    narrowed
}

/// Plans every step, or returns the first that does not.
pub(crate) async fn plan_steps(request: &TypingRequest) -> Result<PlannedSteps> {
    let session = session_over(&request.sources)?;
    let mut steps = BTreeMap::new();
    for step in &request.steps {
        let planned = session.plan_step(step, &request.binds).await?;
        session.register_table(&step.name, Arc::new(TypingTable::new(&planned.columns)))?;
        // Coercions and functions are only checked when a plan is optimised.
        optimised(&session, &step.name, &planned)?;
        steps.insert(step.name.clone(), planned);
    }
    Ok(PlannedSteps { steps })
}

pub(crate) fn session_over(sources: &BTreeMap<Name, Vec<Column>>) -> Result<Session> {
    let session = Session::new(&LIMITS)?;
    for (name, columns) in sources {
        session.register_table(name, Arc::new(TypingTable::new(columns)))?;
    }
    Ok(session)
}

fn optimised(session: &Session, name: &Name, planned: &PlannedStep) -> Result<()> {
    session.context().state().optimize(&planned.plan).map(drop).map_err(|error| {
        Error::new(
            Code::SqlInvalid,
            name.as_str(),
            format!("the SQL does not plan: {}", error.strip_backtrace()),
            "correct the SQL; a step sees the sources and earlier steps by name",
        )
    })
}

/// Finds every step and gate that does not plan; what builds on a broken step is not reported again.
async fn check(request: &TypingRequest) -> Result<Vec<Problem>> {
    let session = session_over(&request.sources)?;
    let mut problems = Vec::new();
    let mut broken: BTreeSet<&Name> = BTreeSet::new();
    let mut relations: BTreeMap<&Name, Vec<Column>> =
        request.sources.iter().map(|(name, columns)| (name, columns.clone())).collect();
    for step in &request.steps {
        let planned = match session.plan_step(step, &request.binds).await {
            Ok(planned) => optimised(&session, &step.name, &planned).map(|()| planned),
            Err(error) => Err(error),
        };
        match planned {
            Ok(planned) => {
                session.register_table(&step.name, Arc::new(TypingTable::new(&planned.columns)))?;
                relations.insert(&step.name, planned.columns);
            }
            Err(error) => {
                let follows = broken.iter().any(|name| mentions(&step.sql, name.as_str()));
                broken.insert(&step.name);
                if !follows {
                    problems.push(*error.problem);
                }
            }
        }
    }
    for (gate, on, rule) in &request.gates {
        if broken.contains(on) {
            continue;
        }
        let checked = match relations.get(on) {
            Some(columns) => gates::check_rule(&session, gate, on, columns, rule, &request.binds).await,
            None => Err(unknown(gate, on)),
        };
        if let Err(error) = checked {
            problems.push(*error.problem);
        }
    }
    for output in &request.outputs {
        if !broken.contains(output) && !relations.contains_key(output) {
            problems.push(*unknown(output, output).problem);
        }
    }
    Ok(problems)
}

fn unknown(subject: &Name, relation: &Name) -> Error {
    Error::new(
        Code::SqlInvalid,
        subject.as_str(),
        format!("there is no source or step {:?}", relation.as_str()),
        "name a source or a step of this pipeline",
    )
}

/// Tells whether SQL may use a relation: good enough to not report what follows from another problem.
fn mentions(sql: &str, name: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    lower.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_')).any(|word| word == name)
}

fn typed_steps(request: &TypingRequest, planned: &PlannedSteps) -> Vec<TypedStep> {
    let mut typed: Vec<TypedStep> = Vec::new();
    for step in &request.steps {
        let Some(plan) = planned.steps.get(&step.name) else { continue };
        let shape = shape(&plan.plan);
        let known = |table: &str| -> Option<Name> {
            let source = request.sources.keys().find(|name| name.as_str() == table);
            source.or_else(|| request.steps.iter().map(|step| &step.name).find(|name| name.as_str() == table)).cloned()
        };
        let mut inputs: Vec<Name> = Vec::new();
        for name in shape.scans.iter().filter_map(|table| known(table)) {
            if !inputs.contains(&name) {
                inputs.push(name);
            }
        }
        let mut lineages = BTreeMap::new();
        let mut passthrough = BTreeMap::new();
        for (column, origin) in plan.columns.iter().zip(lineage(&plan.plan)) {
            let mut from = BTreeSet::new();
            for (relation, name) in &origin.from {
                match typed.iter().find(|earlier| earlier.name.as_str() == relation) {
                    Some(earlier) => from.extend(earlier.lineage.get(name).into_iter().flatten().cloned()),
                    None => from.extend(source_column(request, relation, name)),
                }
            }
            let same = origin.same_as.and_then(|(relation, name)| {
                match typed.iter().find(|earlier| earlier.name.as_str() == relation) {
                    Some(earlier) => earlier.passthrough.get(&name).cloned(),
                    None => source_column(request, &relation, &name),
                }
            });
            lineages.insert(column.name.clone(), from.into_iter().collect());
            if let Some(same) = same {
                passthrough.insert(column.name.clone(), same);
            }
        }
        typed.push(TypedStep {
            name: step.name.clone(),
            columns: plan.columns.clone(),
            inputs,
            row_local: shape.row_local,
            blocking: shape.blocking,
            lineage: lineages,
            passthrough,
        });
    }
    typed
}

fn source_column(request: &TypingRequest, relation: &str, column: &str) -> Option<ColumnRef> {
    let (source, columns) = request.sources.iter().find(|(name, _)| name.as_str() == relation)?;
    let known = columns.iter().any(|known| known.name == column);
    known.then(|| ColumnRef { source: source.clone(), column: column.into() })
}
