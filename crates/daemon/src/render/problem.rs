//! Problems and diagnostics: what is wrong, where, and what to do.

use std::fmt::Write as _;

use dagwright_model::{spec::Diagnostics, task::Problem};

use super::{BAD, DIM, safe, styled};

/// Renders a problem in two lines.
pub(crate) fn problem(problem: &Problem) -> String {
    let mut text = format!("{} {}", styled(BAD, problem.code), safe(&problem.message));
    if !problem.subject.is_empty() {
        let _ = write!(text, " {}", styled(DIM, format_args!("[{}]", safe(&problem.subject))));
    }
    if !problem.hint.is_empty() {
        let _ = write!(text, "\n       → {}", safe(&problem.hint));
    }
    text.push('\n');
    text
}

/// Renders every diagnostic of a file, each with the line to click on.
pub(crate) fn diagnostics(file: &str, diagnostics: &Diagnostics) -> String {
    let mut text = String::new();
    for diagnostic in &diagnostics.0 {
        let line = diagnostic.line.map(|line| format!(":{line}")).unwrap_or_default();
        let path = if diagnostic.path.is_empty() { String::new() } else { format!(" {}:", safe(&diagnostic.path)) };
        let code = styled(BAD, diagnostic.code);
        let _ = writeln!(text, "{}{line}: {code}{path} {}", safe(file), safe(&diagnostic.message));
        if !diagnostic.hint.is_empty() {
            let _ = writeln!(text, "       → {}", safe(&diagnostic.hint));
        }
    }
    text
}
