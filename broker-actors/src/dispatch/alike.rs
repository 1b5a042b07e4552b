//! What the records of a batch must have in common, looked at in the one pass of its check. Pure.

use grus_protocol::batch::{RecordError, RecordView};
use grus_protocol::error::{ErrorCode, ErrorDetail, ErrorReply};
use grus_protocol::ids::TimestampMs;
use grus_protocol::message::TopicKind;

use crate::commands::DedupKey;

/// What was seen of a batch so far.
pub(super) struct Alike {
    /// When the batch was taken: delays count from then.
    now: TimestampMs,
    seen: u32,
    key: Option<DedupKey>,
    ttl_ms: Option<u64>,
    dues: Vec<TimestampMs>,
}

impl Alike {
    /// Of a batch taken at `now`, by the broker's clock.
    pub(super) const fn new(now: TimestampMs) -> Self {
        Self { now, seen: 0, key: None, ttl_ms: None, dues: Vec::new() }
    }

    /// Looks at the next record.
    pub(super) fn look(&mut self, record: &RecordView<'_>) -> Result<(), RecordError> {
        let is_first = self.seen == 0;
        let key = record.dedup_key().map(DedupKey::of);
        if !is_first && self.key != key {
            return Err(RecordError::MixedDedupKeys);
        }
        if !is_first && self.ttl_ms != record.ttl_ms() {
            return Err(RecordError::MixedTtls);
        }
        let due = match (record.deliver_at(), record.delay_ms()) {
            (Some(_), Some(_)) => return Err(RecordError::TwoDueTimes),
            (Some(due), None) => Some(due),
            (None, Some(delay_ms)) => Some(TimestampMs(self.now.0.saturating_add(delay_ms))),
            (None, None) => None,
        };
        if !is_first && due.is_some() == self.dues.is_empty() {
            return Err(RecordError::MixedDueTimes);
        }
        self.dues.extend(due);
        (self.key, self.ttl_ms) = (key, record.ttl_ms());
        self.seen += 1;
        Ok(())
    }

    /// The dedup key of all records, if they have one.
    pub(super) const fn key(&self) -> Option<DedupKey> {
        self.key
    }

    /// Holds the batch against the kind of its topic.
    ///
    /// # Errors
    /// The error reply to send.
    pub(super) fn suits(&self, kind: TopicKind) -> Result<(), ErrorReply> {
        let text = match (kind, self.dues.is_empty()) {
            (TopicKind::DeadLetter, _) => "a topic of dead letters takes none from producers",
            (TopicKind::Delay, true) => "a topic of kind delay takes only messages with a due time",
            (TopicKind::Temporary, false) => "a temporary topic takes no messages with a due time",
            (TopicKind::Temporary, true) if self.key.is_some() => {
                "a temporary topic takes no messages with a dedup key"
            }
            _ => return Ok(()),
        };
        let first = ErrorDetail::Record { record_index: 0 };
        Err(ErrorReply::new(ErrorCode::RecordNotAllowed, text).with_detail(first))
    }

    /// From when delays count, if the batch is scheduled.
    pub(super) fn delays_from(&self) -> Option<TimestampMs> {
        (!self.dues.is_empty()).then_some(self.now)
    }

    /// When each record is due; `None` when the batch is to be seen at once.
    pub(super) fn into_dues(self) -> Option<Vec<TimestampMs>> {
        (!self.dues.is_empty()).then_some(self.dues)
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::batch::{BatchBuilder, BatchError, NewRecord, RecordBatch};
    use grus_protocol::ids::MessageId;
    use grus_protocol::limits::BatchLimits;

    use super::*;

    const NOW: TimestampMs = TimestampMs(1_000_000);

    fn record() -> NewRecord {
        NewRecord::new(MessageId::from_bytes([7; 16]), NOW, "x")
    }

    fn due(at: u64) -> NewRecord {
        NewRecord { deliver_at: Some(TimestampMs(at)), ..record() }
    }

    fn delayed(delay_ms: u64) -> NewRecord {
        NewRecord { delay_ms: Some(delay_ms), ..record() }
    }

    fn lives(ttl_ms: u64) -> NewRecord {
        NewRecord { ttl_ms: Some(ttl_ms), ..record() }
    }

    fn seen(records: &[NewRecord]) -> Result<Alike, BatchError> {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for one in records {
            builder.push(one).expect("the format has room for it");
        }
        let mut alike = Alike::new(NOW);
        let look = |record: &RecordView<'_>| alike.look(record);
        RecordBatch::check_each(builder.finish(), &BatchLimits::FORMAT, look)?;
        Ok(alike)
    }

    fn refused(records: &[NewRecord]) -> Option<BatchError> {
        seen(records).err()
    }

    #[test]
    fn delays_count_from_when_the_batch_was_taken() {
        let dues = seen(&[due(5), delayed(10_000), delayed(u64::MAX)]).unwrap().dues;
        let expected = [TimestampMs(5), TimestampMs(1_010_000), TimestampMs(u64::MAX)];
        assert_eq!(dues, expected);
        assert_eq!(seen(&[delayed(1)]).unwrap().delays_from(), Some(NOW));
        assert_eq!(seen(&[record()]).unwrap().delays_from(), None);
        assert_eq!(seen(&[record(), record()]).unwrap().dues, []);
    }

    #[test]
    fn the_first_record_that_differs_is_named() {
        let at = |index, error| Some(BatchError::Record { index, error });
        let (plain, keyed) = (record(), NewRecord { dedup_key: Some("k".into()), ..record() });
        assert_eq!(refused(&[due(5), plain.clone()]), at(1, RecordError::MixedDueTimes));
        let behind = [plain.clone(), plain.clone(), delayed(1)];
        assert_eq!(refused(&behind), at(2, RecordError::MixedDueTimes));
        assert_eq!(refused(&[lives(5), lives(5), lives(6)]), at(2, RecordError::MixedTtls));
        assert_eq!(refused(&[lives(5), plain.clone()]), at(1, RecordError::MixedTtls));
        assert_eq!(refused(&[plain, keyed]), at(1, RecordError::MixedDedupKeys));
        let both = NewRecord { delay_ms: Some(1), ..due(5) };
        assert_eq!(refused(&[both]), at(0, RecordError::TwoDueTimes));
    }

    #[test]
    fn a_topic_takes_what_its_kind_says() {
        let (later, now) = (seen(&[due(5)]).unwrap(), seen(&[record()]).unwrap());
        let code = |alike: &Alike, kind| alike.suits(kind).err().map(|error| error.code);
        let not_allowed = Some(ErrorCode::RecordNotAllowed);
        assert_eq!(code(&later, TopicKind::Durable), None);
        assert_eq!(code(&now, TopicKind::Durable), None);
        assert_eq!(code(&later, TopicKind::Delay), None);
        assert_eq!(code(&now, TopicKind::Delay), not_allowed);
        assert_eq!(code(&later, TopicKind::Temporary), not_allowed);
        assert_eq!(code(&now, TopicKind::Temporary), None);
    }
}
