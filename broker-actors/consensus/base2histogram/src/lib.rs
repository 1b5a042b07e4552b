//! Stands in for the crate of this name below openraft.
//!
//! openraft counts batch sizes into histograms that only its feature `runtime-stats` can read, which
//! Grus does not build. The published crate makes the tables of all its sixteen resolutions at the
//! first histogram: 26 MB that stay in memory for nothing (docs/BENCHMARKS.md). These histograms
//! keep nothing. Should that feature ever be wanted, this crate has to go.

use std::fmt;
use std::marker::PhantomData;

/// A histogram that keeps nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Takes a value, and forgets it.
    pub const fn record(&mut self, value: u64) {
        let _ = value;
    }

    /// Takes a value that was seen `count` times, and forgets it.
    pub const fn record_n(&mut self, value: u64, count: u64) {
        let _ = (value, count);
    }

    /// How many values it holds: none.
    #[must_use]
    pub const fn total(&self) -> u64 {
        0
    }

    /// Percentiles of nothing.
    #[must_use]
    pub const fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: 0,
            p0_1: 0,
            p1: 0,
            p5: 0,
            p10: 0,
            p50: 0,
            p90: 0,
            p99: 0,
            p99_9: 0,
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Values in it.
    pub samples: u64,
    /// 0.1 % of them are at most this.
    pub p0_1: u64,
    /// 1 % of them are at most this.
    pub p1: u64,
    /// 5 % of them are at most this.
    pub p5: u64,
    /// 10 % of them are at most this.
    pub p10: u64,
    /// Half of them are at most this.
    pub p50: u64,
    /// 90 % of them are at most this.
    pub p90: u64,
    /// 99 % of them are at most this.
    pub p99: u64,
    /// 99.9 % of them are at most this.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not kept]")
    }
}

/// A chart of nothing.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Takes a histogram, and forgets it.
    #[must_use]
    pub fn add<T>(self, name: &str, histogram: Histogram<T>) -> Self {
        let _ = (name, histogram);
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not kept]")
    }
}
