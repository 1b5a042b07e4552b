//! A record to be encoded once more, made of a decoded one.

use super::{NewRecord, Origin, Record, RecordAttributes};
use crate::names::TopicName;

impl From<&Record> for NewRecord {
    /// All fields; keys, headers and body share the batch's memory where they can.
    fn from(record: &Record) -> Self {
        let has = |attribute| record.attributes().contains(attribute);
        let copied = bytes::Bytes::copy_from_slice;
        Self {
            id: record.id(),
            born: record.born(),
            priority: has(RecordAttributes::PRIORITY).then(|| record.priority()),
            deliver_at: record.deliver_at(),
            keys: record.keys().map(copied).collect(),
            tag: record.tag().map(Into::into),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), copied(value)))
                .collect(),
            order_key: record.order_key().map(copied),
            ttl_ms: record.ttl_ms(),
            dedup_key: record.dedup_key().map(copied),
            lane: record.lane().map(Into::into),
            retry_count: has(RecordAttributes::RETRY_COUNT).then(|| record.retry_count()),
            origin: record.origin().and_then(|origin| {
                let topic = TopicName::parse_any(origin.topic).ok()?;
                Some(Origin { topic, queue: origin.queue, offset: origin.offset })
            }),
            is_tombstone: record.is_tombstone(),
            extension: record.extension().map(copied),
            delay_ms: record.delay_ms(),
            body: record.body_bytes(),
        }
    }
}
