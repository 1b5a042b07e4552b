//! How many batches of a lane may be on their way while the broker says that it has too much, or is late.
//!
//! A refused batch takes those behind it along, since they are stored in sequence: a lane that sends
//! all it may would send each batch up to five times over, and so would all others that the broker
//! refuses at that moment, each keeping the others' room. One that does not answer in time may have
//! all of them in its queue. So after either a lane sends one batch at a time, and one more
//! after a run of batches that were stored.

/// Batches stored in a row before one more may be on its way.
const RUN: u32 = 16;

/// See the module documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    most: usize,
    now: usize,
    run: u32,
}

impl Allowance {
    /// All that may ever be on their way.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, now: most, run: 0 }
    }

    /// Whether another one may leave while `sent` are on their way.
    pub(super) const fn allows(&self, sent: usize) -> bool {
        sent < self.now
    }

    /// The broker had no room, or has not answered in time.
    pub(super) fn refused(&mut self) {
        (self.now, self.run) = (1, 0);
    }

    /// A batch was stored.
    pub(super) fn stored(&mut self) {
        if self.now == self.most {
            return;
        }
        self.run += 1;
        if self.run == RUN {
            (self.now, self.run) = (self.now + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_leaves_one_and_each_run_of_stored_ones_gives_one_more_back() {
        let mut allowance = Allowance::new(3);
        assert!(allowance.allows(2) && !allowance.allows(3));
        allowance.refused();
        assert!(allowance.allows(0) && !allowance.allows(1));
        for _ in 0..RUN - 1 {
            allowance.stored();
        }
        assert!(!allowance.allows(1));
        allowance.stored();
        assert!(allowance.allows(1) && !allowance.allows(2));
        for _ in 0..10 * RUN {
            allowance.stored();
        }
        assert!(allowance.allows(2) && !allowance.allows(3), "never more than the most");
        allowance.refused();
        assert!(!allowance.allows(1));
    }
}
