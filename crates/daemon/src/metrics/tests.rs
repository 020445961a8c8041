//! The table in `docs/metrics.md`, the dashboard and the alert rules are about metrics that exist.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use dagwright_telemetry::metric::{Appears, Kind, Metric, Values};

use super::ALL;

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn metrics() -> impl Iterator<Item = &'static Metric> {
    ALL.iter().flat_map(|(_, table)| table.iter())
}

#[test]
fn names_say_what_they_count_and_in_what() {
    let mut seen = BTreeSet::new();
    for metric in metrics() {
        let Metric { name, kind, unit, help, labels, .. } = *metric;
        assert!(seen.insert(name), "{name} is there twice");
        assert!(name.starts_with("dagwright_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let ends = |suffix: &str| name.trim_end_matches("_total").ends_with(suffix);
        assert_eq!(unit == "s", ends("_seconds"), "{name} in {unit:?}");
        assert_eq!(unit == "By", ends("_bytes"), "{name} in {unit:?}");
        assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        for label in labels {
            assert!(!["le", "quantile", "pipeline", "request_id"].contains(&label.name), "{name}: {}", label.name);
        }
        if let Kind::Histogram(bounds) = kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
        }
    }
}

#[test]
fn the_table_of_metrics_is_current() {
    let mut wanted = String::from(
        "# Metrics\n\n`/metrics` shows them to Prometheus, and OTLP sends the same (`telemetry.otlp.endpoint`). No label holds the name of a \
         pipeline, a request or a table, so their number is bounded. [operations.md](operations.md) says what to make of them.\n",
    );
    for (owner, table) in ALL {
        write!(wanted, "\n## {owner}\n\n| metric | kind | labels | what | there |\n|---|---|---|---|---|\n").unwrap();
        for metric in table {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let label = |label: &dagwright_telemetry::metric::Label| match label.values {
                Values::Of(values) => format!("`{}`: {}", label.name, values.join(", ")),
                Values::Few(reason) => format!("`{}` ({reason})", label.name),
            };
            let labels: Vec<_> = metric.labels.iter().map(label).collect();
            let there = match metric.appears {
                Appears::AtOnce => "at once".to_owned(),
                Appears::After(what) => format!("after {what}"),
                Appears::Where(what) => what.to_owned(),
            };
            writeln!(wanted, "| `{}` | {kind} | {} | {} | {there} |", metric.name, labels.join("; "), metric.help)
                .unwrap();
        }
    }
    let path = repository().join("docs/metrics.md");
    if env::var_os("DAGWRIGHT_BLESS").is_some() {
        fs::write(&path, &wanted).expect("the table is writable");
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|text| text == wanted),
        "docs/metrics.md is stale: DAGWRIGHT_BLESS=1 cargo test -p dagwright-daemon table_of_metrics"
    );
}

/// Returns the names in a text that look like ours.
fn names(text: &str) -> BTreeSet<&str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_name(letter));
    words.filter(|word| word.starts_with("dagwright_") || word.starts_with("process_")).collect()
}

#[track_caller]
fn check_names(path: &str, at_least: usize) {
    let text = read(path);
    let used = names(&text);
    assert!(used.len() >= at_least, "{path} uses {} metrics", used.len());
    let exists = |used: &str| {
        metrics().any(|metric| {
            let rest = used.strip_prefix(metric.name);
            match (metric.kind, rest) {
                (Kind::Counter | Kind::Gauge, Some(rest)) => rest.is_empty(),
                (Kind::Histogram(_), Some(rest)) => ["_bucket", "_sum", "_count"].contains(&rest),
                (_, None) => false,
            }
        })
    };
    let unknown: Vec<_> = used.into_iter().filter(|used| !exists(used)).collect();
    assert!(unknown.is_empty(), "{path} uses metrics that do not exist: {unknown:?}");
}

#[test]
fn the_dashboard_uses_metrics_that_exist() {
    check_names("deploy/grafana/dagwright.json", 20);
}

#[test]
fn the_alerts_use_metrics_that_exist_and_have_a_runbook() {
    check_names("deploy/prometheus/rules.yaml", 8);
    let (rules, runbook) = (read("deploy/prometheus/rules.yaml"), read("docs/operations.md"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let links = rules.lines().filter(|line| line.trim().starts_with("runbook_url: ")).count();
    assert!(alerts.len() >= 8 && links == alerts.len(), "{} alerts, {links} runbooks", alerts.len());
    for alert in alerts {
        let anchor = alert.to_ascii_lowercase();
        assert!(rules.contains(&format!("docs/operations.md#{anchor}")), "{alert} has no link to its runbook");
        assert!(runbook.contains(&format!("### {alert}\n")), "docs/operations.md does not speak of {alert}");
    }
}
