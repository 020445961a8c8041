//! Words of later versions.

/// The longest word that is kept, in characters; Airflow's columns have 50.
const WORD_CHARS_MAX: usize = 50;

/// Cuts a state that nobody knows to what is worth keeping.
pub(crate) fn cut(word: String) -> String {
    if word.chars().nth(WORD_CHARS_MAX).is_none() { word } else { word.chars().take(WORD_CHARS_MAX).collect() }
}
