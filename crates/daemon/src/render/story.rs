//! What happened to a request, as people read it.

use std::fmt::Write as _;

use super::{DIM, HEADING, number, safe, styled};
use crate::api::Story;

/// The order in which the parts of a story are told to have taken their time.
const PARTS: [&str; 5] = ["waiting", "negotiating", "approval", "running", "total"];

/// Renders a story: a paragraph for each chapter.
pub(crate) fn story(story: &Story) -> String {
    let mut text = format!("{}\n", styled(HEADING, safe(&story.summary)));
    for chapter in &story.chapters {
        let when = format!("+{} · {}", number::elapsed_ms(chapter.after_ms), safe(&chapter.at));
        let _ = writeln!(text, "\n{} {}", styled(HEADING, safe(&chapter.title)), styled(DIM, when));
        for told in &chapter.told {
            let _ = writeln!(text, "  {}", safe(told));
        }
    }
    let took = PARTS.iter().filter_map(|part| Some((part, story.took_ms.get(*part)?)));
    let took: Vec<_> = took.map(|(part, ms)| format!("{part} {}", number::elapsed_ms(*ms))).collect();
    let _ = writeln!(text, "\n{} {}", styled(HEADING, "Time"), took.join(", "));
    text
}
