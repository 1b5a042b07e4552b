//! Gathers what arrives while an entry is under way, so that the next entry carries it all.
//!
//! Plain state. One entry takes what waits, in order of arrival and over all queues, until it
//! holds [`GatherLimits::entry_bytes_max`]; an item that is larger than that goes alone. Nothing
//! waits for company: while no entry is under way, whatever is there leaves at once.

use std::collections::VecDeque;

/// Bounds of gathering. A pair of relations is asserted in [`Gather::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherLimits {
    /// An entry closes when the next item would lift it above this many bytes.
    pub entry_bytes_max: usize,
    /// An entry closes when it holds this many items.
    pub entry_items_max: usize,
    /// Entries that may be under way at once.
    pub in_flight_max: usize,
}

impl Default for GatherLimits {
    fn default() -> Self {
        Self { entry_bytes_max: 1024 * 1024, entry_items_max: 4096, in_flight_max: 1 }
    }
}

/// An item and who waits for its answer.
#[derive(Debug)]
pub struct Pending<I, W> {
    /// What is proposed.
    pub item: I,
    /// Its size in bytes.
    pub bytes: usize,
    /// Who waits.
    pub waiter: W,
}

/// Items on their way, from arrival to answer.
#[derive(Debug)]
pub struct Gather<I, W> {
    limits: GatherLimits,
    waiting: VecDeque<Pending<I, W>>,
    waiting_bytes: usize,
    under_way: VecDeque<(u64, Vec<W>)>,
    next_ticket: u64,
}

impl<I, W> Gather<I, W> {
    /// Starts with nothing on its way.
    ///
    /// # Panics
    /// When a limit is 0.
    pub fn new(limits: GatherLimits) -> Self {
        assert!(limits.entry_bytes_max > 0, "an entry must be able to hold something");
        assert!(limits.entry_items_max > 0, "an entry must be able to hold something");
        assert!(limits.in_flight_max > 0, "an entry must be able to leave");
        Self {
            limits,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            under_way: VecDeque::new(),
            next_ticket: 0,
        }
    }

    /// Adds an item behind all others.
    pub fn push(&mut self, pending: Pending<I, W>) {
        self.waiting_bytes += pending.bytes;
        self.waiting.push_back(pending);
    }

    /// Whether an entry may leave now.
    pub fn may_leave(&self) -> bool {
        !self.waiting.is_empty() && self.under_way.len() < self.limits.in_flight_max
    }

    /// The most bytes that the next entry can have.
    pub fn next_bytes_max(&self) -> usize {
        self.waiting_bytes.min(self.first_bytes().max(self.limits.entry_bytes_max))
    }

    /// Bytes of the item that is due, 0 when none waits.
    pub fn first_bytes(&self) -> usize {
        self.waiting.front().map_or(0, |first| first.bytes)
    }

    /// Takes the next entry, if one may leave: its ticket and items.
    pub fn next_entry(&mut self) -> Option<(u64, Vec<I>)> {
        self.next_entry_of(self.limits.entry_items_max)
    }

    /// The same with the item that is due alone, for when there is no room for more.
    pub fn next_single(&mut self) -> Option<(u64, Vec<I>)> {
        self.next_entry_of(1)
    }

    fn next_entry_of(&mut self, items_max: usize) -> Option<(u64, Vec<I>)> {
        if !self.may_leave() {
            return None;
        }
        let mut bytes = 0;
        let (mut items, mut waiters) = (Vec::new(), Vec::new());
        while let Some(next) = self.waiting.front() {
            let full = bytes + next.bytes > self.limits.entry_bytes_max || items.len() >= items_max;
            if full && !items.is_empty() {
                break;
            }
            let Some(Pending { item, bytes: item_bytes, waiter }) = self.waiting.pop_front() else {
                break;
            };
            bytes += item_bytes;
            items.push(item);
            waiters.push(waiter);
        }
        self.waiting_bytes -= bytes;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.under_way.push_back((ticket, waiters));
        Some((ticket, items))
    }

    /// An entry is over, well or badly: who waited for it, in the order of its items.
    ///
    /// # Panics
    /// When no entry of that ticket is under way.
    pub fn finished(&mut self, ticket: u64) -> Vec<W> {
        let at = self.under_way.iter().position(|(known, _)| *known == ticket);
        let at = at.expect("an entry is finished once, after it has left");
        self.under_way.remove(at).map(|(_, waiters)| waiters).unwrap_or_default()
    }

    /// Gives up what has not left yet, but for those that `stays` names.
    pub fn give_up(&mut self, stays: impl Fn(&W) -> bool) -> Vec<W> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (kept, gone) = waiting.partition(|pending| stays(&pending.waiter));
        self.waiting = kept;
        self.waiting_bytes = self.waiting.iter().map(|pending| pending.bytes).sum();
        let gone: VecDeque<Pending<I, W>> = gone;
        gone.into_iter().map(|pending| pending.waiter).collect()
    }

    /// Whether all that waits is of the kind that `is` names.
    pub fn waits_only_for(&self, is: impl Fn(&W) -> bool) -> bool {
        self.waiting.iter().all(|pending| is(&pending.waiter))
    }

    /// Bytes that wait for an entry to leave.
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> GatherLimits {
        GatherLimits { entry_bytes_max: 100, entry_items_max: 4, in_flight_max: 1 }
    }

    fn gather_of(sizes: &[usize]) -> Gather<usize, usize> {
        let mut gather = Gather::new(limits());
        for (number, bytes) in sizes.iter().enumerate() {
            gather.push(Pending { item: number, bytes: *bytes, waiter: number });
        }
        gather
    }

    #[test]
    fn an_item_leaves_at_once_and_what_arrives_meanwhile_shares_the_next_entry() {
        let mut gather = gather_of(&[10]);
        assert_eq!(gather.next_entry(), Some((0, vec![0])));
        for number in 1..4 {
            gather.push(Pending { item: number, bytes: 10, waiter: number });
            assert_eq!(gather.next_entry(), None, "one entry is under way");
        }
        assert_eq!(gather.finished(0), [0]);
        assert_eq!(gather.next_entry(), Some((1, vec![1, 2, 3])));
        assert_eq!(gather.finished(1), [1, 2, 3]);
        assert!(gather.is_idle());
    }

    #[test]
    fn entries_close_at_their_bytes_and_at_their_items() {
        let mut gather = gather_of(&[60, 40, 1, 1, 1, 1, 1]);
        assert_eq!(gather.next_entry(), Some((0, vec![0, 1])));
        gather.finished(0);
        assert_eq!(gather.next_entry(), Some((1, vec![2, 3, 4, 5])));
        gather.finished(1);
        assert_eq!(gather.next_entry(), Some((2, vec![6])));
    }

    #[test]
    fn an_item_above_the_bound_goes_alone() {
        let mut gather = gather_of(&[500, 1]);
        assert_eq!(gather.next_bytes_max(), 500);
        assert_eq!(gather.next_entry(), Some((0, vec![0])));
        assert_eq!(gather.next_bytes_max(), 1);
        gather.finished(0);
        assert_eq!(gather.next_entry(), Some((1, vec![1])));
        assert_eq!(gather.waiting_bytes(), 0);
    }

    #[test]
    fn one_item_may_leave_alone_where_all_of_them_find_no_room() {
        let mut gather = gather_of(&[10, 20, 30]);
        assert_eq!((gather.first_bytes(), gather.next_bytes_max()), (10, 60));
        assert_eq!(gather.next_single(), Some((0, vec![0])));
        assert_eq!(gather.next_single(), None, "one entry is under way");
        gather.finished(0);
        assert_eq!(gather.next_single(), Some((1, vec![1])));
        assert_eq!((gather.first_bytes(), gather.waiting_bytes()), (30, 30));
    }

    #[test]
    fn two_entries_in_flight_may_finish_in_any_order() {
        let mut gather = Gather::new(GatherLimits { in_flight_max: 2, ..limits() });
        for number in 0..3 {
            gather.push(Pending { item: number, bytes: 100, waiter: number });
        }
        assert_eq!(gather.next_entry(), Some((0, vec![0])));
        assert_eq!(gather.next_entry(), Some((1, vec![1])));
        assert_eq!(gather.next_entry(), None);
        assert_eq!(gather.finished(1), [1]);
        assert_eq!(gather.next_entry(), Some((2, vec![2])));
        assert_eq!(gather.finished(0), [0]);
    }

    #[test]
    fn what_has_not_left_can_be_given_up_without_touching_what_has() {
        let mut gather = gather_of(&[100, 5, 6, 7]);
        assert_eq!(gather.next_entry(), Some((0, vec![0])));
        assert_eq!(gather.give_up(|waiter| *waiter == 2), [1, 3]);
        assert!(gather.waits_only_for(|waiter| *waiter == 2));
        assert_eq!(gather.waiting_bytes(), 6);
        assert_eq!(gather.give_up(|_| false), [2]);
        assert_eq!(gather.waiting_bytes(), 0);
        assert!(!gather.is_idle());
        assert_eq!(gather.finished(0), [0]);
        assert!(gather.is_idle());
    }
}
