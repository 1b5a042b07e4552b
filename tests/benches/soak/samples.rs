//! What was seen of the broker, and whether it stays as it is.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// What one moment showed.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) maps: usize,
    pub(crate) disk_bytes: u64,
    /// Of the batches since the sample before, in microseconds.
    pub(crate) waits: Histogram<u64>,
    pub(crate) stored: u64,
    pub(crate) read: u64,
    /// The broker was killed or stopped since the sample before.
    pub(crate) was_away: bool,
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |quantile| self.waits.value_at_quantile(quantile) as f64 / 1e3;
        write!(
            out,
            "{:>5} s: anonymous {:>6} KiB, descriptors {:>4}, maps {:>4}, disk {:>6.0} MB, p50 {:.1} p99 {:.1} p99.9 {:.1} ms, \
             {} stored, {} not read{}",
            self.at.as_secs(),
            self.anonymous_kib,
            self.descriptors,
            self.maps,
            self.disk_bytes as f64 / 1e6,
            ms(0.5),
            ms(0.99),
            ms(0.999),
            self.stored,
            self.stored.saturating_sub(self.read),
            if self.was_away { ", was away" } else { "" },
        )
    }
}

/// All of a run.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

/// The median and the greatest.
fn middle_and_most(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| figures.get(place).copied().unwrap_or(0.0);
    (at(figures.len() / 2), at(figures.len().saturating_sub(1)))
}

impl Samples {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Says how the last quarter differs from the first.
    pub(crate) fn compare(&self) {
        let calm: Vec<&Sample> = self.0.iter().filter(|sample| !sample.was_away).collect();
        let quarter = (calm.len() / 4).max(1).min(calm.len());
        let (first, last) = (&calm[..quarter], &calm[calm.len() - quarter..]);
        let show = |name: &str, of: &dyn Fn(&Sample) -> f64| {
            let figures =
                |some: &[&Sample]| middle_and_most(some.iter().map(|one| of(one)).collect());
            let ((first, first_most), (last, last_most)) = (figures(first), figures(last));
            println!(
                "{name}: {first:.1} (at most {first_most:.1}) in the first quarter, {last:.1} ({last_most:.1}) in the last"
            );
        };
        show("anonymous memory, KiB", &|one| one.anonymous_kib as f64);
        show("descriptors", &|one| one.descriptors as f64);
        show("maps", &|one| one.maps as f64);
        show("disk, MB", &|one| one.disk_bytes as f64 / 1e6);
        show("p50, ms", &|one| one.waits.value_at_quantile(0.5) as f64 / 1e3);
        show("p99, ms", &|one| one.waits.value_at_quantile(0.99) as f64 / 1e3);
        show("p99.9, ms", &|one| one.waits.value_at_quantile(0.999) as f64 / 1e3);
    }
}
