//! What a receiver's answer says: of the event, of the receiver, or of the way there.
//!
//! | answer | says | so |
//! |---|---|---|
//! | 2xx | it is taken | delivered |
//! | none, 408, 425, 429, 5xx | the receiver is away, or has enough for now | everything waits |
//! | 3xx, 401, 403, 404, 405, 407, 410, 421, 426 | most likely that the outlet is not set up as it should be | the pipeline waits |
//! | any other 4xx | that this event is not wanted | refused after some tries |
//!
//! The third row is the careful one: to take a wrong secret or path for the event's fault would drop all events, one by
//! one. But a gate before a receiver may answer so to a single event: if others were taken meanwhile, it was the event.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

/// The longest pause that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What came of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The event was taken.
    Delivered,
    /// Nothing is taken at the moment.
    Away {
        /// How it shows.
        why: String,
        /// How long the receiver wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Most likely the outlet is not set up as it should be.
    Unfit {
        /// How it shows.
        why: String,
    },
    /// The event is not wanted.
    Refused {
        /// How it shows.
        why: String,
    },
}

/// Judges an answer.
pub(super) fn judge(status: u16, retry_after: Option<&str>, now: SystemTime) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        300..=399 | 401 | 403 | 404 | 405 | 407 | 410 | 421 | 426 => Verdict::Unfit { why: answered(status) },
        408 | 425 | 429 => away(status, retry_after, now),
        400..=499 => Verdict::Refused { why: answered(status) },
        _ => away(status, retry_after, now),
    }
}

fn away(status: u16, retry_after: Option<&str>, now: SystemTime) -> Verdict {
    let retry_after = retry_after.and_then(|value| pause(value, now)).map(|pause| pause.min(RETRY_AFTER_MAX));
    Verdict::Away { why: answered(status), retry_after }
}

fn answered(status: u16) -> String {
    format!("it answered {status}")
}

/// Reads seconds or a date (RFC 9110, section 10.2.3).
fn pause(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = DateTime::parse_from_rfc2822(value).ok()?;
    // What has passed is no pause.
    (then.to_utc() - DateTime::<Utc>::from(now)).to_std().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{RETRY_AFTER_MAX, Verdict, judge};

    #[test]
    fn answers_are_told_apart() {
        let judged = |status| match judge(status, None, SystemTime::UNIX_EPOCH) {
            Verdict::Delivered => "delivered",
            Verdict::Away { .. } => "away",
            Verdict::Unfit { .. } => "unfit",
            Verdict::Refused { .. } => "refused",
        };
        for (statuses, wanted) in [
            (&[200, 201, 202, 204, 299][..], "delivered"),
            (&[408, 425, 429, 500, 502, 503, 504, 100, 600], "away"),
            (&[301, 302, 307, 308, 401, 403, 404, 405, 410], "unfit"),
            (&[400, 409, 413, 415, 422, 451], "refused"),
        ] {
            for status in statuses {
                assert_eq!(judged(*status), wanted, "{status}");
            }
        }
    }

    #[test]
    fn a_receiver_may_ask_to_be_left_alone_for_a_while() {
        let pause = |value| match judge(503, Some(value), SystemTime::UNIX_EPOCH) {
            Verdict::Away { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause(" 99999999 "), Some(RETRY_AFTER_MAX));
        assert_eq!(pause("Thu, 01 Jan 1970 00:00:30 GMT"), Some(Duration::from_secs(30)));
        for nothing in ["Wed, 31 Dec 1969 23:59:59 GMT", "soon", "-1", "", "99999999999999999999999"] {
            assert_eq!(pause(nothing), None, "{nothing}");
        }
    }
}
