//! Why a command did not do what was asked, in the form that decides how it is told and with which code it exits.

use dagwright_model::{code::Code, spec::Diagnostics, task::Problem};
use serde_json::{Value, json};

use crate::{config, exit::Exit, http::auth, output::Output, render, spec_file::Unusable};

/// A refusal with a stable code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the arguments do not fit the spec")]
    Arguments(Diagnostics),
    #[error("the service refused the spec")]
    Refused(Diagnostics),
    #[error(transparent)]
    Problem(Problem),
}

/// Tells people or machines why there is no answer, and returns how to exit.
pub(crate) fn tell(error: &anyhow::Error, output: Output) -> Exit {
    if let Some(Unusable::Invalid { file, diagnostics }) = error.downcast_ref() {
        output.plain_error(&render::problem::diagnostics(&file.to_string_lossy(), diagnostics));
        return said(output, json!({ "diagnostics": diagnostics }), Exit::BadInput);
    }
    if let Some(Refusal::Arguments(diagnostics)) = error.downcast_ref() {
        output.plain_error(&render::problem::diagnostics("--param", diagnostics));
        return said(output, json!({ "diagnostics": diagnostics }), Exit::BadInput);
    }
    if let Some(config::Error::Invalid(diagnostics)) = error.downcast_ref() {
        let problems: Vec<_> = diagnostics.iter().map(setting).collect();
        for problem in &problems {
            output.error(&render::problem::problem(problem));
        }
        return said(output, json!({ "problems": problems }), Exit::BadInput);
    }
    if let Some(Refusal::Refused(diagnostics)) = error.downcast_ref() {
        output.plain_error(&render::problem::diagnostics("the service", diagnostics));
        return said(output, json!({ "diagnostics": diagnostics }), Exit::BadInput);
    }
    let problem = problem(error);
    let exit = Exit::of(problem.code);
    output.error(&render::problem::problem(&problem));
    said(output, json!({ "problems": [problem] }), exit)
}

fn said(output: Output, value: Value, exit: Exit) -> Exit {
    // Nobody to tell it to: the exit code still does.
    let _ = output.json(&value);
    exit
}

/// Returns an error as a problem; what has no code of its own is an invariant that does not hold.
pub(crate) fn problem(error: &anyhow::Error) -> Problem {
    if let Some(Refusal::Problem(problem)) = error.downcast_ref() {
        return problem.clone();
    }
    let chain = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let (code, hint) = if let Some(error) = store_error(error) {
        (error.code(), error.hint())
    } else if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<dagwright_bus::kafka::Error>()) {
        (error.code(), error.remedy())
    } else if error.is::<config::Error>() {
        (Code::ConfigInvalid, "config/default.toml lists every setting")
    } else if error.is::<auth::Unusable>() {
        (Code::ConfigInvalid, "give each caller a token of their own, as `openssl rand -hex 32` makes them")
    } else if error.is::<Unusable>() {
        (Code::SpecUnreadable, "check the path")
    } else if error.chain().any(|cause| cause.is::<std::io::Error>()) {
        (Code::OutputUnwritable, "check the path and its permissions")
    } else {
        (Code::Internal, "report this, with the log of --verbose")
    };
    Problem { code, subject: String::new(), message: chain, hint: hint.into() }
}

fn setting(diagnostic: &config::diagnose::Diagnostic) -> Problem {
    Problem {
        code: Code::ConfigInvalid,
        subject: diagnostic.key.clone(),
        message: diagnostic.to_string(),
        hint: diagnostic.hint.clone(),
    }
}

fn store_error(error: &anyhow::Error) -> Option<&dagwright_store::Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}
