//! From stored batches to what is shown of their messages. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grus_protocol::BatchLimits;
use grus_protocol::batch::{BatchError, RecordBatch, RecordView};
use grus_protocol::ids::Offset;
use grus_protocol::names::TopicName;

use super::shapes::{HeaderItem, MessageItem, MessageOrigin, MessagePage, Piece};
use crate::topic_queue::FetchedBatch;

/// Bytes of bodies after which an answer is full.
const SHOWN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of batches after which an answer is full.
const READ_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Which messages are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The first offset.
    pub from: Offset,
    /// How many.
    pub count: usize,
    /// Most bytes of each body that are shown.
    pub body_bytes_max: usize,
}

/// What has been read so far.
#[derive(Debug)]
pub struct Browsed {
    wanted: Wanted,
    next: Offset,
    shown_bytes: usize,
    read_bytes: usize,
    messages: Vec<MessageItem>,
}

impl Browsed {
    /// Nothing yet.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, next: wanted.from, shown_bytes: 0, read_bytes: 0, messages: Vec::new() }
    }

    /// The offset to go on from.
    #[must_use]
    pub const fn next(&self) -> Offset {
        self.next
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether no more is to be read for this answer.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.messages.len() >= self.wanted.count
            || self.shown_bytes >= SHOWN_BYTES_MAX
            || self.read_bytes >= READ_BYTES_MAX
    }

    /// Takes what is wanted of a batch.
    ///
    /// # Errors
    /// When its bytes are not a batch.
    pub fn take(&mut self, fetched: &FetchedBatch) -> Result<(), BatchError> {
        self.read_bytes += fetched.bytes.len();
        let batch =
            RecordBatch::from_log(fetched.bytes.clone())?.decompressed(&BatchLimits::FORMAT)?;
        for (number, record) in (0_u64..).zip(batch.views()) {
            let record = record?;
            let offset = Offset(fetched.base_offset.0 + number);
            if offset < self.next {
                continue;
            }
            if self.messages.len() >= self.wanted.count || self.shown_bytes >= SHOWN_BYTES_MAX {
                return Ok(());
            }
            self.messages.push(item(offset, &record, fetched, &batch, self.wanted.body_bytes_max));
            self.shown_bytes += record.body().len().min(self.wanted.body_bytes_max);
            self.next = Offset(offset.0 + 1);
        }
        Ok(())
    }

    /// The answer, of a queue with these bounds (first offset, end).
    #[must_use]
    pub fn page(self, topic: &TopicName, queue: u32, bounds: (Offset, Offset)) -> MessagePage {
        MessagePage {
            topic: topic.to_string(),
            queue_id: queue,
            log_start: bounds.0.0,
            end_offset: bounds.1.0,
            next: (self.next < bounds.1).then_some(self.next.0),
            messages: self.messages,
        }
    }
}

fn item(
    offset: Offset,
    record: &RecordView<'_>,
    fetched: &FetchedBatch,
    batch: &RecordBatch,
    body_bytes_max: usize,
) -> MessageItem {
    let whole = record.body();
    let body = piece(shown_part(whole, body_bytes_max));
    MessageItem {
        offset: offset.0,
        id: record.id().to_string(),
        born_time: record.born().0,
        store_time: fetched.stored.0,
        priority: record.priority(),
        tag: record.tag().map(str::to_owned),
        keys: record.keys().map(piece).collect(),
        headers: record
            .headers()
            .map(|(name, value)| HeaderItem { name: name.to_owned(), value: piece(value) })
            .collect(),
        order_key: record.order_key().map(piece),
        dedup_key: record.dedup_key().map(piece),
        deliver_at: record.deliver_at().map(|at| at.0),
        delay_ms: record.delay_ms(),
        ttl_ms: record.ttl_ms(),
        lane: record.lane().map(str::to_owned),
        retry_count: record.retry_count(),
        origin: record.origin().map(|origin| MessageOrigin {
            topic: origin.topic.to_owned(),
            queue_id: origin.queue.0,
            offset: origin.offset.0,
        }),
        tombstone: record.is_tombstone(),
        producer_id: batch.producer_id().to_string(),
        producer_epoch: batch.producer_epoch().0,
        body_bytes: whole.len(),
        truncated: whole.len() > body_bytes_max,
        body,
    }
}

/// The beginning of a body. Text is not cut within a character, or it would look like bytes.
pub(super) fn shown_part(body: &[u8], bytes_max: usize) -> &[u8] {
    if body.len() <= bytes_max {
        return body;
    }
    let part = &body[..bytes_max];
    match std::str::from_utf8(part) {
        Err(error) if error.error_len().is_none() => &part[..error.valid_up_to()],
        _ => part,
    }
}

/// Bytes as JSON can carry them: as they are when they are text.
pub(super) fn piece(bytes: &[u8]) -> Piece {
    match std::str::from_utf8(bytes) {
        Ok(text) => Piece { value: text.to_owned(), encoding: "utf-8" },
        Err(_) => Piece { value: STANDARD.encode(bytes), encoding: "base64" },
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{Term, TimestampMs};
    use grus_protocol::{BatchBuilder, MessageId, NewRecord};

    use super::*;

    fn batch(base: u64, bodies: &[&[u8]]) -> FetchedBatch {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for body in bodies {
            let id = MessageId::from_parts(TimestampMs(5), &[1; 10]);
            let record = NewRecord::new(id, TimestampMs(5), bytes::Bytes::copy_from_slice(body));
            builder.push(&record).unwrap();
        }
        let count = builder.count();
        FetchedBatch {
            base_offset: Offset(base),
            count,
            term: Term(1),
            stored: TimestampMs(9),
            bytes: builder.finish(),
        }
    }

    fn browse(
        from: u64,
        count: usize,
        body_bytes_max: usize,
        batches: &[FetchedBatch],
    ) -> MessagePage {
        let mut browsed = Browsed::new(Wanted { from: Offset(from), count, body_bytes_max });
        for batch in batches {
            browsed.take(batch).unwrap();
        }
        browsed.page(&TopicName::try_from("t").unwrap(), 3, (Offset(10), Offset(14)))
    }

    #[test]
    fn a_page_begins_and_ends_within_batches() {
        let batches = [batch(10, &[b"a", b"b"]), batch(12, &[b"c", b"d"])];
        let page = browse(11, 2, 100, &batches);
        let shown: Vec<_> =
            page.messages.iter().map(|item| (item.offset, item.body.value.as_str())).collect();
        assert_eq!(shown, [(11, "b"), (12, "c")]);
        assert_eq!((page.next, page.end_offset), (Some(13), 14));
        assert_eq!(browse(13, 9, 100, &batches[1..]).next, None, "the end");
    }

    #[test]
    fn bodies_are_text_or_bytes_and_cut_between_characters() {
        let page = browse(10, 9, 4, &[batch(10, &[b"", b"\xff\x00", "a\u{e9}\u{e9}".as_bytes()])]);
        let bodies: Vec<_> = page
            .messages
            .iter()
            .map(|item| {
                (item.body.value.as_str(), item.body.encoding, item.body_bytes, item.truncated)
            })
            .collect();
        let expected =
            [("", "utf-8", 0, false), ("/wA=", "base64", 2, false), ("a\u{e9}", "utf-8", 5, true)];
        assert_eq!(bodies, expected);
    }

    #[test]
    fn an_answer_is_bounded_in_bytes_and_says_where_to_go_on() {
        let large = vec![b'x'; 1 << 20];
        let mut browsed =
            Browsed::new(Wanted { from: Offset(10), count: 100, body_bytes_max: 1 << 20 });
        for at in 10..12 {
            assert!(!browsed.is_full());
            browsed.take(&batch(at, &[&large])).unwrap();
        }
        assert!(browsed.is_full());
        assert_eq!(browsed.next(), Offset(12));
    }
}
