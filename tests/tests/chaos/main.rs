//! The fault lane: daemons under load are killed, stopped, and lose their disk or their broker; afterwards every request that
//! was submitted has exactly one outcome and one effect, counted in events, ledger and loaded rows.
//!
//! | module | what happens |
//! |---|---|
//! | `group` | three daemons share a Kafka; they are killed, with and without their disk, come and go and stand still |
//! | `broker` | the broker is killed under daemons that stay |
//! | `order` | messages come many times, in any order, at any partition |
//! | `alone` | one daemon on its own store is killed while it is asked over HTTP |
//! | `load`, `told`, `process`, `station` | what is asked for, what is told of it, and who does it |
//!
//! `make test` runs it with few strikes, `make chaos` with many: `DAGWRIGHT_CHAOS_KILLS` says how many, and
//! `DAGWRIGHT_CHAOS_SEED` repeats the choices of an earlier run, which prints its seed. Moments are not repeatable, choices
//! are. Nothing is asserted about time; what makes no progress for a while fails, with the logs of all daemons.

mod alone;
mod broker;
mod group;
mod load;
mod order;
mod process;
mod station;
mod told;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;

/// How many kills there are unless the environment says otherwise.
const KILLS: usize = 10;

/// How long nothing may happen before a test takes it for hanging: far longer than a takeover, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(180);

/// The machine is for one of these tests at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A test's turn.
struct Turn {
    rng: Rng,
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the test's turn, and says which seed its choices come from.
fn begin(what: &str) -> Turn {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = number("DAGWRIGHT_CHAOS_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
    });
    eprintln!("{what}: DAGWRIGHT_CHAOS_SEED={seed}");
    Turn { rng: Rng::with_seed(seed), _turn: turn }
}

fn kills() -> usize {
    number("DAGWRIGHT_CHAOS_KILLS").map_or(KILLS, |kills| usize::try_from(kills).expect("a count"))
}

/// How often something rarer than a kill happens.
fn strikes() -> usize {
    kills().div_ceil(5)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}

/// Lets a moment pass, or none: where in its work somebody is struck is up to chance.
fn moment(rng: &mut Rng, longest: Duration) {
    let end = Instant::now() + longest.mul_f64(rng.f64());
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}
