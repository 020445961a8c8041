//! What a metric is: a row of a table, from which its instrument and `docs/metrics.md` are made.
//!
//! A crate that measures something has a `metrics.rs` with its rows. Names are `dagwright_<noun>_<unit>[_total]`, in base
//! units. Every label has few values: they are listed, or it is said what bounds them. Names of pipelines, requests and
//! tables are no labels.

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Counter, Gauge, Histogram, Meter, UpDownCounter},
};

/// Seconds of what takes milliseconds to seconds: appends, compiling, HTTP.
pub const FAST_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Seconds of what takes a moment to hours: observations, tasks, runs.
pub const SLOW_SECONDS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0];

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name in Prometheus, which is its name everywhere.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its unit as OpenTelemetry writes it (UCUM); empty for a flag.
    pub unit: &'static str,
    /// What tells its series apart.
    pub labels: &'static [Label],
    /// What it counts or measures, one sentence.
    pub help: &'static str,
    /// When it is there.
    pub appears: Appears,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often values fell under these bounds.
    Histogram(&'static [f64]),
}

/// What tells series of one metric apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// These.
    Of(&'static [&'static str]),
    /// Few, for this reason.
    Few(&'static str),
}

/// When a metric is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appears {
    /// From the start of the daemon.
    AtOnce,
    /// Once this has happened.
    After(&'static str),
    /// Only while this is so, where the daemon runs.
    Where(&'static str),
}

// === impl Metric ===

impl Metric {
    /// Defines a counter without labels.
    #[must_use]
    pub const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit, labels: &[], help, appears: Appears::AtOnce }
    }

    /// Defines a gauge without labels.
    #[must_use]
    pub const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit, labels: &[], help, appears: Appears::AtOnce }
    }

    /// Defines a histogram without labels; it is there after the first value.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        unit: &'static str,
        bounds: &'static [f64],
        first: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Histogram(bounds), unit, labels: &[], help, appears: Appears::After(first) }
    }

    /// Gives it labels.
    #[must_use]
    pub const fn labels(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }

    /// Says when it is there.
    #[must_use]
    pub const fn appears(self, appears: Appears) -> Self {
        Self { appears, ..self }
    }

    /// Makes its counter; every series whose labels are listed is there at once, so that a rate starts from 0.
    #[must_use]
    pub fn to_counter(&self, meter: &Meter) -> Counter<u64> {
        let counter = meter.u64_counter(self.name).with_unit(self.unit).with_description(self.help).build();
        for labels in self.series() {
            counter.add(0, &labels);
        }
        counter
    }

    /// Makes its gauge, for what is known as a whole.
    #[must_use]
    pub fn to_gauge(&self, meter: &Meter) -> Gauge<u64> {
        let gauge = meter.u64_gauge(self.name).with_unit(self.unit).with_description(self.help).build();
        for labels in self.series() {
            gauge.record(0, &labels);
        }
        gauge
    }

    /// Makes its gauge, for what is known by its changes.
    #[must_use]
    pub fn to_balance(&self, meter: &Meter) -> UpDownCounter<i64> {
        let balance = meter.i64_up_down_counter(self.name).with_unit(self.unit).with_description(self.help).build();
        for labels in self.series() {
            balance.add(0, &labels);
        }
        balance
    }

    /// Makes its histogram.
    #[must_use]
    pub fn to_histogram(&self, meter: &Meter) -> Histogram<f64> {
        let bounds = match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let histogram = meter.f64_histogram(self.name).with_unit(self.unit).with_description(self.help);
        histogram.with_boundaries(bounds.to_vec()).build()
    }

    /// Shows as a counter what is counted elsewhere: `observe` is asked whenever somebody wants to know.
    pub fn observe_counter(&self, meter: &Meter, observe: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static) {
        let counter = meter.u64_observable_counter(self.name).with_unit(self.unit).with_description(self.help);
        // It lives as long as the meter's provider does.
        counter.with_callback(observe).build();
    }

    /// Shows as a gauge what is known elsewhere, likewise.
    pub fn observe_gauge(&self, meter: &Meter, observe: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static) {
        let gauge = meter.u64_observable_gauge(self.name).with_unit(self.unit).with_description(self.help);
        gauge.with_callback(observe).build();
    }

    /// Returns every combination of listed labels; none where a label's values are not listed.
    fn series(&self) -> Vec<Vec<KeyValue>> {
        let mut series = vec![Vec::new()];
        for label in self.labels {
            let Values::Of(values) = label.values else { return Vec::new() };
            let with = |start: &Vec<KeyValue>, value: &'static str| {
                let mut labels = start.clone();
                labels.push(KeyValue::new(label.name, value));
                labels
            };
            series = series.iter().flat_map(|start| values.iter().map(move |value| with(start, value))).collect();
        }
        series
    }
}

// === impl Label ===

impl Label {
    /// Defines a label with these values.
    #[must_use]
    pub const fn of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values: Values::Of(values) }
    }

    /// Defines a label that has few values for a reason.
    #[must_use]
    pub const fn few(name: &'static str, reason: &'static str) -> Self {
        Self { name, values: Values::Few(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Label, Metric};

    #[test]
    fn listed_labels_make_every_series() {
        const A: Label = Label::of("a", &["x", "y"]);
        const B: Label = Label::of("b", &["1", "2", "3"]);
        const OPEN: Label = Label::few("c", "as many as there are");
        let series = |labels| Metric::counter("dagwright_things_total", "{thing}", "Things.").labels(labels).series();
        assert_eq!(series(&[]).len(), 1);
        assert_eq!(series(const { &[A, B] }).len(), 6);
        assert_eq!(series(const { &[A, OPEN] }).len(), 0);
    }
}
