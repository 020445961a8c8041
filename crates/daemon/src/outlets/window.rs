//! What is under way to one receiver: a part of the events, those of a pipeline in order, those of others beside them.
//!
//! A place counts as reached when everything before it is settled, so whoever goes on from there misses nothing, and
//! repeats at most a window. Pure: no clock, no I/O.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use dagwright_wire::cloudevent::CloudEvent;

/// How many events are at hand: enough for every post that may be under way, few to repeat after a crash.
const ENTRIES_MAX: usize = 256;

/// Where an event is: its partition (0 where there are none), and its position there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) position: u64,
}

/// The events at hand, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    reached: BTreeMap<i32, u64>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    /// The position up to which nothing behind it is left either.
    last: u64,
    pipeline: String,
    event: Arc<CloudEvent>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { not_before: Option<Instant> },
    UnderWay,
    Settled,
}

// === impl Window ===

impl Window {
    /// Tells whether there is room for another event.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < ENTRIES_MAX
    }

    /// Takes in the next event of a partition.
    pub(super) fn push(&mut self, place: Place, pipeline: &str, event: CloudEvent) {
        self.entries.push_back(Entry {
            place,
            last: place.position,
            pipeline: pipeline.into(),
            event: Arc::new(event),
            state: State::Waiting { not_before: None },
        });
    }

    /// Passes over the next event of a partition: it takes no room, whatever it waits behind.
    pub(super) fn pass(&mut self, place: Place) {
        match self.entries.iter_mut().rev().find(|entry| entry.place.partition == place.partition) {
            Some(entry) => entry.last = place.position,
            None => drop(self.reached.insert(place.partition, place.position)),
        }
    }

    /// Returns the next event to be posted, which is then under way: the first of its pipeline that is not settled.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Place, Arc<CloudEvent>)> {
        let mut ahead = HashSet::new();
        for entry in &mut self.entries {
            let is_first = entry.state != State::Settled && ahead.insert(&entry.pipeline);
            match entry.state {
                State::Waiting { not_before } if is_first && not_before.is_none_or(|then| then <= now) => {
                    entry.state = State::UnderWay;
                    return Some((entry.place, entry.event.clone()));
                }
                State::Waiting { .. } | State::UnderWay | State::Settled => {}
            }
        }
        None
    }

    /// Returns when the next event that waits for its time may be posted.
    pub(super) fn wakes(&self) -> Option<Instant> {
        let times = self.entries.iter().filter_map(|entry| match entry.state {
            State::Waiting { not_before } => not_before,
            State::UnderWay | State::Settled => None,
        });
        times.min()
    }

    /// Notes that an event is to be posted again, not before a time.
    pub(super) fn retry(&mut self, place: Place, not_before: Option<Instant>) {
        if let Some(entry) = self.find(place) {
            entry.state = State::Waiting { not_before };
        }
    }

    /// Notes that nothing is left to do for an event.
    pub(super) fn settle(&mut self, place: Place) {
        if let Some(entry) = self.find(place) {
            entry.state = State::Settled;
        }
        let (mut open, reached) = (HashSet::new(), &mut self.reached);
        self.entries.retain(|entry| {
            let partition = entry.place.partition;
            if entry.state != State::Settled {
                open.insert(partition);
            }
            let is_kept = open.contains(&partition);
            if !is_kept {
                reached.insert(partition, entry.last);
            }
            is_kept
        });
    }

    /// Forgets a partition that somebody else goes on with.
    pub(super) fn lose(&mut self, partition: i32) {
        self.entries.retain(|entry| entry.place.partition != partition);
        self.reached.remove(&partition);
    }

    /// Tells whether an event is still at hand.
    pub(super) fn holds(&self, place: Place) -> bool {
        self.entries.iter().any(|entry| entry.place == place)
    }

    /// Returns the places up to which everything is settled, by partition; what nothing was heard of is not there.
    pub(super) fn reached(&self) -> &BTreeMap<i32, u64> {
        &self.reached
    }

    fn find(&mut self, place: Place) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.place == place)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, Instant},
    };

    use dagwright_wire::cloudevent::CloudEvent;

    use super::{ENTRIES_MAX, Place, Window};

    fn event(id: &str) -> CloudEvent {
        CloudEvent {
            id: id.into(),
            source: "/tests".into(),
            kind: "dev.dagwright.run.started.v1".into(),
            subject: None,
            time: None,
            dataschema: None,
            datacontenttype: None,
            extensions: BTreeMap::new(),
            data: None,
        }
    }

    fn at(partition: i32, position: u64) -> Place {
        Place { partition, position }
    }

    /// Fills a window with events of pipelines, each at the next position of partition 0, from 1.
    fn window(pipelines: &[&str]) -> Window {
        let mut window = Window::default();
        for (position, pipeline) in (1..).zip(pipelines) {
            window.push(at(0, position), pipeline, event(pipeline));
        }
        window
    }

    fn start(window: &mut Window, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| window.start(now)).map(|(place, _)| place.position).collect()
    }

    #[test]
    fn events_of_a_pipeline_go_one_after_the_other() {
        let (mut window, now) = (window(&["p", "p", "q", "p"]), Instant::now());
        assert_eq!(start(&mut window, now), [1, 3]);
        window.settle(at(0, 1));
        assert_eq!(start(&mut window, now), [2]);
        window.retry(at(0, 2), None);
        assert_eq!(start(&mut window, now), [2], "4 still waits behind it");
        window.settle(at(0, 2));
        assert_eq!(start(&mut window, now), [4]);
    }

    #[test]
    fn a_place_is_reached_when_nothing_before_it_is_left() {
        let (mut window, now) = (window(&["p", "q", "r"]), Instant::now());
        assert_eq!(start(&mut window, now), [1, 2, 3]);
        window.settle(at(0, 2));
        assert!(window.reached().is_empty());
        window.pass(at(0, 7));
        window.settle(at(0, 1));
        assert_eq!(window.reached()[&0], 2);
        window.settle(at(0, 3));
        assert_eq!(window.reached()[&0], 7, "what nobody wanted goes with what was before it");
        window.pass(at(0, 9));
        assert_eq!((window.reached()[&0], window.entries.is_empty()), (9, true));
    }

    #[test]
    fn partitions_are_reached_apart_and_lost_apart() {
        let (mut window, now) = (window(&["p"]), Instant::now());
        window.push(at(1, 50), "q", event("q"));
        assert_eq!(start(&mut window, now), [1, 50]);
        window.settle(at(1, 50));
        assert_eq!(window.reached(), &BTreeMap::from([(1, 50)]));
        window.lose(1);
        window.lose(0);
        assert!(window.reached().is_empty() && window.entries.is_empty());
        window.settle(at(0, 1));
        assert!(window.reached().is_empty(), "what was lost is another's");
    }

    #[test]
    fn who_waits_for_its_time_holds_up_its_own_pipeline_only() {
        let (mut window, now) = (window(&["p", "q", "p"]), Instant::now());
        assert_eq!(start(&mut window, now), [1, 2]);
        let then = now + Duration::from_secs(9);
        window.retry(at(0, 1), Some(then));
        window.settle(at(0, 2));
        assert_eq!((start(&mut window, now), window.wakes()), (Vec::new(), Some(then)));
        assert_eq!(start(&mut window, then), [1]);
        assert_eq!(window.wakes(), None);
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_passed_takes_none() {
        let mut window = Window::default();
        for position in 0..ENTRIES_MAX as u64 {
            assert!(window.has_room());
            window.push(at(0, position), "p", event("p"));
            window.pass(at(0, position));
        }
        assert!(!window.has_room());
    }
}
