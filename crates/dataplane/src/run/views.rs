//! Where incremental sources continue for each output, and which outputs the same reading can fill.
//!
//! Sinks of one source commit each for itself, so after a night on which one of them failed their cursors differ. A
//! sink that is ahead must not get rows again: outputs whose sources continue elsewhere are filled by a reading of
//! their own. Mostly all agree, and there is one.

use std::collections::BTreeMap;

use dagwright_model::{
    id::Name,
    task::{IncrementalRead, Input, Output, SinkRef},
};

use super::Task;
use crate::{cursor, error::Result, tally::SinkTally};

/// Where each incremental source continues; `None` is its beginning.
pub(super) type View = BTreeMap<Name, Option<String>>;

/// A source that continues where its sinks have come to.
type Source<'a> = (&'a Name, &'a IncrementalRead);

/// Divides outputs by where their sources continue, in as few parts as that takes; their order stays.
///
/// # Errors
/// Whatever asking a sink meets, DW0309 when a cursor does not read as its type.
pub(super) async fn divide<'a>(
    task: &Task,
    inputs: &BTreeMap<Name, Input>,
    outputs: &[&'a Output],
) -> Result<Vec<(View, Vec<&'a Output>)>> {
    let sources: Vec<Source<'_>> = inputs
        .iter()
        .filter_map(|(name, input)| match input {
            Input::Source(read) => Some((name, read.incremental.as_ref()?)),
            Input::Staged { .. } => None,
        })
        .collect();
    let mut parts: Vec<(View, Vec<&Output>)> = Vec::new();
    for output in outputs {
        let view = view(task, &sources, output).await?;
        match parts.iter_mut().find(|(known, _)| agree(known, &view)) {
            Some((known, outputs)) => {
                known.extend(view);
                outputs.push(output);
            }
            None => parts.push((view, vec![output])),
        }
    }
    if parts.is_empty() {
        parts.push((View::new(), Vec::new()));
    }
    // A source that only a gate looks at continues where the last of its sinks has come to.
    for (name, read) in sources {
        if parts.iter().any(|(view, _)| !view.contains_key(name)) {
            let smallest = continue_after(task, name, read, &read.committed_in).await?;
            for (view, _) in &mut parts {
                view.entry(name.clone()).or_insert_with(|| smallest.clone());
            }
        }
    }
    Ok(parts)
}

/// Tells whether two outputs can be filled by one reading.
fn agree(a: &View, b: &View) -> bool {
    a.iter().all(|(source, after)| b.get(source).is_none_or(|other| other == after))
}

/// Returns where the sources of an output continue.
async fn view(task: &Task, sources: &[Source<'_>], output: &Output) -> Result<View> {
    let mut view = View::new();
    for (name, read) in sources {
        let fed = match output {
            // Whatever loads it later is one of these.
            Output::Staged { .. } => read.committed_in.clone(),
            Output::Sink(write) => {
                let fed: Vec<SinkRef> = read.committed_in.iter().filter(|s| s.name == write.name).cloned().collect();
                if fed.is_empty() {
                    continue;
                }
                fed
            }
        };
        view.insert((*name).clone(), continue_after(task, name, read, &fed).await?);
    }
    Ok(view)
}

/// Returns where a read for some sinks continues: after the smallest cursor that they have committed.
async fn continue_after(task: &Task, name: &Name, read: &IncrementalRead, sinks: &[SinkRef]) -> Result<Option<String>> {
    if task.run.backfill {
        return Ok(None);
    }
    let context = task.write_context(SinkTally::shared());
    let mut smallest: Option<String> = None;
    for sink in sinks {
        let connector = task.sink(&sink.locator)?;
        let Some(cursor) = connector.committed_cursor(sink, &task.spec.pipeline, name, &context).await? else {
            // A sink that has nothing yet needs everything.
            smallest = None;
            break;
        };
        smallest = match smallest {
            Some(smaller) => cursor::smallest(name, &read.data_type, smaller, cursor)?,
            None => Some(cursor),
        };
    }
    cursor::continue_after(name, &read.incremental, &read.data_type, smallest)
}
