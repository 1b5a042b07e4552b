//! Encodes records into a batch.

use bytes::{BufMut, Bytes, BytesMut};

use super::bloom::bloom_of_tag;
use super::compress::compress;
use super::cursor::{fold_zigzag, put_varint, varint_bytes, write_varint};
use super::header::BATCH_HEADER_BYTES;
use super::{
    BatchAttributes, BatchHeader, Compression, MESSAGE_BYTES_LIMIT, Record, RecordAttributes,
    RecordError,
};
use crate::ids::{MessageId, Offset, ProducerEpoch, ProducerId, QueueId, Sequence, TimestampMs};
use crate::limits::{BatchLimits, PRIORITY_MAX};
use crate::names::TopicName;

/// Most bytes of a record before its fields: length, attributes, id, birth.
const RECORD_HEAD_BYTES_MAX: usize = 10 + 2 + 16 + 10;

/// Where a message was before it became a retry or a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<T = TopicName> {
    /// The topic.
    pub topic: T,
    /// The queue.
    pub queue: QueueId,
    /// The offset in it.
    pub offset: Offset,
}

/// A record to be encoded. Fields left at their default take no bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// The message's id, not nil.
    pub id: MessageId,
    /// When it was made, by the producer's clock.
    pub born: TimestampMs,
    /// 0 to 9, the greater goes first.
    pub priority: Option<u8>,
    /// When it is due.
    pub deliver_at: Option<TimestampMs>,
    /// Keys to find it by.
    pub keys: Vec<Bytes>,
    /// Tag to filter it by.
    pub tag: Option<String>,
    /// Names and values; a name may come more than once.
    pub headers: Vec<(String, Bytes)>,
    /// Key of the order it keeps with others of the same key.
    pub order_key: Option<Bytes>,
    /// How long it may wait to be consumed, in milliseconds from when it came into its queue.
    pub ttl_ms: Option<u64>,
    /// Key by which a second one is dropped.
    pub dedup_key: Option<Bytes>,
    /// The lane it is for.
    pub lane: Option<String>,
    /// How often it was delivered in vain.
    pub retry_count: Option<u32>,
    /// Where it came from.
    pub origin: Option<Origin>,
    /// Whether it has no body and removes its key from a compacted topic.
    pub is_tombstone: bool,
    /// Fields of later versions, as one piece.
    pub extension: Option<Bytes>,
    /// How long after the broker took it it is due, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Its body.
    pub body: Bytes,
}

impl NewRecord {
    /// A record with a body and nothing else.
    pub fn new(id: MessageId, born: TimestampMs, body: impl Into<Bytes>) -> Self {
        Self { id, born, body: body.into(), ..Self::default() }
    }

    /// What `record` was made of, every field of it: for a record that is to be encoded again.
    pub fn of(record: &Record) -> Self {
        let has = |attribute| record.attributes().contains(attribute);
        Self {
            id: record.id(),
            born: record.born(),
            priority: has(RecordAttributes::PRIORITY).then(|| record.priority()),
            deliver_at: record.deliver_at(),
            keys: record.keys().map(Bytes::copy_from_slice).collect(),
            tag: record.tag().map(Into::into),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)))
                .collect(),
            order_key: record.order_key().map(Bytes::copy_from_slice),
            ttl_ms: record.ttl_ms(),
            dedup_key: record.dedup_key().map(Bytes::copy_from_slice),
            lane: record.lane().map(Into::into),
            retry_count: has(RecordAttributes::RETRY_COUNT).then(|| record.retry_count()),
            origin: record.origin().map(|origin| Origin {
                topic: TopicName::parse_any(origin.topic).expect("checked when it was read"),
                queue: origin.queue,
                offset: origin.offset,
            }),
            is_tombstone: record.is_tombstone(),
            extension: record.extension().map(Bytes::copy_from_slice),
            delay_ms: record.delay_ms(),
            body: record.body_bytes(),
        }
    }

    /// Which fields it has.
    pub fn attributes(&self) -> RecordAttributes {
        let fields = [
            (self.priority.is_some(), RecordAttributes::PRIORITY),
            (self.deliver_at.is_some(), RecordAttributes::DELIVER_AT),
            (!self.keys.is_empty(), RecordAttributes::KEYS),
            (self.tag.is_some(), RecordAttributes::TAG),
            (!self.headers.is_empty(), RecordAttributes::HEADERS),
            (self.order_key.is_some(), RecordAttributes::ORDER_KEY),
            (self.ttl_ms.is_some(), RecordAttributes::TTL),
            (self.dedup_key.is_some(), RecordAttributes::DEDUP_KEY),
            (self.lane.is_some(), RecordAttributes::LANE),
            (self.retry_count.is_some(), RecordAttributes::RETRY_COUNT),
            (self.origin.is_some(), RecordAttributes::ORIGIN),
            (self.is_tombstone, RecordAttributes::TOMBSTONE),
            (self.extension.is_some(), RecordAttributes::EXTENSION),
            (self.delay_ms.is_some(), RecordAttributes::DELAY),
        ];
        let there = fields.into_iter().filter(|(is_there, _)| *is_there);
        there.fold(RecordAttributes::NONE, |all, (_, attribute)| all.with(attribute))
    }

    /// Most bytes by which the record makes a batch longer.
    pub fn encoded_bytes_max(&self) -> usize {
        let content_bytes = self.content_bytes(self.attributes(), self.born);
        sized_bytes(content_bytes - varint_bytes(0) + varint_bytes(u64::MAX))
    }

    /// Bytes of the encoded record without its length, in a batch whose birth times count from
    /// `born_base`.
    fn content_bytes(&self, attributes: RecordAttributes, born_base: TimestampMs) -> usize {
        let delta = fold_zigzag(born_delta(self.born, born_base));
        let mut bytes = 2 + 16 + varint_bytes(delta) + self.body.len();
        if attributes == RecordAttributes::NONE {
            return bytes;
        }
        bytes += usize::from(self.priority.is_some()) + 8 * usize::from(self.deliver_at.is_some());
        if !self.keys.is_empty() {
            bytes += varint_bytes(self.keys.len() as u64);
            bytes += self.keys.iter().map(|key| sized_bytes(key.len())).sum::<usize>();
        }
        bytes += self.tag.as_ref().map_or(0, |tag| sized_bytes(tag.len()));
        if !self.headers.is_empty() {
            bytes += varint_bytes(self.headers.len() as u64);
            let one = |(name, value): &(String, Bytes)| {
                sized_bytes(name.len()) + sized_bytes(value.len())
            };
            bytes += self.headers.iter().map(one).sum::<usize>();
        }
        bytes += self.order_key.as_ref().map_or(0, |key| sized_bytes(key.len()));
        bytes += self.ttl_ms.map_or(0, varint_bytes);
        bytes += self.dedup_key.as_ref().map_or(0, |key| sized_bytes(key.len()));
        bytes += self.lane.as_ref().map_or(0, |lane| sized_bytes(lane.len()));
        bytes += self.retry_count.map_or(0, |count| varint_bytes(count.into()));
        if let Some(origin) = &self.origin {
            bytes += sized_bytes(origin.topic.as_str().len());
            bytes += varint_bytes(origin.queue.0.into()) + varint_bytes(origin.offset.0);
        }
        bytes += self.extension.as_ref().map_or(0, |piece| sized_bytes(piece.len()));
        bytes + self.delay_ms.map_or(0, varint_bytes)
    }

    /// Holds the record against the limits, by the same rules as the check of a batch.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self, limits: &BatchLimits) -> Result<(), RecordError> {
        self.check_with(self.attributes(), limits)
    }

    /// The same for a record that has these attributes. Most have none, and nothing but a body to be
    /// looked at and put: that way a message of 100 B costs 25 ns and not 51 (`check_speed`).
    fn check_with(
        &self,
        attributes: RecordAttributes,
        limits: &BatchLimits,
    ) -> Result<(), RecordError> {
        if self.id.is_nil() {
            return Err(RecordError::NilId);
        }
        if attributes != RecordAttributes::NONE {
            self.check_fields(attributes, limits)?;
        }
        within(MESSAGE_BYTES_LIMIT, limits.message_bytes_max, self.body.len())
    }

    fn check_fields(
        &self,
        attributes: RecordAttributes,
        limits: &BatchLimits,
    ) -> Result<(), RecordError> {
        let refused = attributes.without(limits.attributes_allowed);
        if refused != RecordAttributes::NONE {
            return Err(RecordError::AttributesNotAllowed(refused.0));
        }
        within("priority_max", PRIORITY_MAX.into(), self.priority.unwrap_or(0).into())?;
        within("keys_max", limits.keys_max, self.keys.len())?;
        for key in &self.keys {
            check_sized("key", "key_bytes_max", limits.key_bytes_max, key.len())?;
        }
        for (field, key) in [("order key", &self.order_key), ("dedup key", &self.dedup_key)] {
            let bytes = key.as_ref().map_or(1, Bytes::len);
            check_sized(field, "key_bytes_max", limits.key_bytes_max, bytes)?;
        }
        for (field, text) in [("tag", &self.tag), ("lane", &self.lane)] {
            let bytes = text.as_ref().map_or(1, String::len);
            check_sized(field, "tag_bytes_max", limits.tag_bytes_max, bytes)?;
        }
        self.check_headers(limits)?;
        let bytes = self.extension.as_ref().map_or(1, Bytes::len);
        check_sized("extension", "headers_bytes_max", limits.headers_bytes_max, bytes)?;
        if self.is_tombstone && !self.body.is_empty() {
            let bytes = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
            return Err(RecordError::BodyNotAllowed(bytes));
        }
        Ok(())
    }

    fn check_headers(&self, limits: &BatchLimits) -> Result<(), RecordError> {
        within("headers_max", limits.headers_max, self.headers.len())?;
        let mut bytes_sum = 0;
        for (name, value) in &self.headers {
            let limit = limits.header_name_bytes_max;
            check_sized("header name", "header_name_bytes_max", limit, name.len())?;
            bytes_sum += name.len() + value.len();
        }
        within("headers_bytes_max", limits.headers_bytes_max, bytes_sum)
    }

    fn put(
        &self,
        attributes: RecordAttributes,
        content_bytes: usize,
        born_base: TimestampMs,
        out: &mut BytesMut,
    ) {
        let mut head = [0; RECORD_HEAD_BYTES_MAX]; // put at once
        let mut at = write_varint(&mut head, content_bytes as u64);
        head[at..at + 2].copy_from_slice(&attributes.0.to_le_bytes());
        head[at + 2..at + 18].copy_from_slice(self.id.as_bytes());
        at += 18;
        at += write_varint(&mut head[at..], fold_zigzag(born_delta(self.born, born_base)));
        out.put_slice(&head[..at]);
        if attributes != RecordAttributes::NONE {
            self.put_fields(out);
        }
        out.put_slice(&self.body);
    }

    fn put_fields(&self, out: &mut BytesMut) {
        if let Some(priority) = self.priority {
            out.put_u8(priority);
        }
        if let Some(due) = self.deliver_at {
            out.put_u64_le(due.0);
        }
        if !self.keys.is_empty() {
            put_varint(out, self.keys.len() as u64);
            self.keys.iter().for_each(|key| put_sized(out, key));
        }
        put_optional(out, self.tag.as_ref().map(String::as_bytes));
        if !self.headers.is_empty() {
            put_varint(out, self.headers.len() as u64);
            for (name, value) in &self.headers {
                put_sized(out, name.as_bytes());
                put_sized(out, value);
            }
        }
        put_optional(out, self.order_key.as_deref());
        if let Some(ttl_ms) = self.ttl_ms {
            put_varint(out, ttl_ms);
        }
        put_optional(out, self.dedup_key.as_deref());
        put_optional(out, self.lane.as_ref().map(String::as_bytes));
        if let Some(count) = self.retry_count {
            put_varint(out, count.into());
        }
        if let Some(origin) = &self.origin {
            put_sized(out, origin.topic.as_str().as_bytes());
            put_varint(out, origin.queue.0.into());
            put_varint(out, origin.offset.0);
        }
        put_optional(out, self.extension.as_deref());
        if let Some(delay_ms) = self.delay_ms {
            put_varint(out, delay_ms);
        }
    }
}

/// Puts records into a batch. Used again after [`BatchBuilder::finish`].
#[derive(Debug)]
pub struct BatchBuilder {
    limits: BatchLimits,
    out: BytesMut,
    count: u32,
    born_base: TimestampMs,
    born_max: TimestampMs,
    tag_bloom: u64,
    is_gray: bool,
    has_ttl: bool,
    compression: Compression,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    first_sequence: Sequence,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            out: BytesMut::new(),
            count: 0,
            born_base: TimestampMs(0),
            born_max: TimestampMs(0),
            tag_bloom: 0,
            is_gray: false,
            has_ttl: false,
            compression: Compression::None,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(0),
            first_sequence: Sequence(0),
        }
    }

    /// Gives the batch its place in the producer's sequence. Must be told for each batch.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, first: Sequence) {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.first_sequence = first;
    }

    /// Makes room for records of so many bytes in all, at most for a whole batch, so that its bytes
    /// are not moved while it grows.
    pub fn reserve(&mut self, bytes: usize) {
        let batch_bytes_max = usize::try_from(self.limits.batch_bytes_max).unwrap_or(usize::MAX);
        self.out.reserve((BATCH_HEADER_BYTES + bytes).min(batch_bytes_max));
    }

    /// Marks the batch's messages as being for the gray lane. Must be told for each batch.
    pub fn set_gray(&mut self, is_gray: bool) {
        self.is_gray = is_gray;
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`RecordError::BatchFull`] when the next batch would take it, anything else when none
    /// would. The batch is as it was then.
    pub fn push(&mut self, record: &NewRecord) -> Result<(), RecordError> {
        let attributes = record.attributes();
        record.check_with(attributes, &self.limits)?;
        if self.compression != Compression::None {
            return Err(RecordError::BatchFull); // it is closed
        }
        let born_base = if self.is_empty() { record.born } else { self.born_base };
        if !born_delta_fits(record.born, born_base) {
            return Err(RecordError::BatchFull); // 292 million years apart
        }
        let content_bytes = record.content_bytes(attributes, born_base);
        let alone = BATCH_HEADER_BYTES + varint_bytes(content_bytes as u64) + content_bytes;
        let limit = self.limits.batch_bytes_max;
        if alone as u64 > u64::from(limit) {
            return Err(RecordError::TooLong { bytes: alone as u64, limit: limit.into() });
        }
        let bytes = self.len_bytes() + sized_bytes(content_bytes);
        if bytes as u64 > u64::from(limit) || self.count >= self.limits.records_max {
            return Err(RecordError::BatchFull);
        }
        if self.is_empty() {
            self.out.reserve(BATCH_HEADER_BYTES + sized_bytes(content_bytes));
            self.out.put_bytes(0, BATCH_HEADER_BYTES);
            self.born_base = record.born;
        }
        let start = self.out.len();
        record.put(attributes, content_bytes, born_base, &mut self.out);
        assert_eq!(self.out.len() - start, sized_bytes(content_bytes), "a record's own sum");
        self.count += 1;
        self.born_max = self.born_max.max(record.born);
        self.tag_bloom |= record.tag.as_deref().map_or(0, bloom_of_tag);
        self.has_ttl |= record.ttl_ms.is_some();
        Ok(())
    }

    /// Compresses the records, if that makes the batch shorter; otherwise it stays as it is. A
    /// compressed batch takes no more records. A batch that is compressed already stays so.
    pub fn compress(&mut self, compression: Compression) {
        if self.compression == Compression::None
            && let Some(compressed) = compress(&self.out, compression)
        {
            self.out = compressed;
            self.compression = compression;
        }
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the batch as it is now.
    pub fn len_bytes(&self) -> usize {
        self.out.len().max(BATCH_HEADER_BYTES)
    }

    /// Takes the encoded batch out and leaves an empty one.
    ///
    /// # Panics
    /// When it has no records: the format has no empty batch.
    pub fn finish(&mut self) -> Bytes {
        assert!(!self.is_empty(), "a batch has at least one record");
        let out = self.out.split();
        let length = u32::try_from(out.len()).expect("push keeps it below batch_bytes_max");
        let header = BatchHeader {
            length,
            checksum: 0,
            count: self.count,
            born_base: self.born_base,
            born_max: self.born_max,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            attributes: BatchAttributes::new(self.is_gray, self.compression).with_ttl(self.has_ttl),
            first_sequence: self.first_sequence,
            tag_bloom: self.tag_bloom,
        };
        let buffer = std::mem::take(&mut self.out);
        *self = Self { out: buffer, ..Self::new(self.limits) };
        header.seal(out)
    }
}

/// Wraps when the two are too far apart, see [`born_delta_fits`].
const fn born_delta(born: TimestampMs, base: TimestampMs) -> i64 {
    born.0.wrapping_sub(base.0).cast_signed()
}

const fn born_delta_fits(born: TimestampMs, base: TimestampMs) -> bool {
    matches!(base.0.checked_add_signed(born_delta(born, base)), Some(sum) if sum == born.0)
}

const fn sized_bytes(length: usize) -> usize {
    varint_bytes(length as u64) + length
}

fn put_sized(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn put_optional(out: &mut BytesMut, bytes: Option<&[u8]>) {
    if let Some(present) = bytes {
        put_sized(out, present);
    }
}

fn within(name: &'static str, limit: u32, actual: usize) -> Result<(), RecordError> {
    if actual as u64 <= u64::from(limit) {
        return Ok(());
    }
    Err(RecordError::Limit { name, limit: limit.into(), actual: actual as u64 })
}

fn check_sized(
    field: &'static str,
    name: &'static str,
    limit: u32,
    actual: usize,
) -> Result<(), RecordError> {
    if actual == 0 {
        return Err(RecordError::Empty { field });
    }
    within(name, limit, actual)
}
