//! Who waits for which part of the log to be durable.
//!
//! openraft's completion is a watermark: completing a later append completes all earlier ones. So
//! completions leave here strictly in log order, and only for indexes the log says are durable.

use std::collections::VecDeque;

/// Waiters in log order.
#[derive(Debug)]
pub(crate) struct Flushes<W> {
    waiting: VecDeque<(u64, W)>,
}

impl<W> Default for Flushes<W> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<W> Flushes<W> {
    /// `waiter` waits until the log is durable up to `last_index`.
    pub(crate) fn push(&mut self, last_index: u64, waiter: W) {
        if let Some((before, _)) = self.waiting.back() {
            assert!(*before < last_index, "appends must come in log order");
        }
        self.waiting.push_back((last_index, waiter));
    }

    /// The log is durable up to `durable`: the next waiter that is done, in log order.
    pub(crate) fn pop_durable(&mut self, durable: Option<u64>) -> Option<W> {
        let (index, _) = self.waiting.front()?;
        if durable.is_none_or(|durable| *index > durable) {
            return None;
        }
        self.waiting.pop_front().map(|(_, waiter)| waiter)
    }

    /// Entries above `after` are gone: nobody waits for them any more.
    pub(crate) fn truncate(&mut self, after: Option<u64>) {
        while let Some((index, _)) = self.waiting.back() {
            if after.is_some_and(|after| *index <= after) {
                break;
            }
            self.waiting.pop_back();
        }
    }

    /// Forgets everybody.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(flushes: &mut Flushes<char>, durable: Option<u64>) -> String {
        std::iter::from_fn(|| flushes.pop_durable(durable)).collect()
    }

    #[test]
    fn completions_leave_in_log_order_and_never_early() {
        let mut flushes = Flushes::default();
        flushes.push(0, 'a');
        flushes.push(3, 'b');
        flushes.push(4, 'c');
        assert_eq!(drain(&mut flushes, None), "");
        assert_eq!(drain(&mut flushes, Some(2)), "a");
        assert_eq!(drain(&mut flushes, Some(4)), "bc");
    }

    #[test]
    fn after_a_truncation_the_old_ones_never_complete() {
        let mut flushes = Flushes::default();
        flushes.push(3, 'a');
        flushes.push(6, 'b');
        flushes.truncate(Some(4));
        flushes.push(5, 'c');
        assert_eq!(drain(&mut flushes, Some(6)), "ac");
        flushes.push(7, 'd');
        flushes.truncate(None);
        assert_eq!(flushes.len(), 0);
    }

    #[test]
    #[should_panic(expected = "log order")]
    fn an_append_out_of_order_is_a_bug() {
        let mut flushes = Flushes::default();
        flushes.push(3, 'a');
        flushes.push(3, 'b');
    }
}
