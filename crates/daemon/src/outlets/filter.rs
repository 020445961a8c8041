//! Which events an outlet is for.

use dagwright_model::id::Name;
use dagwright_wire::cloudevent::CloudEvent;
use glob::Pattern;

/// What stands around an event's name in its CloudEvents type.
const TYPE: (&str, &str) = ("dev.dagwright.", ".v1");

/// Tells wanted events from others.
pub(super) struct Filter {
    kinds: Vec<Pattern>,
    namespaces: Option<Vec<Name>>,
}

// === impl Filter ===

impl Filter {
    /// Makes a filter.
    ///
    /// # Errors
    /// When a glob is none.
    pub(super) fn new(globs: &[String], namespaces: Option<&[Name]>) -> Result<Self, glob::PatternError> {
        let kinds = globs.iter().map(|glob| Pattern::new(glob)).collect::<Result<_, _>>()?;
        Ok(Self { kinds, namespaces: namespaces.map(Into::into) })
    }

    /// Tells whether an event is wanted.
    pub(super) fn wants(&self, event: &CloudEvent) -> bool {
        let name = event.kind.strip_prefix(TYPE.0).and_then(|rest| rest.strip_suffix(TYPE.1));
        let namespace = pipeline(event).split_once('.').map(|(namespace, _)| namespace);
        let is_open = self
            .namespaces
            .as_ref()
            .is_none_or(|open| namespace.is_some_and(|namespace| open.iter().any(|name| name.as_str() == namespace)));
        is_open && name.is_some_and(|name| self.kinds.iter().any(|glob| glob.matches(name)))
    }
}

/// Returns the pipeline (by `dag_id`) that an event is of.
pub(super) fn pipeline(event: &CloudEvent) -> &str {
    event.extensions.get("partitionkey").map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        event::{self, Subject},
        id::RequestId,
        record::{Cancelled, Record, RecordBody},
    };
    use dagwright_wire::cloudevent;

    use super::Filter;

    /// Tells whether `request.rejected` of a pipeline is wanted.
    #[track_caller]
    fn check(globs: &[&str], namespaces: Option<&[&str]>, pipeline: &str, wanted: bool) {
        let subject = Subject { pipeline, plan: None, runs: false, dag_run: None, traceparent: None };
        let body = RecordBody::Cancelled(Cancelled::default());
        let record = Record { request: RequestId("r".into()), sequence: 1, at: 0, body };
        let event = cloudevent::of_event(&event::of(subject, &record).expect("an event"));
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        let names: Option<Vec<_>> = namespaces.map(|names| names.iter().map(|name| name.parse().unwrap()).collect());
        let filter = Filter::new(&globs, names.as_deref()).expect("globs");
        assert_eq!(filter.wants(&event), wanted, "{globs:?} {namespaces:?} {pipeline}");
    }

    #[test]
    fn events_are_chosen_by_name_and_namespace() {
        check(&["*"], None, "p", true);
        check(&["request.*"], None, "a.p", true);
        check(&["run.*", "*.rejected"], None, "p", true);
        check(&["run.*"], None, "p", false);
        check(&[], None, "p", false);
        check(&["*"], Some(&["a"]), "a.p", true);
        check(&["*"], Some(&["a"]), "b.p", false);
        check(&["*"], Some(&["a"]), "p", false);
    }
}
