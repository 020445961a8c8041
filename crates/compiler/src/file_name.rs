//! How compiled files are called, and how they are known again.

use dagwright_model::canonical;

/// What every compiled DAG file begins with, and nobody else's.
pub const DAG_FILE_START: &str = "\"\"\"Compiled by Dagwright from plan ";

/// What ends the name of a plan file, behind the digits of its hash.
pub const PLAN_FILE_END: &str = ".plan.json";

/// How many digits of a plan's hash stand in the name of its file.
const HASH_DIGITS: usize = 12;

/// The longest stem: a file name has at most 255 bytes, and `.<hash12>.plan.json` follows it.
const STEM_BYTES_MAX: usize = 200;

/// Returns the DAG id as part of a file name: itself, unless it is long or strange.
///
/// A DAG id is made of two [`Name`](dagwright_model::id::Name)s and a dot, so only length changes it; any other
/// character, which a plan not sealed by us might hold, is replaced. A digest then keeps different ids apart.
#[must_use]
pub fn stem(dag_id: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut stem: String = dag_id.chars().map(|c| if allowed(c) { c } else { '_' }).take(STEM_BYTES_MAX).collect();
    if stem.is_empty() || stem.starts_with(['.', '-']) {
        stem.insert(0, '_');
    }
    if stem != dag_id {
        stem.push('-');
        stem.push_str(&canonical::hash_bytes(dag_id.as_bytes())[..12]);
    }
    stem
}

/// Returns the name of the DAG file of a stem.
#[must_use]
pub fn dag_file(stem: &str) -> String {
    format!("{stem}.py")
}

/// Returns the stem and the digits of the hash that a name of a plan file is made of, or `None` where it is none.
#[must_use]
pub fn plan_file_parts(name: &str) -> Option<(&str, &str)> {
    let (stem, digits) = name.strip_suffix(PLAN_FILE_END)?.rsplit_once('.')?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (!stem.is_empty() && digits.len() == HASH_DIGITS && digits.bytes().all(is_digit)).then_some((stem, digits))
}

#[cfg(test)]
mod tests {
    use super::{plan_file_parts, stem};

    #[test]
    fn ids_stay_readable_and_apart() {
        assert_eq!(stem("flights_daily"), "flights_daily");
        assert_eq!(stem("aviation.flights_daily"), "aviation.flights_daily");
        for strange in ["", "../../etc/passwd", "a/b", ".hidden", "-rf", "a\0b", "ä", &"a".repeat(257)] {
            let stem = stem(strange);
            assert!(stem.len() <= 214 && !stem.contains(['/', '\0']) && !stem.starts_with(['.', '-']), "{stem}");
        }
        assert_ne!(stem("a/b"), stem("a:b"));
        assert_ne!(stem(&"a".repeat(256)), stem(&"a".repeat(257)));
    }

    #[test]
    fn plan_files_are_known_again() {
        assert_eq!(plan_file_parts("a.b.0123456789ab.plan.json"), Some(("a.b", "0123456789ab")));
        for other in ["a.py", "a.plan.json", ".0123456789ab.plan.json", "a.0123456789AB.plan.json", "a.0123.plan.json"]
        {
            assert_eq!(plan_file_parts(other), None, "{other}");
        }
    }
}
