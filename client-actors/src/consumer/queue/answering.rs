//! What the program says about messages of a queue that it has in hand. No clock, no I/O.

use grus_protocol::Offset;
use grus_protocol::message::{OffsetRange, Redelivered};

use super::super::local::{Failure, alone};
use super::super::settling::Verdict;
use super::{HandItem, OwnedQueue, Waiter};

impl<P> OwnedQueue<P> {
    /// A message failed, and is handed out again after a while, by the client itself; `wait` says
    /// when, by how often it was handed out.
    pub(crate) fn fail_here(
        &mut self,
        (number, offset): (u64, Offset),
        wait: impl FnOnce(u32) -> Option<u64>,
    ) -> Failure {
        let item = self.shares.get(&number).and_then(|share| share.item.as_ref());
        let (Some(item), Some(local)) = (item, self.local.as_mut()) else {
            return Failure::Unknown;
        };
        if !self.taken.contains(offset) {
            return Failure::Unknown;
        }
        let deliveries = local.failed(offset);
        let alone = alone(item, offset);
        let (Some(due_ms), Some(batch)) = (wait(deliveries), alone) else {
            return Failure::GivenUp { deliveries };
        };
        let to = Offset(offset.0 + 1);
        let again = HandItem {
            number: self.next_item,
            claim: self.claim.clone(),
            base_offset: offset,
            batch,
            wanted: vec![OffsetRange { from: offset, to }],
            redelivered: vec![Redelivered { from: offset, to, deliveries }],
            ..item.clone()
        };
        self.next_item += 1;
        self.release_one(number, offset);
        self.hold(&again);
        if let Some(local) = self.local.as_mut() {
            local.put(due_ms, again);
        }
        Failure::Waits
    }

    /// A message is not in the program's hands any more. False if it was not.
    fn release_one(&mut self, number: u64, offset: Offset) -> bool {
        if !self.shares.contains_key(&number) || !self.taken.remove(offset) {
            return false;
        }
        self.dealt_with(number, 1);
        true
    }

    /// The program has answered for a message; `waiter` hears when the broker knows, and is dropped
    /// when the answer does not count any more.
    pub(crate) fn settle(
        &mut self,
        (item, offset): (u64, Offset),
        verdict: Verdict,
        waiter: Option<Waiter<P>>,
        now_ms: u64,
    ) {
        // An item of before the queue was lost is not known any more.
        if !self.release_one(item, offset) {
            return;
        }
        if verdict != Verdict::Unhandled {
            self.local.iter_mut().for_each(|local| local.settled(offset));
        }
        if !self.acks_before {
            self.settling.settle(offset, verdict, waiter, now_ms);
        }
    }

    /// The program is done with these messages of an item; otherwise as [`OwnedQueue::settle`] with
    /// [`Verdict::Ack`].
    pub(crate) fn ack_ranges(
        &mut self,
        item: u64,
        ranges: &[OffsetRange],
        waiter: Option<Waiter<P>>,
        now_ms: u64,
    ) {
        if !self.shares.contains_key(&item) {
            return;
        }
        let released: Vec<_> =
            ranges.iter().flat_map(|range| self.taken.take_range(*range)).collect();
        if released.is_empty() {
            return;
        }
        self.dealt_with(item, released.iter().map(OffsetRange::len).sum());
        if let Some(local) = &mut self.local {
            let offsets = released.iter().flat_map(OffsetRange::numbers);
            offsets.for_each(|offset| local.settled(Offset(offset)));
        }
        if !self.acks_before {
            self.settling.ack_all(&released, waiter, now_ms);
        }
    }
}
