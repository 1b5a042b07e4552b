//! How far a reader has come in one queue, and what it asks for next. No clock, no I/O.

use grus_protocol::{Offset, QueueId, RecordBatch, Term, TimestampMs};

use crate::backoff::Backoff;
use crate::config::StartAt;
use crate::route::LinkId;

/// A batch that was read, as it is stored: it is decompressed when the program takes it, so that what
/// is read ahead is as little as it was on its way.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) queue: QueueId,
    /// Offset of the batch's first record.
    pub(crate) base_offset: Offset,
    /// Records at its beginning that were not asked for.
    pub(crate) skip: u32,
    pub(crate) stored: TimestampMs,
    pub(crate) batch: RecordBatch,
    /// Number of the last seek before it was read.
    pub(crate) seeks: u32,
}

impl Item {
    /// Bytes it holds.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.batch.len_bytes())
    }
}

/// What to ask the broker for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The offset of a place.
    Locate(StartAt),
    /// Batches from this offset on, whose predecessor is of this term.
    Fetch(Offset, Term),
}

/// How much of what is pushed for one queue may be on the way and in hand.
///
/// `granted + held` stays within the window: credit is given back as the program takes what was
/// read, by no more than is free, so that subscriptions made anew over and over never add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Messages and bytes that the broker may still send; below 0 by part of a batch at most.
    granted: (i64, i64),
    /// Messages and bytes read ahead.
    held: (i64, i64),
}

impl Window {
    /// What a new subscription may begin with; none while too much is held.
    pub(crate) fn open(&mut self, most: (u32, u32)) -> Option<(u32, u32)> {
        self.granted = (0, 0);
        self.more(most, true)
    }

    /// What to give, now that so much is free; none while it is not worth a request.
    pub(crate) fn top_up(&mut self, most: (u32, u32)) -> Option<(u32, u32)> {
        self.more(most, false)
    }

    fn more(&mut self, most: (u32, u32), is_new: bool) -> Option<(u32, u32)> {
        let free = |most: u32, granted: i64, held: i64| i64::from(most) - granted - held.max(0);
        let messages = free(most.0, self.granted.0, self.held.0).max(0);
        let bytes = free(most.1, self.granted.1, self.held.1).max(0);
        let is_worth = if is_new {
            messages > 0 && bytes > 0
        } else {
            messages >= i64::from(most.0.div_ceil(2)) || bytes >= i64::from(most.1.div_ceil(2))
        };
        if !is_worth {
            return None;
        }
        let given = (u32::try_from(messages).ok()?, u32::try_from(bytes).ok()?);
        self.granted.0 += i64::from(given.0);
        self.granted.1 += i64::from(given.1);
        Some(given)
    }

    /// The credit was not sent after all.
    pub(crate) fn not_given(&mut self, (messages, bytes): (u32, u32)) {
        self.granted.0 -= i64::from(messages);
        self.granted.1 -= i64::from(bytes);
    }

    /// A batch arrived. False if there was no credit for it.
    pub(crate) fn arrived(&mut self, messages: u32, bytes: u32) -> bool {
        let was_open = self.granted.0 > 0 && self.granted.1 > 0;
        self.granted.0 -= i64::from(messages);
        self.granted.1 -= i64::from(bytes);
        was_open
    }

    /// So much is read ahead.
    pub(crate) fn hold(&mut self, messages: u32, bytes: u64) {
        self.held.0 += i64::from(messages);
        self.held.1 += i64::try_from(bytes).unwrap_or(i64::MAX / 2);
    }

    /// So much of what was read ahead is dealt with.
    pub(crate) fn release(&mut self, messages: u32, bytes: u32) {
        self.held.0 -= i64::from(messages);
        self.held.1 -= i64::from(bytes);
    }

    /// All that was read ahead is taken, or dropped.
    pub(crate) fn release_all(&mut self) {
        self.held = (0, 0);
    }
}

/// A batch of a fetch's answer, or what is left of one.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) base_offset: Offset,
    pub(crate) term: Term,
    pub(crate) stored: TimestampMs,
    pub(crate) content: Content,
}

/// What stands in one place of a fetch's answer.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A batch.
    Batch(RecordBatch),
    /// So many records, whose time to live is over: they are not sent.
    Expired(u32),
}

impl Content {
    /// How many records it is about.
    fn count(&self) -> u32 {
        match self {
            Self::Batch(batch) => batch.count(),
            Self::Expired(count) => *count,
        }
    }
}

/// One queue of a reader.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) queue: QueueId,
    pub(crate) link: Option<LinkId>,
    /// `None` while it rests after an error.
    want: Option<Want>,
    /// Whether nothing was read since it was told to begin at the first message.
    pub(crate) at_first: bool,
    /// The request under way: its number, when it was sent.
    asked: Option<(u64, u64)>,
    /// The subscription that stands: what is pushed for it is awaited, nothing is asked.
    live: Option<u64>,
    /// What it has in hand of what was pushed.
    pub(crate) window: Window,
    not_before_ms: u64,
    backoff: Backoff,
    /// Number of the last seek.
    pub(crate) seeks: u32,
    /// Answers in a row that were damaged.
    pub(crate) damaged: u32,
}

impl Cursor {
    pub(crate) fn new(queue: QueueId, start: StartAt, seed: u64, seeks: u32) -> Self {
        let mut cursor = Self {
            queue,
            link: None,
            want: None,
            at_first: false,
            asked: None,
            live: None,
            window: Window::default(),
            not_before_ms: 0,
            backoff: Backoff::new(20, 1_000, seed),
            seeks,
            damaged: 0,
        };
        cursor.start(start);
        cursor
    }

    fn start(&mut self, start: StartAt) {
        self.at_first = start == StartAt::First;
        self.want = Some(match start {
            StartAt::Offset(offset) => Want::Fetch(offset, Term::UNKNOWN),
            place => Want::Locate(place),
        });
        self.asked = None;
        self.live = None;
        self.not_before_ms = 0;
        self.damaged = 0;
    }

    /// Begins again at another place. What was asked for is of no account any more.
    pub(crate) fn seek(&mut self, start: StartAt, seeks: u32) {
        self.seeks = seeks;
        self.start(start);
    }

    /// Asks for nothing more until it is sought.
    pub(crate) fn rest(&mut self) {
        self.want = None;
        self.asked = None;
        self.live = None;
    }

    /// The connection is lost, or leads elsewhere.
    pub(crate) fn forget_asked(&mut self) {
        self.asked = None;
        self.live = None;
        self.not_before_ms = 0;
    }

    /// The subscription asked for as this number, or the one that stands.
    pub(crate) fn subscription(&self) -> Option<u64> {
        self.live.or_else(|| self.asked.map(|(number, _)| number))
    }

    /// The subscription that stands.
    pub(crate) fn live(&self) -> Option<u64> {
        self.live
    }

    /// The subscription stands, from this offset on.
    pub(crate) fn subscribed(&mut self, number: u64, offset: Offset) {
        if matches!(self.want, Some(Want::Locate(_))) {
            self.want = Some(Want::Fetch(offset, Term::UNKNOWN));
        }
        self.live = Some(number);
    }

    /// The subscription is over.
    pub(crate) fn ended(&mut self) {
        self.live = None;
    }

    /// What to ask for now, as request `number`.
    pub(crate) fn ask(&mut self, number: u64, now_ms: u64) -> Option<Want> {
        if self.asked.is_some() || self.live.is_some() || now_ms < self.not_before_ms {
            return None;
        }
        let want = self.want?;
        self.asked = Some((number, now_ms));
        Some(want)
    }

    /// Whether batches are on their way that were asked for.
    pub(crate) fn is_fetching(&self) -> bool {
        self.asked.is_some() && self.next().is_some()
    }

    /// The request was not sent.
    pub(crate) fn not_asked(&mut self, now_ms: u64, wait_ms: u64) {
        self.asked = None;
        self.not_before_ms = now_ms + wait_ms;
    }

    /// Whether `number` is the request under way; if so, it is over.
    pub(crate) fn answered(&mut self, number: u64) -> bool {
        let current = self.asked.is_some_and(|(asked, _)| asked == number);
        if current {
            self.asked = None;
        }
        current
    }

    /// The request under way is given up when it was sent so long ago; its number.
    pub(crate) fn expire(&mut self, now_ms: u64, answer_ms_max: u64) -> Option<u64> {
        let overdue =
            |(_, sent_ms): &mut (u64, u64)| now_ms.saturating_sub(*sent_ms) >= answer_ms_max;
        self.asked.take_if(overdue).map(|(number, _)| number)
    }

    /// Waits before it asks again.
    pub(crate) fn wait(&mut self, now_ms: u64, least_ms: u64) {
        self.not_before_ms = now_ms + self.backoff.failed().max(least_ms);
    }

    /// The next offset wanted, if that is known.
    pub(crate) fn next(&self) -> Option<Offset> {
        match self.want {
            Some(Want::Fetch(offset, _)) => Some(offset),
            _ => None,
        }
    }

    /// Where it goes on, and the term of the record before it, if that is known.
    pub(crate) fn stands(&self) -> Option<(Offset, Term)> {
        match self.want {
            Some(Want::Fetch(offset, term)) => Some((offset, term)),
            _ => None,
        }
    }

    /// The place is at this offset.
    pub(crate) fn located(&mut self, offset: Offset) {
        self.backoff.succeeded();
        self.want = Some(Want::Fetch(offset, Term::UNKNOWN));
    }

    /// Takes what was fetched. The items continue without gap or repetition what was taken before.
    ///
    /// # Errors
    /// What is wrong with the answer; the cursor stands behind what was sound.
    pub(crate) fn take(&mut self, fetched: Vec<Fetched>) -> Result<Vec<Item>, (Vec<Item>, String)> {
        let mut items = Vec::with_capacity(fetched.len());
        for Fetched { base_offset, term, stored, content } in fetched {
            let Some(Want::Fetch(next, _)) = self.want else { return Ok(items) };
            let Some(end) = base_offset.checked_add(u64::from(content.count())) else {
                return Err((items, format!("a batch at offset {base_offset} has no end")));
            };
            if base_offset > next {
                return Err((items, format!("{base_offset} was sent after {next} was asked for")));
            }
            if end <= next {
                continue;
            }
            let Content::Batch(batch) = content else {
                self.want = Some(Want::Fetch(end, term));
                continue;
            };
            if let Err(error) = batch.verify_checksum() {
                return Err((items, error.to_string()));
            }
            let skip = u32::try_from(next.0 - base_offset.0).unwrap_or(u32::MAX);
            let (queue, seeks) = (self.queue, self.seeks);
            items.push(Item { queue, base_offset, skip, stored, batch, seeks });
            self.want = Some(Want::Fetch(end, term));
            self.at_first = false;
        }
        self.backoff.succeeded();
        self.damaged = 0;
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::{BatchBuilder, BatchLimits, MessageId, NewRecord};

    use super::*;

    fn fetched(base_offset: u64, content: Content) -> Fetched {
        let (base_offset, term, stored) = (Offset(base_offset), Term(7), TimestampMs(1));
        Fetched { base_offset, term, stored, content }
    }

    fn batch() -> Content {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        let id = MessageId::from_bytes([1; 16]);
        builder.push(&NewRecord::new(id, TimestampMs(1), "x")).unwrap();
        Content::Batch(RecordBatch::from_log(builder.finish()).unwrap())
    }

    #[test]
    fn what_has_expired_is_passed_over_and_leaves_no_gap() {
        let mut cursor = Cursor::new(QueueId(0), StartAt::Offset(Offset(10)), 0, 0);
        let all = vec![
            fetched(8, Content::Expired(5)),
            fetched(13, batch()),
            fetched(14, Content::Expired(1)),
        ];
        let items = cursor.take(all).unwrap();
        assert_eq!(items.iter().map(|item| item.base_offset).collect::<Vec<_>>(), [Offset(13)]);
        assert_eq!(cursor.stands(), Some((Offset(15), Term(7))));
        assert!(cursor.take(vec![fetched(16, Content::Expired(1))]).is_err(), "a gap");
        let endless = cursor.take(vec![fetched(u64::MAX, Content::Expired(1))]);
        assert!(endless.is_err(), "beyond the last offset there is");
    }
}
