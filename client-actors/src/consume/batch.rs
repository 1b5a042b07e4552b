//! Messages of a group as they lie in a stored batch, and the program's answer for all of them.

use std::fmt;
use std::sync::Arc;

use grus_mailbox::{Dropped, reply};
use grus_protocol::batch::RecordView;
use grus_protocol::message::OffsetRange;
use grus_protocol::{Offset, QueueId, TimestampMs, TopicName};

use super::message::{AnswerDoors, AnswerError, Outcome, Ticket};
use crate::consumer::{AckRanges, HandItem, Verdict};
use crate::read::READ_LIMITS;

/// Messages of one stored batch that are in the program's hands until it answers for them, for those who
/// look at many messages and keep few. **Dropped unanswered, all of them have failed.** Interceptors
/// are not called.
pub struct HandedBatch {
    item: HandItem,
    doors: Option<Arc<AnswerDoors>>,
}

impl HandedBatch {
    /// None when the batch cannot be read: its messages have failed, and in the end they are dead
    /// letters, and somebody looks at them.
    pub(super) fn new(mut item: HandItem, doors: Arc<AnswerDoors>) -> Option<Self> {
        match item.batch.clone().decompressed(&READ_LIMITS) {
            Ok(batch) => {
                item.batch = batch;
                Some(Self { item, doors: Some(doors) })
            }
            Err(error) => {
                Self { item, doors: Some(doors) }.answer(Outcome::Nack(error.to_string()));
                None
            }
        }
    }

    /// The topic.
    pub fn topic(&self) -> &TopicName {
        &self.item.topic
    }

    /// The queue.
    pub fn queue(&self) -> QueueId {
        self.item.queue
    }

    /// When it was stored, by the broker's clock.
    pub fn stored(&self) -> TimestampMs {
        self.item.stored
    }

    /// Number of messages of it that are in hand.
    pub fn len(&self) -> usize {
        usize::try_from(self.item.len()).unwrap_or(usize::MAX)
    }

    /// Whether there are none, which no consumer returns.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages, borrowed: their offsets and their records. They end early, before
    /// [`HandedBatch::len`], at a record that cannot be decoded; no broker stores one.
    pub fn views(&self) -> impl Iterator<Item = (Offset, RecordView<'_>)> {
        let offsets = (self.item.base_offset.0..).map(Offset);
        let sound = self.item.batch.views().map_while(Result::ok);
        offsets.zip(sound).filter(|(at, _)| self.item.wanted.iter().any(|one| one.contains(*at)))
    }

    /// How often a message of it was delivered before, in vain: 0 the first time.
    pub fn deliveries(&self, offset: Offset) -> u32 {
        self.item.deliveries(offset)
    }

    /// All of it is done. Waits until the broker knows.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub async fn ack(mut self) -> Result<(), AnswerError> {
        let (done, answer) = reply::port();
        self.tell_done(Some(done));
        answer.await.map_err(|Dropped| AnswerError)
    }

    /// Answers for all of it alike. The answer is told together with others, within a tenth of a
    /// second.
    pub fn answer(mut self, outcome: Outcome) {
        self.answer_all(outcome);
    }

    /// Gives it back unhandled, as [`Handed::give_back`](crate::Handed::give_back) does.
    pub fn give_back(mut self) {
        self.settle(&Verdict::Unhandled);
    }

    fn answer_all(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ack => self.tell_done(None),
            other => self.settle(&other.verdict()),
        }
    }

    fn tell_done(&mut self, done: Option<grus_mailbox::Port<()>>) {
        let Some(doors) = self.doors.take() else { return };
        let (slot, item, ranges) = (self.item.slot, self.item.number, self.item.wanted.clone());
        let _ = doors.acks.try_put(AckRanges { slot, item, ranges, done }); // closed: nobody hears
    }

    fn settle(&mut self, verdict: &Verdict) {
        let Some(doors) = self.doors.take() else { return };
        let (slot, item) = (self.item.slot, self.item.number);
        for offset in self.item.wanted.iter().flat_map(OffsetRange::numbers).map(Offset) {
            let doors = Arc::clone(&doors);
            Ticket { doors, slot, item, offset }.settle(verdict.clone(), None);
        }
    }
}

impl fmt::Debug for HandedBatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { item, .. } = self;
        let mut shown = out.debug_struct("HandedBatch");
        shown.field("topic", &item.topic).field("queue", &item.queue);
        shown.field("wanted", &item.wanted).finish_non_exhaustive()
    }
}

impl Drop for HandedBatch {
    fn drop(&mut self) {
        if self.doors.is_some() {
            let reason = "the program dropped it unanswered".to_owned();
            self.answer_all(Outcome::Nack(reason));
        }
    }
}
