//! The staging area: relations that one task leaves for later ones.
//!
//! A relation is a folder of Parquet files, one a partition: `<staging>/<pipeline>/<effect>/<relation>/<partition>.parquet`.
//! Each file appears whole, and its footer carries what the rows alone do not tell: cursors, and which columns are
//! classified. Temporary files of running tasks lie under `<staging>/.tmp`, a name no pipeline can have.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::PathBuf,
};

use dagwright_model::{
    id::{Name, TaskId},
    schema::{Column, DataType},
    task::{Counts, RunContext},
};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    relations::{File, FileWriter},
    storage::{Folder, segment, unusable},
    transform::relation::{Feed, Size},
    types::{arrow_schema, model_column},
};

/// The footer's key under which [`Extract`] stands.
const FOOTER: &str = "dagwright.extract";

/// The folder of temporary files beside the pipelines' folders.
const TEMP: &str = ".tmp";

/// The folder of notes beside a run's relations, a name that none of them can have.
const SET_BACK: &str = ".set_back";

/// What a staged relation tells beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extract {
    /// The largest cursor read of each source it was computed from.
    pub cursors: BTreeMap<Name, SeenCursor>,
    /// The columns whose values appear nowhere but in the sink.
    pub classified: BTreeSet<String>,
    /// What it was made by; absent where it does not stand for all that its task leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// What a staged relation was made by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The hash of everything that its content depends on, but for what the sources hold.
    pub contract: String,
    /// What its task counted.
    pub counts: Counts,
}

/// A cursor that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCursor {
    /// Its value, as text.
    pub value: String,
    /// Its type.
    pub data_type: DataType,
}

/// A staged relation.
pub struct Staged {
    /// Its rows.
    pub feed: Feed,
    /// What each of its partitions told.
    pub extracts: Vec<Extract>,
}

/// Returns the folder of a run's staged relations.
///
/// # Errors
/// DW0606 when the location is not usable.
pub fn folder(pipeline: &str, run: &RunContext) -> Result<Folder> {
    Ok(Folder::open(&run.staging, run.base.as_deref())?.child(pipeline).child(&run.effect))
}

/// Starts to stage this task's part of a relation.
///
/// # Errors
/// DW0606.
pub fn write(pipeline: &str, run: &RunContext, relation: &Name, columns: &[Column]) -> Result<FileWriter> {
    let folder = folder(pipeline, run)?.child(relation.as_str());
    let partition = run.partition.as_ref().map_or(0, |partition| partition.index);
    FileWriter::start(folder.writer(&format!("{partition}.parquet")), arrow_schema(columns), true)
}

/// Makes a staged part appear.
///
/// # Errors
/// DW0606.
pub async fn publish(file: FileWriter, extract: &Extract) -> Result<u64> {
    let footer = serde_json::to_string(extract).map_err(|error| unusable("no footer").caused_by(error))?;
    file.close(Some((FOOTER, footer))).await
}

/// Opens a staged relation with at most `streams` streams or one a file.
///
/// # Errors
/// DW0606 when it is not there, or is not what the plan says.
pub async fn read(
    pipeline: &str,
    run: &RunContext,
    relation: &Name,
    columns: &[Column],
    streams: usize,
) -> Result<Staged> {
    let folder = folder(pipeline, run)?.child(relation.as_str());
    let files = folder.list().await?;
    if files.is_empty() {
        return Err(unusable("a staged relation is missing; run the task that stages it again"));
    }
    let streams_each = streams.div_ceil(files.len());
    let mut openers = Vec::new();
    let mut extracts = Vec::new();
    let mut size = Size { rows: 0, bytes: 0, exact: true };
    for file in files {
        let file = File::open(folder.store().clone(), file.location).await?;
        let found: Option<Vec<Column>> = file.schema().fields().iter().map(|field| model_column(field)).collect();
        let fits = |found: &Column, wanted: &Column| found.name == wanted.name && found.data_type == wanted.data_type;
        let same = found.is_some_and(|found| {
            found.len() == columns.len() && found.iter().zip(columns).all(|(found, wanted)| fits(found, wanted))
        });
        if !same {
            return Err(unusable("a staged relation has other columns than planned; run the whole pipeline again"));
        }
        let extract = file.footer(FOOTER).and_then(|text| serde_json::from_str(&text).ok());
        extracts.push(extract.ok_or_else(|| unusable("a staged file has no footer of ours"))?);
        size.rows += file.rows();
        size.bytes += file.bytes();
        openers.extend(file.openers(streams_each));
    }
    Ok(Staged { feed: Feed::Streams { openers, size: Some(size) }, extracts })
}

/// Returns what each part of a staged relation was made by, or of one partition's part; empty where there is none, and `None`
/// for a part that does not tell.
///
/// # Errors
/// DW0606.
pub async fn made(
    pipeline: &str,
    run: &RunContext,
    relation: &Name,
    partition: Option<u32>,
) -> Result<Vec<Option<(Made, BTreeMap<Name, SeenCursor>)>>> {
    let folder = folder(pipeline, run)?.child(relation.as_str());
    let wanted = partition.map(|partition| folder.file(&format!("{partition}.parquet")));
    let mut found = Vec::new();
    for file in folder.list().await? {
        if wanted.as_ref().is_some_and(|wanted| *wanted != file.location) {
            continue;
        }
        let file = File::open(folder.store().clone(), file.location).await?;
        let extract: Option<Extract> = file.footer(FOOTER).and_then(|text| serde_json::from_str(&text).ok());
        found.push(extract.and_then(|extract| Some((extract.made?, extract.cursors))));
    }
    Ok(found)
}

/// Notes that a run failed over a schema, so that its clean-up leaves staged relations to the plan that follows.
///
/// # Errors
/// DW0606.
pub async fn set_back(pipeline: &str, run: &RunContext) -> Result<()> {
    let folder = folder(pipeline, run)?.child(SET_BACK);
    let put = folder.store().put(&folder.file(run.plan_hash.short()), Vec::new().into()).await;
    put.map(drop).map_err(|error| unusable("a note could not be left").caused_by(error))
}

async fn was_set_back(pipeline: &str, run: &RunContext) -> Result<bool> {
    let folder = folder(pipeline, run)?.child(SET_BACK);
    let note = folder.file(run.plan_hash.short());
    Ok(folder.list().await?.iter().any(|file| file.location == note))
}

/// Returns the folder of a task's temporary files; a new try of the same task removes what an earlier one left.
///
/// # Errors
/// DW0606 when it cannot be made empty.
pub async fn temp(pipeline: &str, task: &TaskId, run: &RunContext) -> Result<Folder> {
    let task = match &run.partition {
        Some(partition) => format!("{task}-{}", partition.index),
        None => task.to_string(),
    };
    let path = temp_of_run(pipeline, run)?.join(segment(&task));
    match tokio::fs::remove_dir_all(&path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(unusable("temporary files of an earlier try cannot be removed").caused_by(error));
        }
        Ok(()) | Err(_) => {}
    }
    Folder::open(&path.to_string_lossy(), None)
}

/// Removes what a run staged, unless another plan may go on from it, and temporary files of it.
///
/// # Errors
/// DW0606.
pub async fn remove(pipeline: &str, run: &RunContext) -> Result<()> {
    if !run.keep_staged || !was_set_back(pipeline, run).await? {
        folder(pipeline, run)?.remove_all().await?;
    }
    match tokio::fs::remove_dir_all(temp_of_run(pipeline, run)?).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(unusable("temporary files cannot be removed").caused_by(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Temporary files are local, wherever the staging area is: DataFusion spills to disks only.
fn temp_of_run(pipeline: &str, run: &RunContext) -> Result<PathBuf> {
    let staging = Folder::open(&run.staging, run.base.as_deref())?;
    let root = match staging.local() {
        Some(local) => local.join(TEMP),
        None => env::temp_dir().join("dagwright"),
    };
    Ok(root.join(segment(pipeline)).join(segment(&run.effect)))
}
