//! Admits requests, wherever they come in: parses the spec, checks what the service's settings allow, fills in what
//! the ledger is told.
//!
//! Everything that comes in is untrusted. What is refused here never reaches the ledger; what is admitted may still come
//! to nothing, but then its record says why.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use dagwright_agents::interval;
use dagwright_model::{
    canonical,
    code::Code,
    id::{Name, RequestId},
    record::{Accepted, EventIdentity, Ingress, Purpose, RecordBody},
    request::{Action, Request, RunWishes},
    spec::{Approval, DAG_ID_LENGTH_MAX, Diagnostics, Interval, Locator, LossyCast, Spec},
    task::Problem,
};
use dagwright_store::Register;
use dagwright_telemetry::trace;
use glob::{MatchOptions, Pattern};
use serde_json::Value;

use crate::{
    config::{Config, Scope},
    params,
    render::number,
};

/// How globs match URIs: `*` stays within a part of the path, `**` does not.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Admits requests.
pub(crate) struct Admission {
    config: Arc<Config>,
    fence: Fence,
    register: Arc<dyn Register>,
}

/// Knows what the settings of this process open to reading and writing.
pub(crate) struct Fence {
    config: Arc<Config>,
    allowed: Vec<Pattern>,
}

/// Who sent a request, as ingress knows them.
#[derive(Clone, Debug)]
pub(crate) struct Requester {
    pub(crate) ingress: Ingress,
    /// The name of a token or topic; `None` where nobody has to say who they are.
    pub(crate) name: Option<String>,
    /// The namespaces whose pipelines they may ask for; `None`: all, and those without one.
    pub(crate) namespaces: Option<Vec<Name>>,
    /// Whether they may send requests at all.
    pub(crate) may_submit: bool,
    /// Whether those may pause and delete.
    pub(crate) may_operate: bool,
}

/// What is to be taken on.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) request: RequestId,
    pub(crate) accepted: Accepted,
}

/// Why a request is not admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejected {
    /// The spec or what the run is told is not valid.
    #[error("the request is not valid")]
    Invalid(Diagnostics),
    /// The settings do not allow it, or what it names is not there.
    #[error(transparent)]
    Problem(Problem),
    /// The ledger cannot be read.
    #[error("could not read the ledger")]
    Store(#[from] dagwright_store::Error),
}

// === impl Admission ===

impl Admission {
    /// Makes a desk that admits what `config` allows.
    ///
    /// # Errors
    /// When a glob of `uris.allow` is none; the text says which and why.
    pub(crate) fn new(config: Arc<Config>, register: Arc<dyn Register>) -> Result<Self, String> {
        Ok(Self { fence: Fence::new(config.clone())?, config, register })
    }

    /// Admits a request, or says why not. Reads the ledger, so it may block for a moment.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub(crate) fn admit(
        &self,
        request: &Request,
        identity: EventIdentity,
        traceparent: Option<String>,
        requester: &Requester,
    ) -> Result<Admitted, Rejected> {
        let traceparent = trace::adopt(traceparent.as_deref(), || tracing::info_span!("request"));
        let span = tracing::info_span!("admission", trace_id = traceparent.as_deref().and_then(trace::trace_id));
        trace::continue_from(&span, traceparent.as_deref());
        let _entered = span.entered();
        let purpose = request.action.purpose();
        if !requester.may_submit {
            return Err(scope_missing(request.action, Scope::Submit));
        }
        match purpose {
            Purpose::Pause | Purpose::Delete if !requester.may_operate => {
                return Err(scope_missing(request.action, Scope::Operate));
            }
            Purpose::Plan | Purpose::Run | Purpose::Apply | Purpose::Pause | Purpose::Delete => {}
        }
        let mut accepted = match purpose {
            Purpose::Pause | Purpose::Delete => self.named(request, purpose)?,
            Purpose::Plan | Purpose::Run | Purpose::Apply => self.specified(request, purpose)?,
        };
        self.check_namespace(&accepted.pipeline, requester)?;
        accepted.ingress = requester.ingress;
        accepted.requester.clone_from(&requester.name);
        accepted.traceparent = traceparent;
        let request = RequestId::derive(&accepted.pipeline, &identity.source, &identity.id);
        accepted.identity = Some(identity);
        Ok(Admitted { request, accepted })
    }

    /// Accepts what needs no more than a pipeline's name.
    fn named(&self, request: &Request, purpose: Purpose) -> Result<Accepted, Rejected> {
        let pipeline = match (&request.pipeline, &request.spec) {
            (Some(pipeline), _) => pipeline.clone(),
            (None, Some(spec)) => parse(&text(spec))?.dag_id(),
            (None, None) => return Err(nameless()),
        };
        if self.register.pipeline(&pipeline)?.is_none() {
            return Err(unknown_pipeline(&pipeline));
        }
        if request.run != RunWishes::default() || request.revision.is_some() {
            let message = format!("{} takes neither `run` nor `revision`", json_word(&request.action));
            return Err(problem(Code::RequestInvalid, "run", message, "leave them out"));
        }
        Ok(accepted(pipeline, String::new(), canonical::hash_bytes(b""), purpose))
    }

    /// Accepts what needs a spec: the one that is sent, or the one that was applied.
    fn specified(&self, request: &Request, purpose: Purpose) -> Result<Accepted, Rejected> {
        let spec_text = match (&request.spec, &request.pipeline) {
            (Some(spec), _) => text(spec),
            (None, Some(pipeline)) => self.applied(pipeline)?,
            (None, None) => return Err(nameless()),
        };
        let spec = parse(&spec_text)?;
        if request.pipeline.as_ref().is_some_and(|named| *named != spec.dag_id()) {
            let message = format!("the spec is of pipeline {}, not of {:?}", spec.dag_id(), request.pipeline);
            return Err(problem(Code::RequestInvalid, "pipeline", message, "leave `pipeline` out, or name that one"));
        }
        self.check_policy(&spec)?;
        self.check_locators(&spec)?;
        let params = params::resolve_json(&spec.params, &request.run.params).map_err(Rejected::Invalid)?;
        let interval = request.run.interval.as_ref().map(in_utc).transpose()?;
        let backfill = request.action == Action::Backfill;
        if backfill && interval.is_none() {
            let message = "a backfill needs the interval that it is for".into();
            return Err(problem(Code::RequestInvalid, "run.interval", message, "add run.interval with start and end"));
        }
        if request.revision.is_some() && purpose != Purpose::Apply {
            let message = "only `apply` takes a revision".into();
            return Err(problem(Code::RequestInvalid, "revision", message, "leave it out, or send action: apply"));
        }
        let mut accepted = accepted(spec.dag_id(), spec_text, spec.hash(), purpose);
        (accepted.params, accepted.interval, accepted.backfill) = (params, interval, backfill);
        accepted.revision = request.revision;
        Ok(accepted)
    }

    /// Returns the text of the spec that was applied to a pipeline last.
    fn applied(&self, pipeline: &str) -> Result<String, Rejected> {
        let known = self.register.pipeline(pipeline)?.ok_or_else(|| unknown_pipeline(pipeline))?;
        let applied = known.applied.ok_or_else(|| {
            let message = format!("no spec was ever applied to pipeline {pipeline}");
            problem(Code::RequestUnknown, pipeline, message, "send the spec, with action: apply to have it kept")
        })?;
        let first = self.register.read(&applied, 0)?.into_iter().next().map(|record| record.body);
        match first {
            Some(RecordBody::Accepted(accepted)) => Ok(accepted.spec_text),
            _ => Err(unknown_pipeline(pipeline)),
        }
    }

    fn check_namespace(&self, pipeline: &str, requester: &Requester) -> Result<(), Rejected> {
        let Some(allowed) = &requester.namespaces else { return Ok(()) };
        let namespace = pipeline.split_once('.').map(|(namespace, _)| namespace);
        if namespace.is_some_and(|namespace| allowed.iter().any(|name| name.as_str() == namespace)) {
            return Ok(());
        }
        let message = format!("pipeline {pipeline} lies outside of the namespaces that are open to the requester");
        Err(problem(Code::NotAllowed, pipeline, message, "ask for a token, or a topic, that covers its namespace"))
    }

    fn check_policy(&self, spec: &Spec) -> Result<(), Rejected> {
        let (floor, policy) = (&self.config.policy.floor, &spec.policy);
        let looser = |what: &str, hint: String| {
            let message = format!("policy.{what} is looser than this service allows");
            Err(problem(Code::NotAllowed, &format!("policy.{what}"), message, &hint))
        };
        if let Some(gravest) = floor.schema_change.filter(|gravest| policy.schema_change > *gravest) {
            return looser("schema_change", format!("at most {}", json_word(&gravest)));
        }
        if let Some(loosest) = floor.lossy_cast.filter(|loosest| looseness(policy.lossy_cast) > looseness(*loosest)) {
            return looser("lossy_cast", format!("at most {}", json_word(&loosest)));
        }
        if let Some(least) = floor.approval.filter(|least| strictness(policy.approval) < strictness(*least)) {
            return looser("approval", format!("at least {}", json_word(&least)));
        }
        Ok(())
    }

    fn check_locators(&self, spec: &Spec) -> Result<(), Rejected> {
        for (name, source) in &spec.sources {
            self.check_locator(&source.locator, spec, &format!("sources.{name}"), "read", Config::may_read)?;
        }
        for (name, sink) in &spec.sinks {
            self.check_locator(&sink.locator, spec, &format!("sinks.{name}"), "written", Config::may_write)?;
        }
        Ok(())
    }

    fn check_locator(
        &self,
        locator: &Locator,
        spec: &Spec,
        path: &str,
        how: &str,
        may: impl Fn(&Config, &Name) -> bool,
    ) -> Result<(), Rejected> {
        match locator {
            Locator::Uri(uri) => self.fence.check_uri(uri, path).map_err(Rejected::Problem),
            Locator::Table { connection, .. } | Locator::Query { connection, .. } => {
                let subject = connection.as_str();
                if !self.config.is_open_to(connection, spec.namespace.as_ref()) {
                    let message = format!("connection {connection} is not defined, or not open to this namespace");
                    return Err(problem(Code::ConnectionMissing, subject, message, "see [connections] of the service"));
                }
                if may(&self.config, connection) { Ok(()) } else { Err(Rejected::Problem(closed(connection, how))) }
            }
        }
    }
}

// === impl Fence ===

impl Fence {
    /// Makes the fence of what `config` allows.
    ///
    /// # Errors
    /// When a glob of `uris.allow` is none; the text says which and why.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self, String> {
        let pattern = |text: &String| Pattern::new(text).map_err(|error| format!("uris.allow: {text:?}: {error}"));
        let allowed = config.uris.allow.iter().map(pattern).collect::<Result<_, _>>()?;
        Ok(Self { config, allowed })
    }

    /// Checks that what an agent is asked to read is open, whoever asks.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check_read(&self, locator: &Locator, name: &Name) -> Result<(), Problem> {
        self.check(locator, name, "read", Config::may_read)
    }

    /// Checks that what an agent is asked to inspect as a sink is open, whoever asks.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check_write(&self, locator: &Locator, name: &Name) -> Result<(), Problem> {
        self.check(locator, name, "written", Config::may_write)
    }

    fn check(
        &self,
        locator: &Locator,
        name: &Name,
        how: &str,
        may: impl Fn(&Config, &Name) -> bool,
    ) -> Result<(), Problem> {
        match locator {
            Locator::Uri(uri) => self.check_uri(uri, name.as_str()),
            Locator::Table { connection, .. } | Locator::Query { connection, .. } => {
                if may(&self.config, connection) {
                    Ok(())
                } else {
                    Err(closed(connection, how))
                }
            }
        }
    }

    fn check_uri(&self, uri: &str, path: &str) -> Result<(), Problem> {
        let plain = uri.strip_prefix("file://").unwrap_or(uri);
        let refused = |message: String, hint: &str| {
            Err(Problem { code: Code::NotAllowed, subject: path.into(), message, hint: hint.into() })
        };
        if !uri.contains("://") && !uri.starts_with('/') {
            return refused(
                format!("{uri:?} is relative, and a request has no folder to start from"),
                "write the whole path; `dagwright submit` does so by itself",
            );
        }
        // Whatever a placeholder becomes, it cannot leave the folder that is allowed.
        if plain.split(['/', '{', '}', ':']).any(|part| part == "..") {
            return refused(format!("{uri:?} climbs out of a folder"), "write the path without `..`");
        }
        if self.allowed.iter().any(|pattern| pattern.matches_with(plain, MATCH) || pattern.matches_with(uri, MATCH)) {
            return Ok(());
        }
        refused(format!("{uri:?} is not among the URIs that this service may touch"), "see uris.allow of the service")
    }
}

// === impl Rejected ===

impl Rejected {
    /// Returns what is wrong as one problem: of several the first, with how many there are.
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Invalid(diagnostics) => {
                let others = diagnostics.0.len().saturating_sub(1);
                let first = diagnostics.0.first();
                let mut message = first.map_or_else(|| self.to_string(), |first| first.message.clone());
                if others > 0 {
                    message = format!("{message}, and {}", number::counted(others as u64, "further problem"));
                }
                Problem {
                    code: first.map_or(Code::RequestInvalid, |first| first.code),
                    subject: first.map(|first| first.path.clone()).unwrap_or_default(),
                    message,
                    hint: first.map(|first| first.hint.clone()).unwrap_or_default(),
                }
            }
            Self::Problem(problem) => problem.clone(),
            Self::Store(error) => Problem {
                code: error.code(),
                subject: String::new(),
                message: error.to_string(),
                hint: error.hint().into(),
            },
        }
    }

    /// Returns the code, and everything that is wrong, for where there is room for a text alone.
    pub(crate) fn reason(&self) -> (Code, String) {
        match self {
            Self::Invalid(diagnostics) => {
                let code = diagnostics.0.first().map_or(Code::RequestInvalid, |first| first.code);
                let all = diagnostics.0.iter().map(|it| match it.line {
                    Some(line) => format!("{} line {line}: {}", it.path, it.message),
                    None => format!("{}: {}", it.path, it.message),
                });
                (code, all.collect::<Vec<_>>().join("; "))
            }
            Self::Problem(problem) => (problem.code, format!("{} ({})", problem.message, problem.hint)),
            Self::Store(error) => (error.code(), error.to_string()),
        }
    }
}

/// Returns the pipeline that a request is for, whether or not it can be taken on; `None` where it names none, or nothing
/// that could be the name of one.
pub(crate) fn pipeline_of(request: &Request) -> Option<String> {
    let named = |pipeline: &String| {
        let is_name = pipeline.len() <= DAG_ID_LENGTH_MAX && pipeline.split('.').all(|part| Name::new(part).is_ok());
        (is_name && pipeline.split('.').count() <= 2).then(|| pipeline.clone())
    };
    match &request.spec {
        Some(spec) => Spec::dag_id_in(&text(spec)),
        None => request.pipeline.as_ref().and_then(named),
    }
}

fn accepted(pipeline: String, spec_text: String, spec_hash: String, purpose: Purpose) -> Accepted {
    Accepted {
        pipeline,
        spec_text,
        spec_hash,
        ingress: Ingress::Http,
        purpose,
        base: None,
        params: BTreeMap::new(),
        interval: None,
        backfill: false,
        revision: None,
        identity: None,
        requester: None,
        traceparent: None,
        follows: None,
    }
}

/// Returns the text of a spec that stands in a request as an object, or as text.
fn text(spec: &Value) -> String {
    match spec {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    }
}

fn parse(text: &str) -> Result<Spec, Rejected> {
    Spec::parse(text).map_err(Rejected::Invalid)
}

fn in_utc(given: &Interval) -> Result<Interval, Rejected> {
    interval::of(&given.start, &given.end).map_err(|error| {
        let hint = "write start and end like 2013-01-01T00:00:00Z";
        problem(Code::RequestInvalid, "run.interval", error.to_string(), hint)
    })
}

/// From the strictest: a failure, a row in quarantine, a value that is gone.
fn looseness(cast: LossyCast) -> u8 {
    match cast {
        LossyCast::Reject => 0,
        LossyCast::Quarantine => 1,
        LossyCast::Null => 2,
    }
}

fn strictness(approval: Approval) -> u8 {
    match approval {
        Approval::Never => 0,
        Approval::OnSchemaChange => 1,
        Approval::Always => 2,
    }
}

/// Returns the word that stands for a value in a spec.
fn json_word(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn problem(code: Code, subject: &str, message: String, hint: &str) -> Rejected {
    Rejected::Problem(Problem { code, subject: subject.into(), message, hint: hint.into() })
}

fn closed(connection: &Name, how: &str) -> Problem {
    Problem {
        code: Code::NotAllowed,
        subject: connection.to_string(),
        message: format!("connection {connection} may not be {how}"),
        hint: format!("see connections.{connection}.access of the service"),
    }
}

fn nameless() -> Rejected {
    let message = "the request names no pipeline".into();
    problem(Code::RequestInvalid, "spec", message, "add `spec`, or `pipeline` with the id of one that is known")
}

fn unknown_pipeline(pipeline: &str) -> Rejected {
    let message = format!("there is no pipeline {pipeline:?}");
    problem(Code::RequestUnknown, pipeline, message, "check the id: <namespace>.<pipeline>, or the pipeline alone")
}

fn scope_missing(action: Action, scope: Scope) -> Rejected {
    let message = format!("action {} needs the scope {scope}", json_word(&action));
    problem(Code::ScopeMissing, "action", message, &format!("use a token, or a topic, with the scope {scope}"))
}
