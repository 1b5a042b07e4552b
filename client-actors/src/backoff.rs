//! Waiting between attempts: exponential, bounded, with jitter. No clock, no source of chance.

/// A sequence of numbers that look random (SplitMix64, Steele et al. 2014). The seed comes from
/// outside, so that a run can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// The sequence of `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Jitter {
    /// The upper half of the next number.
    pub(crate) fn next_u32(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }
}

/// How long to wait after how many failures in a row.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first_ms: u64,
    most_ms: u64,
    failures: u32,
    jitter: Jitter,
}

impl Backoff {
    /// Waits about `first_ms` after the first failure, twice as long after each further one, and
    /// never longer than `most_ms`.
    pub(crate) fn new(first_ms: u64, most_ms: u64, seed: u64) -> Self {
        assert!(first_ms > 0 && first_ms <= most_ms, "a backoff grows from first to most");
        Self { first_ms, most_ms, failures: 0, jitter: Jitter::new(seed) }
    }

    /// Counts a failure and returns how long to wait: between half of the step and all of it.
    pub(crate) fn failed(&mut self) -> u64 {
        let step = self.first_ms.saturating_mul(1 << self.failures.min(20)).min(self.most_ms);
        self.failures = self.failures.saturating_add(1);
        let least = step.div_ceil(2);
        least + self.jitter.next() % (step - least + 1)
    }

    /// Forgets the failures.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_jitter_stays_within_half() {
        for seed in 0..50 {
            let mut backoff = Backoff::new(10, 100, seed);
            for step in [10, 20, 40, 80, 100, 100] {
                let wait = backoff.failed();
                assert!((step / 2..=step).contains(&wait), "{wait} after a step of {step}");
            }
            backoff.succeeded();
            assert!(backoff.failed() <= 10);
        }
    }

    #[test]
    fn two_clients_do_not_come_back_in_step() {
        let waits = |seed| {
            let mut backoff = Backoff::new(1_000, 60_000, seed);
            [backoff.failed(), backoff.failed(), backoff.failed()]
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(1), waits(1));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(50, u64::MAX, 3);
        for _ in 0..100 {
            assert!(backoff.failed() > 0);
        }
    }
}
