//! What of a group's queue is due again: retries, and what its member has in its hands and was not sent
//! over this connection.

use std::collections::BTreeSet;

use grus_log::{Disk, FaultIn};
use grus_protocol::ids::{Offset, TimestampMs};

use super::super::reading::Batches;
use super::super::sifting::{Marks, push, sift_again};
use super::super::{Fetched, FetchedBatch, QueueError};
use super::{Found, GIVEN_UP_PER_TURN_MAX, Looking, RETRIES_PER_TURN_MAX, ReadLimits, end_of};
use crate::machine::groups::retries::IN_HANDS;

/// A batch at a place.
enum One {
    Batch(FetchedBatch),
    Cold(FaultIn),
    Damaged,
}

impl<D: Disk> Looking<'_, D> {
    /// The batch that holds an offset.
    fn one_batch(&self, offset: Offset) -> One {
        let one = ReadLimits { bytes_max: 1, messages_max: 1 };
        let found = match self.warm {
            Some((at, batches_max)) if at == offset => {
                self.reading.warmed_batches(offset, one, batches_max.min(1)).map(Batches::Warm)
            }
            _ => self.reading.batches(offset, one),
        };
        match found {
            Ok(Batches::Warm(mut batches)) => batches.pop().map_or(One::Damaged, One::Batch),
            Ok(Batches::Cold(fault_in)) => One::Cold(fault_in),
            Err(_) => One::Damaged,
        }
    }

    /// Retries that are due, or were lost with an earlier subscription, by offset.
    fn due(&self, now: TimestampMs) -> (BTreeSet<Offset>, Vec<(Offset, u32)>) {
        let (mut due, mut dying) = (BTreeSet::new(), Vec::new());
        let owed = self.one.owed.iter().filter_map(|offset| self.held.retry(*offset));
        let owed = owed.filter(|retry| retry.due == IN_HANDS);
        let (group, start) = (self.one.holding.place.group, self.reading.bounds().log_start);
        let terms = &self.numbers().terms;
        for retry in owed.chain(self.held.due(now)) {
            // What a ring has dropped is forgotten as soon as retention has told of it.
            if retry.offset < start || self.queue.groups.is_under_way(group, retry.offset) {
                continue;
            }
            // What its member has in its hands is not over: only the connection was another one.
            let is_owed = retry.due == IN_HANDS;
            if terms.is_last(retry.deliveries) && !is_owed {
                dying.push((retry.offset, retry.deliveries));
            } else {
                due.insert(retry.offset);
            }
            if due.len() >= RETRIES_PER_TURN_MAX || dying.len() >= GIVEN_UP_PER_TURN_MAX {
                break;
            }
        }
        (due, dying)
    }

    /// What is due again.
    pub(super) fn again(&self, now: TimestampMs) -> Result<Found, QueueError> {
        if self.one.is_burying {
            return Ok(Found::Nothing);
        }
        let (due, dying) = self.due(now);
        if !dying.is_empty() {
            return Ok(Found::Dying(dying));
        }
        // What the member has in its hands is never over, and goes by itself.
        let is_owed = |at: &Offset| self.held.retry(*at).is_some_and(|one| one.due == IN_HANDS);
        let owed: BTreeSet<_> = due.iter().copied().filter(is_owed).collect();
        let (due, in_hands) = if owed.is_empty() { (due, false) } else { (owed, true) };
        let mut batches: Vec<FetchedBatch> = Vec::new();
        let (mut offsets, mut damaged) = (Vec::new(), Vec::new());
        let (mut bytes, mut messages) = (0, 0);
        for offset in due {
            let is_held = batches.last().is_some_and(|last| offset.0 < end_of(last).0);
            if !is_held {
                if self.turn.is_used_up(messages, bytes) && !batches.is_empty() {
                    break;
                }
                match self.one_batch(offset) {
                    One::Batch(batch) => {
                        bytes += batch.bytes.len() as u64;
                        messages += u64::from(batch.count);
                        batches.push(batch);
                    }
                    One::Cold(fault_in) if batches.is_empty() => {
                        return Ok(Found::Cold(offset, fault_in));
                    }
                    One::Cold(_) => break,
                    One::Damaged => {
                        damaged.push(offset);
                        continue;
                    }
                }
            }
            offsets.push(offset);
        }
        if !damaged.is_empty() {
            return Ok(Found::Damaged(damaged));
        }
        if batches.is_empty() {
            return Ok(Found::Nothing);
        }
        let fetched = match self.readable(batches, &|_| in_hands)? {
            Ok(fetched) => fetched,
            Err(error) => return Ok(Found::Ended(error)),
        };
        let end = fetched.batches.last().map_or(Offset(0), end_of);
        offsets.retain(|offset| *offset < end);
        Ok(self.sifted(fetched, offsets, in_hands))
    }

    /// What the member gets of the batches in which retries were found, unless they are over.
    fn sifted(&self, mut fetched: Fetched, offsets: Vec<Offset>, in_hands: bool) -> Found {
        let mut over = Vec::new();
        for batch in fetched.batches.iter().filter(|batch| batch.is_over()) {
            let inside = |offset: &&Offset| (batch.base_offset..end_of(batch)).contains(*offset);
            offsets.iter().filter(inside).for_each(|at| push(&mut over, at.0, at.0 + 1));
        }
        if !over.is_empty() {
            if !self.buries {
                return Found::Over(over);
            }
            let offsets = over.iter().flat_map(|span| (span.from.0..span.to.0).map(Offset));
            let retries = offsets.filter_map(|offset| self.held.retry(offset));
            return Found::Expired(retries.map(|one| (one.offset, one.deliveries)).collect());
        }
        fetched.batches.retain(|batch| !batch.is_over());
        let mut marks = Marks::default();
        for batch in &fetched.batches {
            let inside =
                offsets.iter().filter(|at| (batch.base_offset..end_of(batch)).contains(*at));
            sift_again(batch, inside.copied(), self.held, &mut marks);
        }
        Found::Again { fetched, marks, offsets, in_hands }
    }
}
