//! Whose turn it is: the requests of one pipeline go on in the order in which they came, those of others beside them.
//!
//! A request holds its pipeline until its plan runs; from then on the plan's `max_active_runs` says how many requests of
//! the pipeline may be under way. Pure: no clock, no I/O. Deliberately absent: how many may negotiate or run in all, which
//! is a matter of permits.

use std::collections::{BTreeMap, HashSet, VecDeque};

use dagwright_model::id::RequestId;

/// The requests that have not ended, by pipeline.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: BTreeMap<String, Line>,
    open: HashSet<RequestId>,
}

#[derive(Debug)]
struct Line {
    waiting: VecDeque<RequestId>,
    /// The one that goes on, and does not run yet.
    ahead: Option<RequestId>,
    running: HashSet<RequestId>,
    /// Those that wait for nobody, and hold nobody up.
    beside: HashSet<RequestId>,
    /// How many may run at a time, as the newest running plan says.
    running_max: usize,
}

// === impl Queue ===

impl Queue {
    /// Takes a request in; returns whose turn it is now, if anybody's.
    pub(crate) fn arrive(&mut self, pipeline: &str, request: RequestId) -> Option<RequestId> {
        if !self.open.insert(request.clone()) {
            return None;
        }
        let line = self.lines.entry(pipeline.to_owned()).or_default();
        line.waiting.push_back(request);
        line.next()
    }

    /// Takes a request in that waits for nobody and holds nobody up.
    pub(crate) fn pass(&mut self, pipeline: &str, request: RequestId) {
        self.open.insert(request.clone());
        self.lines.entry(pipeline.to_owned()).or_default().beside.insert(request);
    }

    /// Notes that a request's plan runs, as one of at most `running_max`; returns whose turn it is now.
    pub(crate) fn run(&mut self, pipeline: &str, request: &RequestId, running_max: usize) -> Option<RequestId> {
        let line = self.lines.get_mut(pipeline)?;
        if line.ahead.as_ref() != Some(request) {
            return None;
        }
        line.running.extend(line.ahead.take());
        line.running_max = running_max.max(1);
        line.next()
    }

    /// Forgets a request; returns whose turn it is now.
    pub(crate) fn leave(&mut self, pipeline: &str, request: &RequestId) -> Option<RequestId> {
        if !self.open.remove(request) {
            return None;
        }
        let line = self.lines.get_mut(pipeline)?;
        let was_there = line.ahead.take_if(|ahead| ahead == request).is_some()
            || line.running.remove(request)
            || line.beside.remove(request);
        if !was_there {
            line.waiting.retain(|waiting| waiting != request);
        }
        let next = line.next();
        if line.is_empty() {
            self.lines.remove(pipeline);
        }
        next
    }

    /// Forgets every request of the pipelines that another process goes on with.
    pub(crate) fn release(&mut self, is_lost: impl Fn(&str) -> bool) {
        let open = &mut self.open;
        self.lines.retain(|pipeline, line| {
            let lost = is_lost(pipeline);
            if lost {
                for request in line.waiting.iter().chain(&line.ahead).chain(&line.running).chain(&line.beside) {
                    open.remove(request);
                }
            }
            !lost
        });
    }

    /// Returns how many requests have not ended.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

// === impl Line ===

impl Line {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ahead.is_none() && self.running.is_empty() && self.beside.is_empty()
    }

    fn next(&mut self) -> Option<RequestId> {
        if self.ahead.is_some() || self.running.len() >= self.running_max {
            return None;
        }
        self.ahead = self.waiting.pop_front();
        self.ahead.clone()
    }
}

impl Default for Line {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), ahead: None, running: HashSet::new(), beside: HashSet::new(), running_max: 1 }
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::id::RequestId;

    use super::Queue;

    fn id(text: &str) -> RequestId {
        RequestId(text.into())
    }

    #[test]
    fn a_pipelines_requests_go_on_in_their_order() {
        let mut queue = Queue::default();
        assert_eq!(queue.arrive("p", id("a")), Some(id("a")));
        assert_eq!(queue.arrive("p", id("b")), None);
        assert_eq!(queue.arrive("p", id("c")), None);
        assert_eq!(queue.arrive("q", id("d")), Some(id("d")), "another pipeline waits for nobody");
        assert_eq!(queue.run("p", &id("a"), 1), None);
        assert_eq!(queue.leave("p", &id("a")), Some(id("b")));
        assert_eq!(queue.leave("p", &id("b")), Some(id("c")));
        assert_eq!(queue.leave("p", &id("c")), None);
        assert_eq!(queue.open(), 1);
    }

    #[test]
    fn as_many_run_as_the_plan_allows() {
        let mut queue = Queue::default();
        queue.arrive("p", id("a"));
        for other in ["b", "c"] {
            queue.arrive("p", id(other));
        }
        assert_eq!(queue.run("p", &id("a"), 2), Some(id("b")));
        assert_eq!(queue.run("p", &id("b"), 2), None);
        assert_eq!(queue.leave("p", &id("a")), Some(id("c")));
    }

    #[test]
    fn who_waits_for_nobody_is_counted_and_holds_nobody_up() {
        let mut queue = Queue::default();
        queue.pass("p", id("x"));
        assert_eq!(queue.arrive("p", id("a")), Some(id("a")));
        queue.pass("p", id("x"));
        assert_eq!(queue.open(), 2);
        assert_eq!(queue.leave("p", &id("x")), None, "a has its turn already");
        assert_eq!(queue.open(), 1);
        queue.pass("q", id("y"));
        queue.release(|pipeline| pipeline == "q");
        assert_eq!((queue.open(), queue.leave("p", &id("a"))), (1, None));
    }

    #[test]
    fn what_another_process_has_is_forgotten() {
        let mut queue = Queue::default();
        for (pipeline, request) in [("p", "a"), ("p", "b"), ("q", "c")] {
            queue.arrive(pipeline, id(request));
        }
        queue.run("p", &id("a"), 1);
        queue.release(|pipeline| pipeline == "p");
        assert_eq!(queue.open(), 1);
        assert_eq!(queue.leave("p", &id("a")), None);
        assert_eq!(queue.arrive("p", id("b")), Some(id("b")), "it may come back");
    }

    #[test]
    fn who_leaves_the_line_lets_the_next_one_go_on() {
        let mut queue = Queue::default();
        queue.arrive("p", id("a"));
        queue.arrive("p", id("b"));
        queue.arrive("p", id("c"));
        assert_eq!(queue.leave("p", &id("b")), None);
        assert_eq!(queue.leave("p", &id("b")), None, "twice");
        assert_eq!(queue.leave("p", &id("a")), Some(id("c")));
        assert_eq!(queue.leave("p", &id("c")), None);
        assert_eq!(queue.open(), 0);
        assert_eq!(queue.arrive("p", id("a")), Some(id("a")));
        assert_eq!(queue.arrive("p", id("a")), None, "twice");
        assert_eq!(queue.open(), 1);
    }
}
