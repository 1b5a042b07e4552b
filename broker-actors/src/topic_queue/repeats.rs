//! Batches that are on their way into the log and come once more.
//!
//! A producer that hears nothing in its time sends a batch again. While the first is still on its way,
//! because the disk is slow, say, a second one would be read, copied, written and synced like the first, only
//! to be found a repetition when it is applied: a broker that is late would be given all its work twice
//! over, just then. So whoever sends it again waits for what becomes of the first.
//!
//! A receipt is shared, and what holds for any batch: who leads, that the queue stops or is gone. What else
//! the first was refused for need not hold for the second (the batch before it may have been stored
//! meanwhile): it is told to come again.
//!
//! All of it runs on the queue's own arbiter; the lock is there because a [`Port`] may be answered anywhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use grus_mailbox::Port;
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{ProducerEpoch, ProducerId, Sequence};

use super::{OVERLOADED_RETRY_MS, Receipt};
use crate::error::QueueError;

/// Who may wait for one batch besides the first: more are told to come again.
const WAITING_MAX: usize = 8;

type Reply = Port<Result<Receipt, QueueError>>;

/// By what a batch is known again: its place in its producer's sequence, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stamp {
    producer: ProducerId,
    epoch: ProducerEpoch,
    first: Sequence,
    checksum: u32,
}

/// The batches of producers with sequences that are on their way, and who else waits for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<HashMap<Stamp, Vec<Reply>>>>);

impl Repeats {
    /// The port to propose the batch with; none when it is on its way already, and `reply` waits for that.
    pub(super) fn first(&self, batch: &RecordBatch, reply: Reply) -> Option<Reply> {
        let stamp = Stamp {
            producer: batch.producer_id(),
            epoch: batch.producer_epoch(),
            first: batch.first_sequence(),
            checksum: batch.header().checksum,
        };
        if stamp.producer == ProducerId::NONE {
            return Some(reply);
        }
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = under_way.get_mut(&stamp) else {
            under_way.insert(stamp, Vec::new());
            let all = self.clone();
            return Some(Port::call(move |answer: Result<_, _>| {
                let waiting = all.take(&stamp);
                let Ok(answer) = answer else { return }; // all ports are dropped with it
                for one in waiting {
                    one.send(shared(&answer));
                }
                reply.send(answer);
            }));
        };
        if waiting.len() < WAITING_MAX {
            waiting.push(reply);
        } else {
            drop(under_way);
            reply.send(Err(again()));
        }
        None
    }

    fn take(&self, stamp: &Stamp) -> Vec<Reply> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(stamp).unwrap_or_default()
    }
}

fn shared(answer: &Result<Receipt, QueueError>) -> Result<Receipt, QueueError> {
    match answer {
        Ok(receipt) => Ok(Receipt { duplicate: true, ..*receipt }),
        Err(
            error
            @ (QueueError::NotLeader { .. } | QueueError::Stopping | QueueError::UnknownQueue),
        ) => Err(error.clone()),
        Err(_) => Err(again()),
    }
}

const fn again() -> QueueError {
    QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use grus_mailbox::Answer;
    use grus_mailbox::reply::port;
    use grus_protocol::batch::{BatchBuilder, NewRecord};
    use grus_protocol::ids::{Durability, MessageId, Offset, Term, TimestampMs};
    use grus_protocol::limits::BatchLimits;

    use super::*;

    type Told = Answer<Result<Receipt, QueueError>>;

    fn batch(producer: u64, sequence: u64, body: &'static [u8]) -> RecordBatch {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        builder.set_producer(ProducerId(producer), ProducerEpoch(0), Sequence(sequence));
        let record = NewRecord::new(
            MessageId(uuid::Uuid::from_u128(7)),
            TimestampMs(5),
            Bytes::from_static(body),
        );
        builder.push(&record).unwrap();
        RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap()
    }

    fn receipt() -> Receipt {
        Receipt {
            base_offset: Offset(9),
            timer: None,
            count: 1,
            term: Term(1),
            stored: TimestampMs(6),
            durability: Durability::Persisted,
            duplicate: false,
        }
    }

    fn come(repeats: &Repeats, batch: &RecordBatch) -> (Option<Reply>, Told) {
        let (reply, told) = port();
        (repeats.first(batch, reply), told)
    }

    #[test]
    fn whoever_comes_again_waits_for_the_first_and_gets_its_receipt() {
        let repeats = Repeats::default();
        let one = batch(1, 0, b"one");
        let (first, mut told) = come(&repeats, &one);
        let (second, mut told_again) = come(&repeats, &one);
        assert!(second.is_none() && told_again.try_take() == Ok(None));
        first.unwrap().send(Ok(receipt()));
        assert_eq!(told.try_take(), Ok(Some(Ok(receipt()))));
        let duplicate = Receipt { duplicate: true, ..receipt() };
        assert_eq!(told_again.try_take(), Ok(Some(Ok(duplicate))));
        assert!(come(&repeats, &one).0.is_some(), "it is on its way no more: the log judges it");
    }

    #[test]
    fn a_refusal_is_not_shared_and_a_port_that_is_dropped_drops_the_others() {
        let repeats = Repeats::default();
        let one = batch(1, 0, b"one");
        let (first, _told) = come(&repeats, &one);
        let (_, mut told_again) = come(&repeats, &one);
        let gap = QueueError::OutOfSequence { expected: Sequence(3) };
        first.unwrap().send(Err(gap));
        assert_eq!(told_again.try_take(), Ok(Some(Err(again()))));
        let (first, _told) = come(&repeats, &one);
        let (_, mut told_again) = come(&repeats, &one);
        let elsewhere = QueueError::NotLeader { leader: Some(2) };
        first.unwrap().send(Err(elsewhere.clone()));
        assert_eq!(told_again.try_take(), Ok(Some(Err(elsewhere))));
        let (first, mut told) = come(&repeats, &one);
        let (_, mut told_again) = come(&repeats, &one);
        drop(first);
        assert!(told.try_take().is_err() && told_again.try_take().is_err());
        assert!(come(&repeats, &one).0.is_some());
    }

    #[test]
    fn only_the_same_batch_of_a_producer_with_a_sequence_waits_and_not_too_many_do() {
        let repeats = Repeats::default();
        let one = batch(1, 0, b"one");
        let _first = come(&repeats, &one);
        for other in [batch(1, 1, b"one"), batch(2, 0, b"one"), batch(1, 0, b"two")] {
            assert!(come(&repeats, &other).0.is_some());
        }
        let unnumbered = batch(0, 0, b"one");
        let held = come(&repeats, &unnumbered);
        assert!(held.0.is_some() && come(&repeats, &unnumbered).0.is_some());
        let _waiting: Vec<_> = (0..WAITING_MAX).map(|_| come(&repeats, &one)).collect();
        let (none, mut told) = come(&repeats, &one);
        assert!(none.is_none());
        assert_eq!(told.try_take(), Ok(Some(Err(again()))));
    }
}
