//! What the system says of this process, under the names that every Prometheus client uses.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use dagwright_telemetry::metric::Metric;
use nix::sys::resource::{UsageWho, getrusage};
use opentelemetry::{KeyValue, global, metrics::Meter};

use crate::metrics::{BUILD, CPU, FDS, RSS, START, THREADS};

/// Measures this process whenever somebody asks.
pub(super) fn observe() {
    let meter = global::meter("dagwright");
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    // The instruments live as long as their provider does.
    meter
        .f64_observable_counter(CPU.name)
        .with_unit(CPU.unit)
        .with_description(CPU.help)
        .with_callback(|observer| {
            if let Some(seconds) = cpu_seconds() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    meter
        .f64_observable_gauge(START.name)
        .with_unit(START.unit)
        .with_description(START.help)
        .with_callback(move |observer| observer.observe(started, &[]))
        .build();
    gauge(&meter, &RSS, || status("VmRSS:").map(|kib| kib * 1024));
    gauge(&meter, &THREADS, || status("Threads:"));
    gauge(&meter, &FDS, open_files);
    BUILD.observe_gauge(&meter, |observer| {
        observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]);
    });
}

fn gauge(meter: &Meter, metric: &Metric, read: fn() -> Option<u64>) {
    metric.observe_gauge(meter, move |observer| {
        if let Some(value) = read() {
            observer.observe(value, &[]);
        }
    });
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Returns a number of `/proc/self/status`; `None` on systems without it.
fn status(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<u64> {
    // One of them is the folder that is read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64)
}
