//! Dead letters: a message as its group's dead-letter queue has it, and as it goes back. Pure.

use bytes::Bytes;
use grus_protocol::batch::{BatchBuilder, Compression, NewRecord, Origin, Record, RecordBatch};
use grus_protocol::ids::{Offset, QueueId, TimestampMs};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{REASON_BYTES_MAX, dead_letter_headers as headers};
use grus_protocol::names::TopicName;

use super::FetchedBatch;

/// What is known of a message that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The topic that it lies in.
    pub topic: TopicName,
    /// The queue.
    pub queue: QueueId,
    /// Its offset.
    pub offset: Offset,
    /// Why.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
    /// The group.
    pub group: String,
    /// When.
    pub now: TimestampMs,
}

/// What a dead letter says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFacts {
    /// The topic that it came from.
    pub topic: TopicName,
    /// The queue.
    pub queue: QueueId,
    /// Its offset there.
    pub offset: Offset,
    /// Why it was given up.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// The records of a batch, read once for all letters that come from it.
#[derive(Debug)]
pub struct OpenBatch {
    base_offset: Offset,
    records: Vec<Record>,
}

impl OpenBatch {
    /// Reads those that can be read; none when the batch cannot be.
    pub fn of(batch: &FetchedBatch) -> Option<Self> {
        let plain = RecordBatch::from_log(batch.bytes.clone()).ok()?;
        let plain = plain.decompressed(&BatchLimits::FORMAT).ok()?;
        let records = plain.records().map_while(Result::ok).collect();
        Some(Self { base_offset: batch.base_offset, records })
    }

    /// The record at an offset; none when it is not there or cannot be read.
    pub fn at(&self, offset: Offset) -> Option<&Record> {
        let place = offset.0.checked_sub(self.base_offset.0)?;
        self.records.get(usize::try_from(place).ok()?)
    }
}

fn alone(record: &NewRecord) -> Option<Bytes> {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    builder.push(record).ok()?;
    Some(builder.finish())
}

/// A batch of one, compressed, where that makes it shorter.
pub fn squeezed(batch: &Bytes) -> Option<Bytes> {
    let plain = RecordBatch::from_log(batch.clone()).ok()?;
    let plain = plain.decompressed(&BatchLimits::FORMAT).ok()?;
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for record in plain.records() {
        builder.push(&NewRecord::of(&record.ok()?)).ok()?;
    }
    builder.compress(Compression::Lz4);
    (!builder.is_empty()).then(|| builder.finish())
}

/// A message as a dead letter, as a batch of one: all of it, and in headers where it came from and
/// why. It is not over any more, nor due: it waits for somebody to look at it.
pub fn dead_letter(record: &Record, death: &Death) -> Option<Bytes> {
    let mut letter = NewRecord::of(record);
    // One that died before, in another group's queue of dead letters, keeps when that was first.
    let since = record.headers().find(|(name, _)| *name == headers::DEAD_SINCE);
    let since = since.map_or_else(|| text(death.now.0), |(_, at)| Bytes::copy_from_slice(at));
    letter.headers.retain(|(name, _)| !headers::ALL.contains(&name.as_str()));
    let mut cut = death.reason.len().min(REASON_BYTES_MAX);
    while !death.reason.is_char_boundary(cut) {
        cut -= 1;
    }
    let added = [
        (headers::ORIGIN_TOPIC, Bytes::copy_from_slice(death.topic.as_str().as_bytes())),
        (headers::ORIGIN_QUEUE, text(u64::from(death.queue.0))),
        (headers::ORIGIN_OFFSET, text(death.offset.0)),
        (headers::REASON, Bytes::copy_from_slice(&death.reason.as_bytes()[..cut])),
        (headers::DELIVERIES, text(u64::from(death.deliveries))),
        (headers::GROUP, Bytes::copy_from_slice(death.group.as_bytes())),
        (headers::DEAD_SINCE, since),
    ];
    letter.headers.extend(added.map(|(name, value)| (name.to_owned(), value)));
    letter.retry_count = Some(death.deliveries.saturating_sub(1));
    letter.origin =
        Some(Origin { topic: death.topic.clone(), queue: death.queue, offset: death.offset });
    (letter.ttl_ms, letter.deliver_at, letter.delay_ms) = (None, None, None);
    alone(&letter)
}

/// What a dead letter says of itself; none if it says nothing.
pub fn facts_of(record: &Record) -> Option<LetterFacts> {
    let value = |wanted: &str| {
        let found = record.headers().find(|(name, _)| *name == wanted);
        found.and_then(|(_, value)| str::from_utf8(value).ok())
    };
    Some(LetterFacts {
        topic: TopicName::parse_any(value(headers::ORIGIN_TOPIC)?).ok()?,
        queue: QueueId(value(headers::ORIGIN_QUEUE)?.parse().ok()?),
        offset: Offset(value(headers::ORIGIN_OFFSET)?.parse().ok()?),
        reason: value(headers::REASON).unwrap_or_default().to_owned(),
        deliveries: value(headers::DELIVERIES).and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// A dead letter as it goes back, as a batch of one: without what had been added to it, but for
/// when it was given up first.
pub fn sent_back(record: &Record) -> Option<Bytes> {
    let mut message = NewRecord::of(record);
    let is_added = |name: &str| headers::ALL.contains(&name) && name != headers::DEAD_SINCE;
    message.headers.retain(|(name, _)| !is_added(name));
    (message.retry_count, message.origin) = (None, None);
    alone(&message)
}

fn text(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{MessageId, Term};

    use super::*;

    fn batch(records: &[NewRecord]) -> FetchedBatch {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for record in records {
            builder.push(record).unwrap();
        }
        builder.compress(Compression::Lz4);
        let count = u32::try_from(records.len()).unwrap();
        let (term, stored) = (Term(1), TimestampMs(1));
        FetchedBatch { base_offset: Offset(100), count, term, stored, bytes: builder.finish() }
    }

    fn message(body: &'static str) -> NewRecord {
        NewRecord {
            keys: vec![Bytes::from_static(b"k")],
            tag: Some("t".into()),
            headers: vec![("h".into(), Bytes::from_static(b"v"))],
            order_key: Some(Bytes::from_static(b"o")),
            ..NewRecord::new(MessageId::from_bytes([7; 16]), TimestampMs(5), body)
        }
    }

    fn death(offset: u64, reason: &str) -> Death {
        Death {
            topic: TopicName::try_from("orders").unwrap(),
            queue: QueueId(3),
            offset: Offset(offset),
            reason: reason.into(),
            deliveries: 16,
            group: "billing".into(),
            now: TimestampMs(1_000),
        }
    }

    fn only(bytes: Bytes) -> Record {
        let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        assert_eq!(batch.count(), 1);
        batch.records().next().unwrap().unwrap()
    }

    #[test]
    fn a_squeezed_letter_says_the_same() {
        let long = NewRecord { body: Bytes::from(vec![7; 100_000]), ..message("") };
        let record = record_at(&batch(&[long]), Offset(100)).unwrap();
        let letter = dead_letter(&record, &death(100, "no luck")).unwrap();
        let squeezed = squeezed(&letter).unwrap();
        assert!(squeezed.len() < letter.len() / 10);
        let both = [letter, squeezed].map(|bytes| {
            let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
            let plain = batch.decompressed(&BatchLimits::FORMAT).unwrap();
            NewRecord::of(&plain.records().next().unwrap().unwrap())
        });
        assert_eq!(both[0], both[1]);
    }

    fn record_at(batch: &FetchedBatch, offset: Offset) -> Option<Record> {
        OpenBatch::of(batch)?.at(offset).cloned()
    }

    #[test]
    fn a_letter_says_where_it_came_from_and_goes_back_as_it_was() {
        let ttl = NewRecord { ttl_ms: Some(9), ..message("second") };
        let batch = batch(&[message("first"), ttl]);
        let record = record_at(&batch, Offset(101)).unwrap();
        assert!(
            record_at(&batch, Offset(102)).is_none() && record_at(&batch, Offset(99)).is_none()
        );
        let letter = only(dead_letter(&record, &death(101, "no such account")).unwrap());
        assert_eq!(
            (letter.body(), letter.tag(), letter.ttl_ms()),
            (&b"second"[..], Some("t"), None)
        );
        assert_eq!((letter.id(), letter.order_key()), (record.id(), Some(&b"o"[..])));
        assert_eq!(letter.retry_count(), 15);
        let facts = facts_of(&letter).unwrap();
        let topic = TopicName::try_from("orders").unwrap();
        let expected = LetterFacts {
            topic,
            queue: QueueId(3),
            offset: Offset(101),
            reason: "no such account".into(),
            deliveries: 16,
        };
        assert_eq!(facts, expected);
        assert_eq!(facts_of(&record), None);
        let back = only(sent_back(&letter).unwrap());
        let mut expected = message("second"); // its time to live is gone
        expected.headers.push((headers::DEAD_SINCE.into(), Bytes::from_static(b"1000")));
        assert_eq!(NewRecord::of(&back), expected);
    }

    #[test]
    fn one_that_dies_again_keeps_its_first_time_and_reasons_are_cut() {
        let record = record_at(&batch(&[message("m")]), Offset(100)).unwrap();
        let letter = only(dead_letter(&record, &death(100, "first")).unwrap());
        let later = Death { now: TimestampMs(9_999), ..death(7, &"ü".repeat(REASON_BYTES_MAX)) };
        let again = only(dead_letter(&letter, &later).unwrap());
        let since = again.headers().find(|(name, _)| *name == headers::DEAD_SINCE);
        assert_eq!(since.map(|(_, value)| value), Some(&b"1000"[..]));
        let facts = facts_of(&again).unwrap();
        assert_eq!((facts.offset, facts.reason.len()), (Offset(7), REASON_BYTES_MAX));
        assert_eq!(again.headers().count(), 1 + headers::ALL.len());
    }
}
