//! How much one caller may send.

use std::{net::IpAddr, num::NonZeroU32};

use actix_web::http::{StatusCode, header};
use dagwright_model::code::Code;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::fault::Fault;

/// From how many known callers on those who have been quiet are forgotten.
const CALLERS_MAX: usize = 10_000;

/// Counts what each caller sends: by the name of their token, or by where they call from.
pub(super) struct Limiter {
    limiter: Option<DefaultKeyedRateLimiter<Who>>,
    clock: DefaultClock,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Token(String),
    Peer(Option<IpAddr>),
}

// === impl Limiter ===

impl Limiter {
    /// Allows this many requests a second, as many at once; 0: any number.
    pub(super) fn new(requests_per_second: u32) -> Self {
        let quota = NonZeroU32::new(requests_per_second).map(Quota::per_second);
        Self { limiter: quota.map(RateLimiter::keyed), clock: DefaultClock::default() }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// When it is one too many; the fault says when to try again.
    pub(super) fn check(&self, name: Option<&str>, peer: Option<IpAddr>) -> Result<(), Fault> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if limiter.len() > CALLERS_MAX {
            limiter.retain_recent();
        }
        let who = name.map_or(Who::Peer(peer), |name| Who::Token(name.into()));
        let Err(too_many) = limiter.check_key(&who) else { return Ok(()) };
        let wait = too_many.wait_time_from(self.clock.now());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = "more requests than http.requests_per_second allows one caller";
        Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, Code::Overloaded, detail, "wait as long as Retry-After says")
            .with(header::RETRY_AFTER, seconds.max(1).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::Limiter;

    #[test]
    fn each_caller_has_a_share_of_their_own() {
        let limiter = Limiter::new(2);
        let peer = "10.0.0.1".parse().ok();
        for (name, peer) in [(Some("ann"), None), (Some("bob"), None), (None, peer)] {
            for _ in 0..2 {
                assert!(limiter.check(name, peer).is_ok());
            }
            assert!(limiter.check(name, peer).is_err());
        }
        let unlimited = Limiter::new(0);
        assert!((0..100).all(|_| unlimited.check(None, None).is_ok()));
    }
}
