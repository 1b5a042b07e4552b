//! Finds the parts of a record, and holds them against the limits.

use std::str;

use super::{Fields, PRIORITY_DEFAULT, Parts, Span};
use crate::batch::cursor::Cursor;
use crate::batch::{MESSAGE_BYTES_LIMIT, RecordAttributes, RecordError};
use crate::ids::{MessageId, TimestampMs};
use crate::limits::{BatchLimits, PRIORITY_MAX};
use crate::names::TopicName;

impl Parts {
    /// Reads the content of a record: all after its length.
    pub(super) fn parse(
        content: &[u8],
        born_base: TimestampMs,
        limits: &BatchLimits,
    ) -> Result<Self, RecordError> {
        let mut cursor = Cursor::new(content, 0);
        let attributes = RecordAttributes(cursor.u16("attributes")?);
        check_attributes(attributes, limits)?;
        let id = MessageId::from_bytes(cursor.id()?);
        if id.is_nil() {
            return Err(RecordError::NilId);
        }
        let born = born_base.0.checked_add_signed(cursor.zigzag("born")?);
        let born = TimestampMs(born.ok_or(RecordError::Time { field: "born" })?);
        let fields_at = place(cursor.at());
        let mut tag = Span::default();
        if attributes != RecordAttributes::NONE {
            tag = Fields::read(&mut cursor, attributes, limits)?.tag;
        }
        let body_at = place(cursor.at());
        let body_bytes = place(cursor.remaining());
        if attributes.contains(RecordAttributes::TOMBSTONE) && body_bytes > 0 {
            return Err(RecordError::BodyNotAllowed(body_bytes));
        }
        within(MESSAGE_BYTES_LIMIT, limits.message_bytes_max, body_bytes)?;
        Ok(Self { attributes, id, born, fields_at, tag, body_at })
    }
}

impl Fields {
    /// Of a record that has none of them.
    pub(super) const NONE: Self = Self {
        priority: PRIORITY_DEFAULT,
        deliver_at: 0,
        ttl_ms: 0,
        delay_ms: 0,
        retry_count: 0,
        keys_count: 0,
        headers_count: 0,
        origin_queue: 0,
        origin_offset: 0,
        keys: Span::NONE,
        tag: Span::NONE,
        headers: Span::NONE,
        order_key: Span::NONE,
        dedup_key: Span::NONE,
        lane: Span::NONE,
        origin_topic: Span::NONE,
        extension: Span::NONE,
    };

    /// Reads the fields of these attributes, and holds them against the limits.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        attributes: RecordAttributes,
        limits: &BatchLimits,
    ) -> Result<Self, RecordError> {
        let mut fields = Self::NONE;
        fields.read_common(cursor, attributes, limits)?;
        fields.read_rare(cursor, attributes, limits)?;
        Ok(fields)
    }

    /// Reads the fields of bits 0 to 5.
    pub(super) fn read_common(
        &mut self,
        cursor: &mut Cursor<'_>,
        attributes: RecordAttributes,
        limits: &BatchLimits,
    ) -> Result<(), RecordError> {
        if attributes.contains(RecordAttributes::PRIORITY) {
            self.priority = cursor.u8("priority")?;
            within("priority_max", PRIORITY_MAX.into(), self.priority.into())?;
        }
        if attributes.contains(RecordAttributes::DELIVER_AT) {
            self.deliver_at = cursor.u64("deliver_at")?;
        }
        if attributes.contains(RecordAttributes::KEYS) {
            self.keys_count = read_count(cursor, "keys", "keys_max", limits.keys_max)?;
            let start = cursor.at();
            for _ in 0..self.keys_count {
                read_sized(cursor, "key", "key_bytes_max", limits.key_bytes_max)?;
            }
            self.keys = span(start, cursor.at());
        }
        if attributes.contains(RecordAttributes::TAG) {
            self.tag = read_text(cursor, "tag", "tag_bytes_max", limits.tag_bytes_max)?;
        }
        if attributes.contains(RecordAttributes::HEADERS) {
            self.read_headers(cursor, limits)?;
        }
        if attributes.contains(RecordAttributes::ORDER_KEY) {
            self.order_key =
                read_sized(cursor, "order key", "key_bytes_max", limits.key_bytes_max)?;
        }
        Ok(())
    }

    fn read_headers(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &BatchLimits,
    ) -> Result<(), RecordError> {
        self.headers_count = read_count(cursor, "headers", "headers_max", limits.headers_max)?;
        let start = cursor.at();
        let mut bytes_sum = 0_u32;
        for _ in 0..self.headers_count {
            let name_limit = limits.header_name_bytes_max;
            let name = read_text(cursor, "header name", "header_name_bytes_max", name_limit)?;
            let value_bytes = cursor.varint_u32("header value")?;
            cursor.take(value_bytes as usize, "header value")?;
            bytes_sum = bytes_sum.saturating_add(name.end - name.start).saturating_add(value_bytes);
            within("headers_bytes_max", limits.headers_bytes_max, bytes_sum)?;
        }
        self.headers = span(start, cursor.at());
        Ok(())
    }

    /// Reads the fields of bits 6 to 13.
    fn read_rare(
        &mut self,
        cursor: &mut Cursor<'_>,
        attributes: RecordAttributes,
        limits: &BatchLimits,
    ) -> Result<(), RecordError> {
        if attributes.contains(RecordAttributes::TTL) {
            self.ttl_ms = cursor.varint("ttl")?;
        }
        if attributes.contains(RecordAttributes::DEDUP_KEY) {
            self.dedup_key =
                read_sized(cursor, "dedup key", "key_bytes_max", limits.key_bytes_max)?;
        }
        if attributes.contains(RecordAttributes::LANE) {
            self.lane = read_text(cursor, "lane", "tag_bytes_max", limits.tag_bytes_max)?;
        }
        if attributes.contains(RecordAttributes::RETRY_COUNT) {
            self.retry_count = cursor.varint_u32("retry count")?;
        }
        if attributes.contains(RecordAttributes::ORIGIN) {
            let length = cursor.varint_u32("origin topic")?;
            let start = cursor.at();
            let topic = cursor.take(length as usize, "origin topic")?;
            let text = str::from_utf8(topic).map_err(|_| RecordError::Text { field: ORIGIN })?;
            TopicName::check_any(text).map_err(|_| RecordError::Name { field: ORIGIN })?;
            self.origin_topic = span(start, cursor.at());
            self.origin_queue = cursor.varint_u32("origin queue")?;
            self.origin_offset = cursor.varint("origin offset")?;
        }
        if attributes.contains(RecordAttributes::EXTENSION) {
            let limit = limits.headers_bytes_max;
            self.extension = read_sized(cursor, "extension", "headers_bytes_max", limit)?;
        }
        if attributes.contains(RecordAttributes::DELAY) {
            self.delay_ms = cursor.varint("delay")?;
        }
        Ok(())
    }
}

const ORIGIN: &str = "origin topic";

fn check_attributes(attributes: RecordAttributes, limits: &BatchLimits) -> Result<(), RecordError> {
    let unknown = attributes.without(RecordAttributes::ALL);
    if unknown != RecordAttributes::NONE {
        return Err(RecordError::UnknownAttributes(unknown.0));
    }
    let refused = attributes.without(limits.attributes_allowed);
    if refused != RecordAttributes::NONE {
        return Err(RecordError::AttributesNotAllowed(refused.0));
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "a record's length is 32 bits")]
const fn place(at: usize) -> u32 {
    at as u32
}

const fn span(start: usize, end: usize) -> Span {
    Span { start: place(start), end: place(end) }
}

fn within(name: &'static str, limit: u32, actual: u32) -> Result<(), RecordError> {
    if actual <= limit {
        return Ok(());
    }
    Err(RecordError::Limit { name, limit: limit.into(), actual: actual.into() })
}

fn read_count(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    name: &'static str,
    limit: u32,
) -> Result<u32, RecordError> {
    let count = cursor.varint_u32(field)?;
    if count == 0 {
        return Err(RecordError::Empty { field });
    }
    within(name, limit, count)?;
    Ok(count)
}

/// Reads a length and so many bytes, at least one.
fn read_bytes<'a>(
    cursor: &mut Cursor<'a>,
    field: &'static str,
    name: &'static str,
    limit: u32,
) -> Result<(Span, &'a [u8]), RecordError> {
    let length = cursor.varint_u32(field)?;
    if length == 0 {
        return Err(RecordError::Empty { field });
    }
    within(name, limit, length)?;
    let start = cursor.at();
    let bytes = cursor.take(length as usize, field)?;
    Ok((span(start, cursor.at()), bytes))
}

fn read_sized(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    name: &'static str,
    limit: u32,
) -> Result<Span, RecordError> {
    read_bytes(cursor, field, name, limit).map(|(span, _)| span)
}

fn read_text(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    name: &'static str,
    limit: u32,
) -> Result<Span, RecordError> {
    let (span, text) = read_bytes(cursor, field, name, limit)?;
    str::from_utf8(text).map_err(|_| RecordError::Text { field })?;
    Ok(span)
}
