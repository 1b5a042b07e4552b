//! Who waits for everything sent so far to be answered.

use std::collections::VecDeque;

use grus_protocol::MessageId;

/// Most messages that a [`Flushed`] names.
pub const UNSENT_MAX: usize = 1_000;

/// A message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// Its id.
    pub id: MessageId,
    /// Whether it may be stored all the same, see
    /// [`SendError::maybe_stored`](crate::SendError::maybe_stored).
    pub maybe_stored: bool,
}

/// How the messages before a flush ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Messages acknowledged since the flush before.
    pub stored: u64,
    /// Messages that failed since the flush before; each caller has been told why.
    pub failed: u64,
    /// Which ones failed; no more than the first [`UNSENT_MAX`].
    pub unsent: Vec<Unsent>,
}

/// Messages between two flushes.
#[derive(Debug)]
struct Generation<F> {
    pending: u64,
    report: Flushed,
    waiter: Option<F>,
}

/// Counts unanswered messages by the flush they belong to.
#[derive(Debug)]
pub(crate) struct Flushes<F> {
    /// Number of the oldest generation; the newest one takes what comes.
    first: u64,
    generations: VecDeque<Generation<F>>,
}

impl<F> Flushes<F> {
    pub(crate) fn new() -> Self {
        let newest = Generation { pending: 0, report: Flushed::default(), waiter: None };
        Self { first: 0, generations: VecDeque::from([newest]) }
    }

    /// Counts `messages` taken; returns the generation they belong to.
    pub(crate) fn taken(&mut self, messages: u64) -> u64 {
        let newest = self.generations.len() - 1;
        self.generations[newest].pending += messages;
        self.first + newest as u64
    }

    /// Counts messages of a generation as answered: stored, or failed with a word on whether they
    /// may be stored.
    pub(crate) fn answered(&mut self, generation: u64, ids: &[MessageId], failed: Option<bool>) {
        let messages = ids.len() as u64;
        let index = usize::try_from(generation - self.first).unwrap_or(usize::MAX);
        let generation = &mut self.generations[index];
        assert!(generation.pending >= messages, "a message was answered twice");
        generation.pending -= messages;
        let report = &mut generation.report;
        let Some(maybe_stored) = failed else {
            report.stored += messages;
            return;
        };
        report.failed += messages;
        let room = UNSENT_MAX - report.unsent.len();
        let named = ids.iter().take(room).map(|id| Unsent { id: *id, maybe_stored });
        report.unsent.extend(named);
    }

    /// `waiter` waits for all taken so far.
    pub(crate) fn flush(&mut self, waiter: F) {
        if let Some(newest) = self.generations.back_mut() {
            newest.waiter = Some(waiter);
        }
        let next = Generation { pending: 0, report: Flushed::default(), waiter: None };
        self.generations.push_back(next);
    }

    /// Whether a flush covers this generation.
    pub(crate) fn is_flushing(&self, generation: u64) -> bool {
        generation + 1 < self.first + self.generations.len() as u64
    }

    /// The next waiter whose messages, and all before them, are answered.
    pub(crate) fn poll(&mut self) -> Option<(F, Flushed)> {
        if self.generations.len() < 2 || self.generations[0].pending > 0 {
            return None;
        }
        let done = self.generations.pop_front()?;
        self.first += 1;
        Some((done.waiter?, done.report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u128) -> Vec<MessageId> {
        (1..=count).map(|number| MessageId(uuid::Uuid::from_u128(number))).collect()
    }

    #[test]
    fn a_report_names_so_many_and_counts_all() {
        let mut flushes = Flushes::new();
        let generation = flushes.taken(3_000);
        flushes.flush('a');
        flushes.answered(generation, &ids(3_000), Some(false));
        let (_, flushed) = flushes.poll().unwrap();
        assert_eq!((flushed.failed, flushed.unsent.len()), (3_000, UNSENT_MAX));
    }

    #[test]
    fn a_flush_waits_for_what_came_before_it_and_for_nothing_else() {
        let mut flushes = Flushes::new();
        let before = flushes.taken(3);
        flushes.flush('a');
        let after = flushes.taken(1);
        assert!(flushes.is_flushing(before) && !flushes.is_flushing(after));
        flushes.answered(after, &ids(1), None);
        flushes.answered(before, &ids(1), Some(true));
        assert_eq!(flushes.poll(), None);
        flushes.answered(before, &ids(2), None);
        let unsent = vec![Unsent { id: ids(1)[0], maybe_stored: true }];
        assert_eq!(flushes.poll(), Some(('a', Flushed { stored: 2, failed: 1, unsent })));
        flushes.flush('b');
        let flushed = Flushed { stored: 1, ..Flushed::default() };
        assert_eq!(flushes.poll(), Some(('b', flushed)));
        assert_eq!(flushes.poll(), None);
    }

    #[test]
    fn a_later_flush_is_not_done_before_an_earlier_one() {
        let mut flushes = Flushes::new();
        let first = flushes.taken(1);
        flushes.flush('a');
        flushes.flush('b');
        assert_eq!(flushes.poll(), None);
        flushes.answered(first, &ids(1), None);
        assert_eq!(flushes.poll().unwrap().0, 'a');
        assert_eq!(flushes.poll().unwrap().0, 'b');
    }
}
