//! A request as a JSON object, or a spec that stands for the request to run it.

use std::collections::BTreeMap;

use dagwright_model::{
    id::Name,
    request::{Request, RunWishes},
    spec::Interval,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use crate::{Error, error::shown, json};

/// Keys that a spec has and a request has not.
const OF_SPECS: [&str; 5] = ["version", "source", "sources", "sink", "sinks"];

/// Reads a request object, or a spec.
pub(super) fn read(text: &str) -> Result<Request, Error> {
    let members = json::members(text, "the request")?;
    if members.iter().any(|(key, _)| OF_SPECS.contains(&key.as_str())) {
        return Ok(spec(text));
    }
    let mut request = Request::default();
    for (key, value) in members {
        match &*key {
            "action" => request.action = given(value, "action", "run, apply, backfill, pause or delete")?,
            "spec" => request.spec = spec_text(value)?.map(Value::String),
            "pipeline" => request.pipeline = given(value, "pipeline", "text")?,
            "revision" => request.revision = given(value, "revision", "a whole number")?,
            "run" => request.run = run(value)?,
            "intent" => return Err(Error::NotYet { place: "intent", instead: "send a spec" }),
            _ => return Err(unknown(&key, "action, spec, pipeline, revision and run; a bare spec has version")),
        }
    }
    Ok(request)
}

/// Returns the request to run a spec once.
pub(super) fn spec(text: &str) -> Request {
    Request { spec: Some(Value::String(text.into())), ..Request::default() }
}

/// Returns the text of a spec that is an object, or text already.
fn spec_text(value: &RawValue) -> Result<Option<String>, Error> {
    match value.get().as_bytes() {
        [b'{', ..] => Ok(Some(value.get().into())),
        _ => given(value, "spec", "a spec's object, or its text"),
    }
}

fn run(value: &RawValue) -> Result<RunWishes, Error> {
    let mut run = RunWishes::default();
    for (key, value) in json::members(value.get(), "run")? {
        match &*key {
            "interval" if value.get() == "null" => {}
            "interval" => run.interval = Some(interval(value)?),
            "params" => run.params = params(value)?,
            _ => return Err(unknown(&format!("run.{key}"), "run.interval and run.params")),
        }
    }
    Ok(run)
}

fn interval(value: &RawValue) -> Result<Interval, Error> {
    let (mut start, mut end) = (None, None);
    for (key, value) in json::members(value.get(), "run.interval")? {
        match &*key {
            "start" => start = Some(given(value, "run.interval.start", "text")?),
            "end" => end = Some(given(value, "run.interval.end", "text")?),
            _ => return Err(unknown(&format!("run.interval.{key}"), "run.interval.start and run.interval.end")),
        }
    }
    let both = |text: Option<String>, place| text.ok_or_else(|| Error::request(place, "given"));
    Ok(Interval { start: both(start, "run.interval.start")?, end: both(end, "run.interval.end")? })
}

fn params(value: &RawValue) -> Result<BTreeMap<Name, Value>, Error> {
    json::members(value.get(), "run.params")?.into_iter().map(|(key, value)| param(key, value.get())).collect()
}

/// Reads a parameter's name, and its value as JSON text.
pub(crate) fn param(key: String, json: &str) -> Result<(Name, Value), Error> {
    let place = format!("run.params.{}", shown(&key));
    let name = Name::new(key).map_err(|_| Error::request(place.clone(), "named ^[a-z][a-z0-9_]{0,127}$"))?;
    let value = serde_json::from_str(json);
    Ok((name, value.map_err(|error| Error::not_json(place, "JSON that nests less than 128 deep", &error))?))
}

/// Reads a value of a type that tells whether null, which is the same as left out, may stand there.
fn given<T: DeserializeOwned>(value: &RawValue, place: &'static str, wanted: &'static str) -> Result<T, Error> {
    serde_json::from_str(value.get()).map_err(|_| Error::request(place, wanted))
}

fn unknown(key: &str, known: &'static str) -> Error {
    Error::Unknown { place: format!("the key {}", shown(key)), known }
}
