//! Which process speaks for a party that does not run here: one at a time for a session, and the same to its end.
//!
//! Processes with the same agent stand in for each other. Which of them serves a session follows from both names, so
//! sessions spread over them; the transcript names parties alone, and reads the same whoever served. One that ended, or
//! was not heard of for a while, is replaced, and its successor is told everything from the start.
//!
//! A pure machine: time arrives as data, in milliseconds of any clock that does not run backwards.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_bus::Encoding;
use dagwright_model::{canonical, id::RequestId, letter::Presence, message::Party};

/// A process that was not heard of for so long is away: five of its words were lost, or it was.
const SILENCE_MS_MAX: u64 = 10_000;

/// How many processes of one agent are remembered; more would be somebody's mistake, or somebody's intent.
const HOSTS_MAX: usize = 256;

/// Who is there, and who serves which session.
#[derive(Debug)]
pub(crate) struct Roster {
    parties: BTreeSet<Party>,
    patience_ms: u64,
    hosts: BTreeMap<Party, BTreeMap<String, Seen>>,
    routes: BTreeMap<(RequestId, Party), Route>,
}

#[derive(Debug)]
struct Seen {
    incarnation: String,
    heard_ms: u64,
    encoding: Encoding,
}

/// Who serves a party in a session.
#[derive(Debug, PartialEq)]
enum Route {
    Host(String),
    Nobody { since_ms: u64 },
}

/// What sessions must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Another process, or another life of the same, serves the party now, and knows nothing.
    Moved {
        party: Party,
        sessions: Vec<RequestId>,
        /// Whether the last one ended without a word, perhaps over one of the sessions.
        blamed: bool,
    },
    /// Nobody came for longer than one waits.
    Away { party: Party, sessions: Vec<RequestId> },
}

// === impl Roster ===

impl Roster {
    /// Makes a roster of parties, none of which was heard of.
    pub(crate) fn new(parties: BTreeSet<Party>, patience_ms: u64) -> Self {
        Self { parties, patience_ms, hosts: BTreeMap::new(), routes: BTreeMap::new() }
    }

    /// Notes that an agent is there, or goes.
    pub(crate) fn heard(&mut self, presence: &Presence, encoding: Encoding, now_ms: u64) -> Vec<Change> {
        let Presence { party, host, incarnation, leaving } = presence;
        if !self.parties.contains(party) {
            return Vec::new();
        }
        let hosts = self.hosts.entry(party.clone()).or_default();
        if *leaving {
            let was_there = hosts.get(host).is_some_and(|seen| seen.incarnation == *incarnation);
            if !was_there {
                return Vec::new();
            }
            hosts.remove(host);
            return self.moved(party, false, |route| *route == Route::Host(host.clone()));
        }
        if !hosts.contains_key(host) && hosts.len() >= HOSTS_MAX {
            return Vec::new();
        }
        let seen = Seen { incarnation: incarnation.clone(), heard_ms: now_ms, encoding };
        match hosts.insert(host.clone(), seen) {
            None => self.moved(party, false, |route| matches!(route, Route::Nobody { .. })),
            Some(last) if last.incarnation == *incarnation => Vec::new(),
            Some(_) => self.moved(party, true, |route| *route == Route::Host(host.clone())),
        }
    }

    /// Lets time pass.
    pub(crate) fn passed(&mut self, now_ms: u64) -> Vec<Change> {
        let mut silent = Vec::new();
        for (party, hosts) in &mut self.hosts {
            let is_silent = |seen: &Seen| now_ms.saturating_sub(seen.heard_ms) > SILENCE_MS_MAX;
            let gone = hosts.extract_if(.., |_, seen| is_silent(seen));
            silent.extend(gone.map(|(host, _)| (party.clone(), host)));
        }
        let mut changes: Vec<_> = silent
            .into_iter()
            .flat_map(|(party, host)| self.moved(&party, true, |route| *route == Route::Host(host.clone())))
            .collect();
        for party in &self.parties {
            let waits_long = |route: &Route| {
                matches!(route, Route::Nobody { since_ms }
                if now_ms.saturating_sub(*since_ms) > self.patience_ms)
            };
            let of = self.routes.iter().filter(|((_, of), route)| of == party && waits_long(route));
            let sessions: Vec<_> = of.map(|((session, _), _)| session.clone()).collect();
            if !sessions.is_empty() {
                changes.push(Change::Away { party: party.clone(), sessions });
            }
        }
        changes
    }

    /// Returns who is to read what a session has for a party, and in which encoding; `None` while nobody is there.
    pub(crate) fn route(&mut self, session: &RequestId, party: &Party, now_ms: u64) -> Option<(String, Encoding)> {
        let key = (session.clone(), party.clone());
        let hosts = self.hosts.get(party);
        if let Some(Route::Host(host)) = self.routes.get(&key)
            && let Some(seen) = hosts.and_then(|hosts| hosts.get(host))
        {
            return Some((host.clone(), seen.encoding));
        }
        // As in rendezvous hashing: one that goes or comes moves no session but its own.
        let chosen = hosts.and_then(|hosts| hosts.iter().min_by_key(|(host, _)| canonical::hash(&(&session.0, host))));
        match chosen {
            Some((host, seen)) => {
                let route = (host.clone(), seen.encoding);
                self.routes.insert(key, Route::Host(host.clone()));
                Some(route)
            }
            None => {
                self.routes.entry(key).or_insert(Route::Nobody { since_ms: now_ms });
                None
            }
        }
    }

    /// Tells whether a process is the one that serves a party in a session.
    pub(crate) fn serves(&self, session: &RequestId, party: &Party, host: &str) -> bool {
        let route = self.routes.get(&(session.clone(), party.clone()));
        matches!(route, Some(Route::Host(serving)) if serving == host)
    }

    /// Forgets a session that ended.
    pub(crate) fn forget(&mut self, session: &RequestId) {
        self.routes.retain(|(of, _), _| of != session);
    }

    /// Returns the parties that no process runs.
    pub(crate) fn missing(&self) -> Vec<Party> {
        let is_there = |party: &Party| self.hosts.get(party).is_some_and(|hosts| !hosts.is_empty());
        self.parties.iter().filter(|party| !is_there(party)).cloned().collect()
    }

    /// Takes routes back, so that the next letter finds its way anew.
    fn moved(&mut self, party: &Party, blamed: bool, is_meant: impl Fn(&Route) -> bool) -> Vec<Change> {
        let taken = self.routes.extract_if(.., |(_, of), route| of == party && is_meant(route));
        let sessions: Vec<_> = taken.map(|((session, _), _)| session).collect();
        if sessions.is_empty() {
            return Vec::new();
        }
        vec![Change::Moved { party: party.clone(), sessions, blamed }]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dagwright_bus::Encoding;
    use dagwright_model::{
        id::RequestId,
        letter::Presence,
        message::{Party, Role},
    };

    use super::{Change, HOSTS_MAX, Roster};

    fn party() -> Party {
        Party::sole(Role::Extraction)
    }

    fn roster() -> Roster {
        Roster::new([party()].into(), 20_000)
    }

    fn session(number: u32) -> RequestId {
        RequestId(number.to_string())
    }

    fn presence(host: &str, incarnation: &str, leaving: bool) -> Presence {
        Presence { party: party(), host: host.into(), incarnation: incarnation.into(), leaving }
    }

    #[track_caller]
    fn hears(roster: &mut Roster, host: &str, incarnation: &str, now_ms: u64, wanted: &[Change]) {
        assert_eq!(roster.heard(&presence(host, incarnation, false), Encoding::Protobuf, now_ms), wanted);
    }

    fn moved(sessions: &[u32], blamed: bool) -> Change {
        let sessions = sessions.iter().map(|number| session(*number)).collect();
        Change::Moved { party: party(), sessions, blamed }
    }

    fn host(roster: &mut Roster, number: u32) -> Option<String> {
        roster.route(&session(number), &party(), 0).map(|(host, _)| host)
    }

    #[test]
    fn whoever_comes_serves_who_waits() {
        let mut roster = roster();
        assert_eq!(roster.missing(), [party()]);
        assert_eq!(host(&mut roster, 1), None);
        hears(&mut roster, "a", "1", 5, &[moved(&[1], false)]);
        assert_eq!(host(&mut roster, 1).as_deref(), Some("a"));
        assert!(roster.serves(&session(1), &party(), "a") && !roster.serves(&session(1), &party(), "b"));
        assert!(!roster.serves(&session(2), &party(), "a"), "it was not asked");
        assert_eq!(roster.missing(), []);
        hears(&mut roster, "a", "1", 6, &[]);
    }

    #[test]
    fn sessions_spread_and_stay() {
        let mut roster = roster();
        hears(&mut roster, "a", "1", 0, &[]);
        hears(&mut roster, "b", "1", 0, &[]);
        let first: Vec<_> = (0..64).map(|number| host(&mut roster, number)).collect();
        let hosts: BTreeSet<_> = first.iter().flatten().collect();
        assert_eq!(hosts.len(), 2, "both are at work");
        hears(&mut roster, "c", "1", 0, &[]);
        assert_eq!((0..64).map(|number| host(&mut roster, number)).collect::<Vec<_>>(), first, "nobody moves midway");
        assert!((64..128).any(|number| host(&mut roster, number).as_deref() == Some("c")));
    }

    #[test]
    fn one_that_went_is_replaced() {
        // Said so, ended without a word and began anew, or silent for too long.
        type End = fn(&mut Roster) -> Vec<Change>;
        let ends: [(End, bool, Option<&str>); 3] = [
            (|roster| roster.heard(&presence("a", "1", true), Encoding::Protobuf, 1), false, Some("b")),
            (|roster| roster.heard(&presence("a", "2", false), Encoding::Protobuf, 1), true, None),
            (
                |roster| {
                    hears(roster, "b", "1", 9_000, &[]);
                    assert_eq!(roster.passed(10_000), []);
                    roster.passed(10_001)
                },
                true,
                Some("b"),
            ),
        ];
        for (end, blamed, successor) in ends {
            let mut roster = roster();
            hears(&mut roster, "a", "1", 0, &[]);
            assert_eq!(host(&mut roster, 1).as_deref(), Some("a"));
            hears(&mut roster, "b", "1", 0, &[]);
            assert_eq!(end(&mut roster), [moved(&[1], blamed)]);
            assert!(!roster.serves(&session(1), &party(), "a"), "what it still says does not count");
            let now = host(&mut roster, 1).expect("somebody is there");
            assert!(successor.is_none_or(|successor| successor == now), "{now}");
        }
    }

    #[test]
    fn the_last_word_of_an_earlier_life_is_not_that_of_this_one() {
        let mut roster = roster();
        hears(&mut roster, "a", "2", 0, &[]);
        assert_eq!(host(&mut roster, 1).as_deref(), Some("a"));
        assert_eq!(roster.heard(&presence("a", "1", true), Encoding::Protobuf, 1), []);
        assert_eq!(host(&mut roster, 1).as_deref(), Some("a"));
    }

    #[test]
    fn one_that_nobody_runs_is_away_after_a_while() {
        let mut roster = roster();
        assert_eq!(host(&mut roster, 1), None);
        assert_eq!(roster.passed(20_000), []);
        let away = Change::Away { party: party(), sessions: vec![session(1)] };
        assert_eq!(roster.passed(20_001), [away]);
        roster.forget(&session(1));
        assert_eq!(roster.passed(20_002), []);
    }

    #[test]
    fn who_does_not_take_part_is_passed_over_and_crowds_are_bounded() {
        let mut roster = roster();
        let other = Presence { party: Party::sole(Role::Loading), ..presence("a", "1", false) };
        assert_eq!(roster.heard(&other, Encoding::Json, 0), []);
        for number in 0..2 * HOSTS_MAX {
            hears(&mut roster, &number.to_string(), "1", 0, &[]);
        }
        assert_eq!(roster.hosts.values().map(|hosts| hosts.len()).collect::<Vec<_>>(), [HOSTS_MAX]);
    }

    #[test]
    fn each_is_written_to_as_it_writes() {
        let mut roster = roster();
        assert_eq!(roster.heard(&presence("a", "1", false), Encoding::Json, 0), []);
        assert_eq!(roster.route(&session(1), &party(), 0), Some(("a".into(), Encoding::Json)));
    }
}
