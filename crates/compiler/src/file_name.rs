//! The common part of a plan's file names.

use dagwright_model::canonical;

/// The longest stem: a file name has at most 255 bytes, and `.<hash12>.plan.json` follows it.
const STEM_BYTES_MAX: usize = 200;

/// Returns the DAG id as part of a file name: itself, unless it is long or strange.
///
/// A DAG id is made of two [`Name`](dagwright_model::id::Name)s and a dot, so only length changes it; any other
/// character, which a plan not sealed by us might hold, is replaced. A digest then keeps different ids apart.
pub(crate) fn stem(dag_id: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::stem;

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
}
