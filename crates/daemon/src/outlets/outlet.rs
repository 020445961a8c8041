//! One outlet at work: takes events, posts them, and goes on or waits as the answers say.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use dagwright_model::code::Code;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    feed::{Fed, Feed},
    filter::{Filter, pipeline},
    metrics::{Outcome, Series},
    receiver::Receiver,
    verdict::Verdict,
    window::{Place, Window},
};

/// How patient an outlet is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The pause after a first failure.
    pub(super) first: Duration,
    /// The longest pause that nobody asked for.
    pub(super) longest: Duration,
    /// How often an event is tried that is refused.
    pub(super) tries: usize,
}

/// An outlet.
pub(super) struct Outlet {
    name: String,
    series: Series,
    receiver: Arc<dyn Receiver>,
    filter: Filter,
    feed: Feed,
    parallelism: usize,
    patience: Patience,
    window: Window,
    posts: FuturesUnordered<BoxFuture<'static, (Place, Verdict, Duration)>>,
    /// Events that came back, by place.
    tries: HashMap<Place, Tries>,
    /// How many events were delivered.
    delivered: u64,
    absence: Option<Absence>,
}

/// That nothing is taken at the moment.
struct Absence {
    pauses: ExponentialBackoff,
    /// When to try again.
    until: Instant,
}

/// How often an event came back.
struct Tries {
    count: usize,
    pauses: ExponentialBackoff,
    /// How many events had been delivered when it first came back.
    delivered_before: u64,
}

// === impl Outlet ===

impl Outlet {
    pub(super) fn new(
        series: Series,
        receiver: Arc<dyn Receiver>,
        filter: Filter,
        feed: Feed,
        parallelism: usize,
        patience: Patience,
    ) -> Self {
        series.prepare();
        Self {
            name: series.outlet(),
            series,
            receiver,
            filter,
            feed,
            parallelism,
            patience,
            window: Window::default(),
            posts: FuturesUnordered::new(),
            tries: HashMap::new(),
            delivered: 0,
            absence: None,
        }
    }

    /// Works until `end`, and then until nothing is left, or nothing is taken.
    pub(super) async fn run(mut self, end: CancellationToken) {
        loop {
            self.start();
            let wakes = self.wakes();
            tokio::select! {
                biased;
                Some((place, verdict, took)) = self.posts.next() => self.take(place, verdict, took),
                () = end.cancelled() => break,
                fed = self.feed.next(), if self.window.has_room() => match fed {
                    Some(fed) => self.admit(fed),
                    None => break,
                },
                () = wait(wakes) => {}
            }
            self.feed.reached(self.window.reached());
        }
        self.flush().await;
        self.feed.reached(self.window.reached());
        self.feed.close().await;
    }

    /// Posts what is there. What is left then is left for the next process.
    async fn flush(&mut self) {
        loop {
            while self.window.has_room()
                && let Some(fed) = self.feed.next_now().await
            {
                self.admit(fed);
            }
            if self.absence.is_none() {
                self.start();
            }
            let Some((place, verdict, took)) = self.posts.next().await else { return };
            self.take(place, verdict, took);
            self.feed.reached(self.window.reached());
        }
    }

    fn admit(&mut self, fed: Fed) {
        match fed {
            Fed::Event(place, event) if self.filter.wants(&event) => {
                let pipeline = pipeline(&event).to_owned();
                self.window.push(place, &pipeline, *event);
            }
            Fed::Event(place, _) => self.window.pass(place),
            Fed::Unreadable(place, why) => {
                let Place { partition, position } = place;
                let code = Code::MessageInvalid;
                tracing::error!(%code, outlet = %self.name, partition, position, why, "passed over what is no event");
                self.window.pass(place);
            }
            Fed::Lost(partition) => {
                self.window.lose(partition);
                self.tries.retain(|place, _| place.partition != partition);
            }
        }
    }

    /// Starts the posts that may be under way now: while the receiver is away, one at a time shows whether it is back.
    fn start(&mut self) {
        let now = Instant::now();
        let width = match &self.absence {
            None => self.parallelism,
            Some(absence) if absence.until <= now => 1,
            Some(_) => return,
        };
        while self.posts.len() < width
            && let Some((place, event)) = self.window.start(now)
        {
            let receiver = self.receiver.clone();
            self.posts.push(Box::pin(async move {
                let began = Instant::now();
                let verdict = receiver.tell(&event).await;
                (place, verdict, began.elapsed())
            }));
        }
    }

    /// Returns when something may be done again that waits for its time.
    fn wakes(&self) -> Option<Instant> {
        match &self.absence {
            // Who is under way tells more than the clock.
            Some(_) if !self.posts.is_empty() => None,
            Some(absence) if absence.until > Instant::now() => Some(absence.until),
            Some(_) => self.window.wakes(),
            None if self.posts.len() >= self.parallelism => None,
            None => self.window.wakes(),
        }
    }

    /// Takes in what came of a post.
    fn take(&mut self, place: Place, verdict: Verdict, took: Duration) {
        match &verdict {
            Verdict::Delivered => self.series.posted(Outcome::Delivered, took),
            Verdict::Away { .. } => self.series.posted(Outcome::Away, took),
            Verdict::Unfit { .. } => self.series.posted(Outcome::Unfit, took),
            Verdict::Refused { .. } => self.series.posted(Outcome::Refused, took),
        }
        if !self.window.holds(place) {
            return; // Its partition was lost meanwhile.
        }
        match verdict {
            Verdict::Delivered => {
                self.is_back();
                self.delivered += 1;
                self.settle(place);
            }
            Verdict::Away { why, retry_after } => {
                self.is_away(&why, retry_after);
                self.window.retry(place, None);
            }
            Verdict::Unfit { why } => {
                self.is_back();
                let takes_others = |tries: &Tries, delivered| delivered > tries.delivered_before;
                self.comes_back(place, &why, takes_others);
            }
            Verdict::Refused { why } => {
                self.is_back();
                self.comes_back(place, &why, |_, _| true);
            }
        }
    }

    /// Tries an event again later, or gives it up when it was tried often enough and `may_give_up`.
    fn comes_back(&mut self, place: Place, why: &str, may_give_up: impl Fn(&Tries, u64) -> bool) {
        let (patience, delivered) = (self.patience, self.delivered);
        let tries = self.tries.entry(place).or_insert_with(|| Tries {
            count: 0,
            pauses: patience.pauses(),
            delivered_before: delivered,
        });
        tries.count += 1;
        let (count, Place { partition, position }) = (tries.count, place);
        if count >= patience.tries && may_give_up(tries, delivered) {
            let code = Code::EventRefused;
            let outlet = &self.name;
            tracing::error!(%code, outlet, partition, position, tries = count, why, "an event was refused and is given up");
            self.series.given_up();
            self.settle(place);
            return;
        }
        let pause = tries.pauses.next().unwrap_or(patience.longest);
        if count == 1 || count == patience.tries {
            tracing::warn!(outlet = %self.name, partition, position, tries = count, why, "an event was not taken");
        }
        self.window.retry(place, Some(Instant::now() + pause));
    }

    fn settle(&mut self, place: Place) {
        self.tries.remove(&place);
        self.window.settle(place);
    }

    /// Notes that the receiver takes nothing. Posts that were under way together tell of one failure, not of many.
    fn is_away(&mut self, why: &str, retry_after: Option<Duration>) {
        let now = Instant::now();
        let patience = self.patience;
        let absence = self.absence.get_or_insert_with(|| {
            tracing::warn!(outlet = %self.name, why, "the receiver of an outlet is away, its events wait");
            Absence { pauses: patience.pauses(), until: now }
        });
        if absence.until <= now {
            absence.until = now + absence.pauses.next().unwrap_or(patience.longest);
        }
        if let Some(asked) = retry_after {
            absence.until = absence.until.max(now + asked);
        }
    }

    fn is_back(&mut self) {
        if self.absence.take().is_some() {
            tracing::info!(outlet = %self.name, "the receiver of an outlet is back");
        }
    }
}

// === impl Patience ===

impl Patience {
    /// Returns pauses that grow, each up to twice as long as it would be, so that many outlets do not come at once.
    fn pauses(self) -> ExponentialBackoff {
        let builder = ExponentialBuilder::new().with_min_delay(self.first).with_max_delay(self.longest);
        builder.without_max_times().with_jitter().build()
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        // Something else happens first; measured numbers are refreshed meanwhile.
        None => sleep(Duration::from_secs(5)).await,
    }
}
