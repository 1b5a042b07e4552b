//! One record of a batch, decoded in place.
//!
//! ```text
//! length varint | attributes u16 | id 16 bytes | born delta zigzag | the fields of the attributes,
//! in the order of their bits | body: the rest
//! ```

use std::iter::FusedIterator;
use std::ops::Range;
use std::str;

use bytes::Bytes;

use super::bloom::bloom_of_tag_bytes;
use super::builder::Origin;
use super::cursor::Cursor;
use super::header::BATCH_HEADER_BYTES;
use super::{BatchError, BatchHeader, Compression, RecordAttributes};
use crate::ids::{MessageId, TimestampMs};
use crate::limits::BatchLimits;

mod parse;
mod ttl;

pub use ttl::ttl_ms_of;

/// The priority of a record that says nothing of one.
pub const PRIORITY_DEFAULT: u8 = 4;
/// The least bytes of a record: length, attributes, id, birth, no body.
pub const RECORD_BYTES_MIN: usize = 1 + 2 + 16 + 1;

/// Where something stands in a record's bytes. Records are shorter than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const NONE: Self = Self { start: 0, end: 0 };

    const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What every record has, its tag, and where the fields of its attributes stand. Those are read
/// again for each look at one: most records have none, and one that carried them all along would
/// be three times as large, which every reader of a batch pays for (37 ns a record and not 20,
/// `check_speed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    attributes: RecordAttributes,
    id: MessageId,
    born: TimestampMs,
    fields_at: u32,
    tag: Span,
    body_at: u32,
}

/// The fields of a record's attributes; those that are not there say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    priority: u8,
    deliver_at: u64,
    ttl_ms: u64,
    delay_ms: u64,
    retry_count: u32,
    keys_count: u32,
    headers_count: u32,
    origin_queue: u32,
    origin_offset: u64,
    keys: Span,
    tag: Span,
    headers: Span,
    order_key: Span,
    dedup_key: Span,
    lane: Span,
    origin_topic: Span,
    extension: Span,
}

/// A record. `B` is `&[u8]` for a look, [`Bytes`] to keep; no field is copied out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordOf<B> {
    bytes: B,
    parts: Parts,
}

/// A record that keeps its batch alive.
pub type Record = RecordOf<Bytes>;
/// A record that borrows from its batch.
pub type RecordView<'a> = RecordOf<&'a [u8]>;

impl<B: AsRef<[u8]>> RecordOf<B> {
    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes.as_ref()[span.range()]
    }

    /// Which fields it has.
    pub fn attributes(&self) -> RecordAttributes {
        self.parts.attributes
    }

    /// Its id.
    pub fn id(&self) -> MessageId {
        self.parts.id
    }

    /// When it was made, by the producer's clock.
    pub fn born(&self) -> TimestampMs {
        self.parts.born
    }

    fn has(&self, attribute: RecordAttributes) -> bool {
        self.parts.attributes.contains(attribute)
    }

    /// The fields, which were read, and so held against the rules, when the record was decoded.
    fn fields(&self) -> Fields {
        let mut cursor = Cursor::new(self.bytes.as_ref(), self.parts.fields_at as usize);
        let read = Fields::read(&mut cursor, self.parts.attributes, &BatchLimits::FORMAT);
        read.unwrap_or(Fields::NONE)
    }

    /// The field of an attribute, if it is there.
    fn field<T>(&self, attribute: RecordAttributes, of: impl FnOnce(Fields) -> T) -> Option<T> {
        self.has(attribute).then(|| of(self.fields()))
    }

    fn bytes_of(
        &self,
        attribute: RecordAttributes,
        of: impl FnOnce(Fields) -> Span,
    ) -> Option<&[u8]> {
        self.field(attribute, of).map(|span| self.slice(span))
    }

    fn text(&self, attribute: RecordAttributes, of: impl FnOnce(Fields) -> Span) -> Option<&str> {
        str::from_utf8(self.bytes_of(attribute, of)?).ok() // was checked when it was decoded
    }

    /// Its priority, 0 to 9; [`PRIORITY_DEFAULT`] when it says nothing.
    pub fn priority(&self) -> u8 {
        let said = self.field(RecordAttributes::PRIORITY, |fields| fields.priority);
        said.unwrap_or(PRIORITY_DEFAULT)
    }

    /// When it is due.
    pub fn deliver_at(&self) -> Option<TimestampMs> {
        self.field(RecordAttributes::DELIVER_AT, |fields| TimestampMs(fields.deliver_at))
    }

    /// The keys to find it by.
    pub fn keys(&self) -> Keys<'_> {
        let found = self.field(RecordAttributes::KEYS, |fields| (fields.keys_count, fields.keys));
        let (left, span) = found.unwrap_or_default();
        Keys { left, rest: self.slice(span) }
    }

    /// The tag to filter it by.
    pub fn tag(&self) -> Option<&str> {
        str::from_utf8(self.tag_bytes()?).ok() // was checked when the record was decoded
    }

    fn tag_bytes(&self) -> Option<&[u8]> {
        self.has(RecordAttributes::TAG).then(|| self.slice(self.parts.tag))
    }

    /// The bits of its tag, 0 without one.
    pub fn tag_bloom(&self) -> u64 {
        self.tag_bytes().map_or(0, bloom_of_tag_bytes)
    }

    /// Its headers, in the order they were given in; a name may come more than once.
    pub fn headers(&self) -> Headers<'_> {
        let found =
            self.field(RecordAttributes::HEADERS, |fields| (fields.headers_count, fields.headers));
        let (left, span) = found.unwrap_or_default();
        Headers { left, rest: self.slice(span) }
    }

    /// The key of the order it keeps with others of the same key.
    pub fn order_key(&self) -> Option<&[u8]> {
        self.bytes_of(RecordAttributes::ORDER_KEY, |fields| fields.order_key)
    }

    /// How long it may wait to be consumed, in milliseconds from when it came into its queue.
    pub fn ttl_ms(&self) -> Option<u64> {
        self.field(RecordAttributes::TTL, |fields| fields.ttl_ms)
    }

    /// The key by which a second one is dropped.
    pub fn dedup_key(&self) -> Option<&[u8]> {
        self.bytes_of(RecordAttributes::DEDUP_KEY, |fields| fields.dedup_key)
    }

    /// The lane it is for.
    pub fn lane(&self) -> Option<&str> {
        self.text(RecordAttributes::LANE, |fields| fields.lane)
    }

    /// How often it was delivered in vain.
    pub fn retry_count(&self) -> u32 {
        self.field(RecordAttributes::RETRY_COUNT, |fields| fields.retry_count).unwrap_or(0)
    }

    /// Where it came from, when it is a retry or a dead letter.
    pub fn origin(&self) -> Option<Origin<&str>> {
        let fields = self.field(RecordAttributes::ORIGIN, |fields| fields)?;
        let topic = str::from_utf8(self.slice(fields.origin_topic)).ok()?; // checked as above
        let queue = fields.origin_queue.into();
        Some(Origin { topic, queue, offset: fields.origin_offset.into() })
    }

    /// Whether it has no body and removes its key from a compacted topic.
    pub fn is_tombstone(&self) -> bool {
        self.has(RecordAttributes::TOMBSTONE)
    }

    /// Fields of later versions, as one piece.
    pub fn extension(&self) -> Option<&[u8]> {
        self.bytes_of(RecordAttributes::EXTENSION, |fields| fields.extension)
    }

    /// How long after the broker took it it is due, in milliseconds, when its sender gave no
    /// [time](RecordOf::deliver_at).
    pub fn delay_ms(&self) -> Option<u64> {
        self.field(RecordAttributes::DELAY, |fields| fields.delay_ms)
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.bytes.as_ref()[self.parts.body_at as usize..]
    }
}

impl Record {
    /// All of it after its length.
    pub(super) fn content(&self) -> &Bytes {
        &self.bytes
    }

    /// Its body, sharing the batch's memory.
    pub fn body_bytes(&self) -> Bytes {
        self.bytes.slice(self.parts.body_at as usize..)
    }
}

/// The keys of a record.
#[derive(Debug, Clone)]
pub struct Keys<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        split_off_sized(&mut self.rest)
    }
}

/// The headers of a record.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        self.left = self.left.checked_sub(1)?;
        let name = split_off_sized(&mut self.rest)?;
        Some((str::from_utf8(name).ok()?, split_off_sized(&mut self.rest)?))
    }
}

/// Takes a length and so many bytes off `rest`; both were checked when the record was decoded.
fn split_off_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut cursor = Cursor::new(rest, 0);
    let length = cursor.varint_u32("length").ok()?;
    let taken = cursor.take(length as usize, "bytes").ok()?;
    *rest = &rest[cursor.at()..];
    Some(taken)
}

/// The records of a batch, borrowed.
#[derive(Debug, Clone)]
pub struct Views<'a> {
    bytes: &'a [u8],
    at: usize,
    index: u32,
    count: u32,
    born_base: TimestampMs,
    limits: BatchLimits,
    /// Not 0: these are no records.
    compression: u8,
}

impl<'a> Views<'a> {
    pub(super) fn new(bytes: &'a [u8], header: &BatchHeader) -> Self {
        let compression = header.attributes.compression_number();
        Self { compression, ..Self::with_limits(bytes, header, &BatchLimits::FORMAT) }
    }

    /// The plain records of a batch with this header, which may be of its compressed form.
    pub(super) fn with_limits(bytes: &'a [u8], header: &BatchHeader, limits: &BatchLimits) -> Self {
        Self {
            bytes,
            at: BATCH_HEADER_BYTES,
            index: 0,
            count: header.count,
            born_base: header.born_base,
            limits: *limits,
            compression: Compression::None as u8,
        }
    }

    /// Bytes after the last record that was read.
    pub(super) const fn trailing_bytes(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads the next record; answers where its content stands in the batch, too.
    fn read(&mut self) -> Result<(Range<usize>, Parts), BatchError> {
        let mut cursor = Cursor::new(self.bytes, self.at);
        if cursor.remaining() == 0 {
            return Err(BatchError::Count { declared: self.count, actual: self.index });
        }
        let index = self.index;
        let failed = |error| BatchError::Record { index, error };
        let length = cursor.varint_u32("length").map_err(failed)?;
        let start = cursor.at();
        let content = cursor.take(length as usize, "record").map_err(failed)?;
        let parts = Parts::parse(content, self.born_base, &self.limits).map_err(failed)?;
        self.at = cursor.at();
        self.index += 1;
        Ok((start..self.at, parts))
    }

    fn read_next(&mut self) -> Option<Result<(Range<usize>, Parts), BatchError>> {
        if self.index == self.count {
            return None;
        }
        let read = match self.compression {
            0 => self.read(),
            number => Err(BatchError::Compression(number)),
        };
        if read.is_err() {
            self.count = self.index; // after an error there are no more
        }
        Some(read)
    }
}

impl<'a> Iterator for Views<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read_next()?;
        Some(read.map(|(range, parts)| RecordOf { bytes: &self.bytes[range], parts }))
    }
}

impl FusedIterator for Views<'_> {}

/// The records of a batch, each keeping it alive.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    views: Views<'a>,
    batch: &'a Bytes,
}

impl<'a> Records<'a> {
    pub(super) const fn new(views: Views<'a>, batch: &'a Bytes) -> Self {
        Self { views, batch }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.views.read_next()?;
        Some(read.map(|(range, parts)| RecordOf { bytes: self.batch.slice(range), parts }))
    }
}

impl FusedIterator for Records<'_> {}
