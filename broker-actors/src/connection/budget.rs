//! What a connection may have under way: when it is used up, its socket is not read. Pure.

/// The bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Requests not answered yet.
    pub requests_max: u32,
    /// Bytes of those requests.
    pub request_bytes_max: u64,
    /// Bytes of replies that wait for the peer.
    pub output_bytes_max: u64,
}

/// What a connection has under way at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests not answered yet.
    pub requests: u32,
    /// Bytes of those requests.
    pub request_bytes: u64,
    /// Bytes of replies that wait for the peer.
    pub output_bytes: u64,
}

/// What a connection has under way.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    requests: u32,
    request_bytes: u64,
    output_bytes: u64,
}

impl Budget {
    /// Nothing is under way.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        assert!(limits.requests_max > 0, "a connection must be able to ask something");
        Self { limits, requests: 0, request_bytes: 0, output_bytes: 0 }
    }

    /// Whether another request may be taken. One of any size may be when nothing is under way, so
    /// a limit below the size of a frame stalls nobody for ever.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.requests < self.limits.requests_max
            && self.request_bytes < self.limits.request_bytes_max
            && self.output_bytes < self.limits.output_bytes_max
    }

    /// A request of `bytes` is taken.
    pub fn request_taken(&mut self, bytes: u32) {
        self.requests += 1;
        self.request_bytes += u64::from(bytes);
    }

    /// The reply to a request of `bytes` is written, or was not wanted.
    ///
    /// # Panics
    /// When more is given back than was taken.
    pub fn request_over(&mut self, bytes: u32) {
        assert!(self.requests > 0, "a reply to a request that was never taken");
        self.requests -= 1;
        self.request_bytes -= u64::from(bytes);
    }

    /// Replies of so many bytes wait for the peer now.
    pub fn output_is(&mut self, bytes: u64) {
        self.output_bytes = bytes;
    }

    /// All that is under way.
    #[must_use]
    pub const fn load(&self) -> Load {
        let Self { requests, request_bytes, output_bytes, .. } = *self;
        Load { requests, request_bytes, output_bytes }
    }

    /// Requests under way.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BudgetLimits =
        BudgetLimits { requests_max: 2, request_bytes_max: 100, output_bytes_max: 1_000 };

    #[test]
    fn each_bound_closes_the_door_and_its_return_opens_it() {
        let mut budget = Budget::new(LIMITS);
        budget.request_taken(10);
        assert!(budget.has_room());
        budget.request_taken(10);
        assert!(!budget.has_room(), "requests");
        budget.request_over(10);
        assert!(budget.has_room());

        budget.request_taken(90);
        assert!(!budget.has_room(), "bytes");
        budget.request_over(90);
        budget.output_is(1_000);
        assert!(!budget.has_room(), "output");
        budget.output_is(999);
        assert!(budget.has_room());
    }

    #[test]
    fn one_request_of_any_size_is_taken() {
        let mut budget = Budget::new(LIMITS);
        assert!(budget.has_room());
        budget.request_taken(5_000);
        assert!(!budget.has_room());
        budget.request_over(5_000);
        assert!(budget.has_room());
    }

    #[test]
    #[should_panic(expected = "never taken")]
    fn nothing_is_given_back_twice() {
        Budget::new(LIMITS).request_over(1);
    }
}
