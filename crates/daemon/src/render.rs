//! What people read: plain functions from facts, plans and outcomes to text.
//!
//! Colour goes through [`anstream`], which drops it where nobody sees it. Texts from specs and systems are printed with
//! control characters made visible, so that no name can repaint a terminal.

pub(crate) mod conflicts;
pub(crate) mod dead_letter;
pub(crate) mod event;
pub(crate) mod facts;
pub(crate) mod number;
pub(crate) mod plan;
pub(crate) mod problem;
pub(crate) mod request;
pub(crate) mod story;
pub(crate) mod summary;
pub(crate) mod transcript;

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

/// For headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// For what matters less.
pub(crate) const DIM: Style = Style::new().dimmed();
/// For what went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// For what needs a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// For what went wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Renders `text` in `style`.
pub(crate) fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Makes control characters visible and cuts a text that would fill the screen.
pub(crate) fn safe(text: &str) -> String {
    const LENGTH_MAX: usize = 400;
    let mut safe = String::with_capacity(text.len().min(LENGTH_MAX));
    for (index, character) in text.chars().enumerate() {
        if index == LENGTH_MAX {
            safe.push('…');
            break;
        }
        if is_hidden(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Tells whether a character does something to a terminal instead of being seen: controls, and Unicode's controls of
/// direction and lines, which can make text read differently from what it is.
pub(crate) fn is_hidden(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    );
    character.is_control() || is_format
}

/// A table without lines: columns as wide as their widest cell, two spaces apart.
pub(crate) fn table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table
}

/// Renders a table, each line indented by two spaces and without trailing ones.
pub(crate) fn indented(table: &comfy_table::Table) -> String {
    table.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hostile_text_cannot_repaint_the_terminal() {
        assert_eq!(super::safe("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(super::safe(&"x".repeat(1000)).chars().count(), 401);
    }
}
