//! The one place where code of the program is called on the client's threads: callbacks,
//! interceptors, queue selectors. A panic in it ends with it: it is logged and counted, and loses
//! no message.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts panics of the program's code. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard(Arc<AtomicU64>);

impl Guard {
    /// Calls `work`; `None` when it panicked. `what` names it in the log.
    pub(crate) fn call<R>(&self, what: &'static str, work: impl FnOnce() -> R) -> Option<R> {
        let result = catch_unwind(AssertUnwindSafe(work)).ok();
        if result.is_none() {
            self.0.fetch_add(1, Ordering::Relaxed);
            tracing::error!(what, "code of the program panicked; the client goes on without it");
        }
        result
    }

    /// How many have panicked so far.
    pub(crate) fn panics(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_goes_no_further() {
        let guard = Guard::default();
        assert_eq!(guard.clone().call("good", || 7), Some(7));
        assert_eq!(guard.call("bad", || panic!("meant to")).map(|(): ()| 0), None);
        assert_eq!(guard.panics(), 1);
    }
}
