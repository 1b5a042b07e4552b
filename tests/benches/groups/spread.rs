//! Several runs of one figure.

use std::fmt;

/// The figures of all runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// Takes one more in.
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_unstable_by(f64::total_cmp);
    }

    /// The median; 0 when there are none.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(0.0)
    }

    /// The greatest; 0 when there are none.
    pub(crate) fn greatest(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.first().copied().unwrap_or(0.0);
        let digits = if self.median() < 100.0 { 2 } else { 0 };
        write!(out, "{:.digits$} ({least:.digits$}-{:.digits$})", self.median(), self.greatest())
    }
}

/// Says whether a bound holds.
pub(crate) fn judge(what: &str, holds: bool) {
    println!("bound: {what}: {}", if holds { "holds" } else { "DOES NOT HOLD" });
}
