//! Items about consumer groups, as bytes. Little endian; reserved bytes are 0.
//!
//! A **place** is 24 bytes behind the version and 3 reserved bytes: queue u32, topic u64, group u64,
//! and 4 reserved bytes. A **holding** is a place and then: generation u64, member u64, round u32, 4
//! reserved bytes. A **range** is its first offset u64 and the offset behind its last u64.
//!
//! | kind | item | layout |
//! |---|---|---|
//! | 90 | claim | version u8, 3 reserved bytes, holding (its round is not looked at), start u64, most deliveries u32 (0: no bound), rungs u32, rungs in ms u64 each |
//! | 91 | settle | version u8, 3 reserved bytes, holding, acks u32, nacks u32, letters u32, queue of the letters u32, then the acks, a range each; per nack: offset u64, due u64; per letter: offset u64, length u32 (0: its message is gone), 4 reserved bytes, the batch |
//! | 92 | delivered | version u8, 3 reserved bytes, holding, end u64, passed u32, again u32, then the passed, a range each, and the offsets u64 that were delivered again |
//! | 93 | reset | version u8, 3 reserved bytes, place, to u64 |
//! | 94 | drop group | version u8, 7 reserved bytes, group u64 |
//! | 95 | change | see [`coordination`](super::coordination) |
//! | 96 | redrive | version u8, 3 reserved bytes, place (of the dead letters), topic u64 and queue u32 where they go, letters u32, then per letter as in a settle |
//! | 98 | hand back | version u8, 3 reserved bytes, holding, unseen from u64, ranges in work u32, 4 reserved bytes, then the ranges |
//! | 97 | purge | version u8, 3 reserved bytes, place (of the dead letters), ranges u32, 4 reserved bytes, then the ranges |

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{
    Generation, GroupId, MemberId, Offset, QueueId, QueueKey, TimestampMs, TopicId,
};

use super::VERSION;
use super::coordination::GroupChange;
use super::group_parts::{
    count, count_of, holding_of, list, place_of, put_holding, put_place, put_spans, spans_of,
};
use crate::codec::{CodecError, Decoder};

pub(crate) use super::group_parts::{put_terms, terms_of};

/// Item kind of [`GroupItem::Claim`].
pub const KIND_CLAIM: u16 = 90;
/// Item kind of [`GroupItem::Settle`].
pub const KIND_SETTLE: u16 = 91;
/// Item kind of [`GroupItem::Delivered`].
pub const KIND_DELIVERED: u16 = 92;
/// Item kind of [`GroupItem::Reset`].
pub const KIND_RESET: u16 = 93;
/// Item kind of [`GroupItem::Drop`].
pub const KIND_DROP_GROUP: u16 = 94;
/// Item kind of [`GroupItem::Change`].
pub const KIND_GROUP_CHANGE: u16 = 95;
/// Item kind of [`GroupItem::Redrive`].
pub const KIND_REDRIVE: u16 = 96;
/// Item kind of [`GroupItem::Purge`].
pub const KIND_PURGE: u16 = 97;
/// Item kind of [`GroupItem::HandBack`].
pub const KIND_HAND_BACK: u16 = 98;

/// Most ranges, nacks, offsets or letters of an item, of each.
pub const ELEMENTS_MAX: u32 = 65_536;
/// Most rungs of a retry ladder.
pub const RUNGS_MAX: u32 = 64;

const PLACE_BYTES: u32 = 24;
const HOLDING_BYTES: u32 = PLACE_BYTES + 24;
const HEAD_BYTES: u32 = 4;
const SETTLE_COUNTS_BYTES: u32 = 16;
const RANGE_BYTES: u32 = 16;
const NACK_BYTES: u32 = 16;
const LETTER_BYTES: u32 = 16;
const REDRIVE_TO_BYTES: u32 = 16;

/// Names what a group has done in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgressKey {
    /// The queue.
    pub queue: QueueKey,
    /// The group.
    pub group: GroupId,
}

/// Who speaks for a group about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// About what.
    pub place: ProgressKey,
    /// The generation by which the queue was given.
    pub generation: Generation,
    /// The member that it was given to.
    pub member: MemberId,
    /// The resets of the progress that the member knows of.
    pub round: u32,
}

/// How often, and after which waits, a group delivers again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryTerms {
    /// Deliveries after which a message is a dead letter; 0: no bound.
    pub deliveries_max: u32,
    /// Waits after the first, second and so on failed delivery, in milliseconds; the last repeats.
    pub ladder_ms: Vec<u64>,
}

impl RetryTerms {
    /// Whether a message that was delivered so often is not delivered again.
    #[must_use]
    pub const fn is_last(&self, deliveries: u32) -> bool {
        self.deliveries_max != 0 && deliveries >= self.deliveries_max
    }

    /// How long a message waits that was delivered so often, in milliseconds.
    #[must_use]
    pub fn rung_ms(&self, deliveries: u32) -> u64 {
        let rung = usize::try_from(deliveries.saturating_sub(1)).unwrap_or(usize::MAX);
        self.ladder_ms.get(rung).or(self.ladder_ms.last()).copied().unwrap_or_default()
    }
}

/// Offsets from `from` to before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first.
    pub from: Offset,
    /// The one behind the last.
    pub to: Offset,
}

/// A message to be delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nack {
    /// Which.
    pub offset: Offset,
    /// When.
    pub due: TimestampMs,
}

/// A message that is delivered no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which.
    pub offset: Offset,
    /// It, as its group's dead-letter queue will have it: a batch of one. Empty: it is gone.
    pub batch: Bytes,
}

/// What a member has answered of what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// Who says so.
    pub holding: Holding,
    /// Done with.
    pub acks: Vec<Span>,
    /// To be delivered again.
    pub nacks: Vec<Nack>,
    /// The queue of the group's dead-letter topic that the letters go to.
    pub letters_to: QueueId,
    /// Delivered no more.
    pub letters: Vec<Letter>,
}

/// What the leader is about to send to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// To whom.
    pub holding: Holding,
    /// All before this offset has been sent or passed over.
    pub end: Offset,
    /// What of it is not for the group, ever: settled with this.
    pub passed: Vec<Span>,
    /// What is sent again.
    pub again: Vec<Offset>,
}

/// What a member says of a queue that it lets go of: not all that it was sent was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandBack {
    /// Who says so.
    pub holding: Holding,
    /// From here on, nobody has seen what it was sent for the first time.
    pub unseen_from: Offset,
    /// What was seen and is not answered for. Nobody has seen other retries in its hands.
    pub in_work: Vec<Span>,
}

/// An item about groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupItem {
    /// A member takes a queue that it was given.
    Claim {
        /// Who, what.
        holding: Holding,
        /// Where a group begins that has not been here.
        start: Offset,
        /// How it delivers again.
        terms: RetryTerms,
    },
    /// A member has answered.
    Settle(Settle),
    /// Messages are being sent to a member.
    Delivered(Delivered),
    /// A member lets go of a queue.
    HandBack(HandBack),
    /// Go on elsewhere.
    Reset {
        /// What.
        place: ProgressKey,
        /// Where: all before it is settled, nothing behind it.
        to: Offset,
    },
    /// The group is gone: forget all of it.
    Drop {
        /// Which.
        group: GroupId,
    },
    /// Its coordinator has decided something.
    Change(GroupChange),
    /// Send dead letters back to where they came from.
    Redrive {
        /// The dead-letter queue, and its group.
        place: ProgressKey,
        /// The queue of the same shard that they came from.
        to: QueueKey,
        /// Which, in order, as that queue will have them.
        letters: Vec<Letter>,
    },
    /// Forget dead letters.
    Purge {
        /// The dead-letter queue, and its group.
        place: ProgressKey,
        /// Which.
        spans: Vec<Span>,
    },
}

impl GroupItem {
    pub(super) const fn kind(&self) -> u16 {
        match self {
            Self::Claim { .. } => KIND_CLAIM,
            Self::Settle(_) => KIND_SETTLE,
            Self::Delivered(_) => KIND_DELIVERED,
            Self::Reset { .. } => KIND_RESET,
            Self::Drop { .. } => KIND_DROP_GROUP,
            Self::Change(_) => KIND_GROUP_CHANGE,
            Self::Redrive { .. } => KIND_REDRIVE,
            Self::Purge { .. } => KIND_PURGE,
            Self::HandBack(_) => KIND_HAND_BACK,
        }
    }

    pub(super) fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_bytes(0, 3);
        match self {
            Self::Claim { holding, start, terms } => {
                put_holding(&mut out, holding);
                out.put_u64_le(start.0);
                put_terms(&mut out, terms);
            }
            Self::Settle(settle) => return settle.encode(out),
            Self::Delivered(delivered) => {
                put_holding(&mut out, &delivered.holding);
                out.put_u64_le(delivered.end.0);
                out.put_u32_le(count(delivered.passed.len()));
                out.put_u32_le(count(delivered.again.len()));
                put_spans(&mut out, &delivered.passed);
                delivered.again.iter().for_each(|offset| out.put_u64_le(offset.0));
            }
            Self::Reset { place, to } => {
                put_place(&mut out, *place);
                out.put_u64_le(to.0);
            }
            Self::Drop { group } => {
                out.put_bytes(0, 4);
                out.put_u64_le(group.0);
            }
            Self::Change(change) => change.encode(&mut out),
            Self::Redrive { place, to, letters } => {
                put_place(&mut out, *place);
                out.put_u64_le(to.topic.0);
                out.put_u32_le(to.queue.0);
                out.put_u32_le(count(letters.len()));
                return put_letters(out, letters);
            }
            Self::Purge { place, spans } => {
                put_place(&mut out, *place);
                out.put_u32_le(count(spans.len()));
                out.put_bytes(0, 4);
                put_spans(&mut out, spans);
            }
            Self::HandBack(HandBack { holding, unseen_from, in_work }) => {
                put_holding(&mut out, holding);
                out.put_u64_le(unseen_from.0);
                out.put_u32_le(count(in_work.len()));
                out.put_bytes(0, 4);
                put_spans(&mut out, in_work);
            }
        }
        vec![out.freeze()]
    }

    pub(super) fn decode(kind: u16, mut decoder: Decoder) -> Result<Self, CodecError> {
        let reserved = decoder.take(3)?;
        match kind {
            KIND_CLAIM => {
                let holding = holding_of(&mut decoder)?;
                let start = Offset(decoder.u64()?);
                let terms = terms_of(&mut decoder)?;
                decoder.finish()?;
                Ok(Self::Claim { holding, start, terms })
            }
            KIND_SETTLE => Settle::decode(decoder).map(Self::Settle),
            KIND_DELIVERED => {
                let holding = holding_of(&mut decoder)?;
                let end = Offset(decoder.u64()?);
                let (passed, again) = (count_of(&mut decoder)?, count_of(&mut decoder)?);
                let passed = spans_of(&mut decoder, passed)?;
                let again = list(again, || decoder.u64().map(Offset))?;
                decoder.finish()?;
                Ok(Self::Delivered(Delivered { holding, end, passed, again }))
            }
            KIND_RESET => {
                let place = place_of(&mut decoder)?;
                let to = Offset(decoder.u64()?);
                decoder.finish()?;
                Ok(Self::Reset { place, to })
            }
            KIND_DROP_GROUP => {
                decoder.take(4)?;
                let group = GroupId(decoder.u64()?);
                decoder.finish()?;
                Ok(Self::Drop { group })
            }
            KIND_GROUP_CHANGE => GroupChange::decode(reserved[0], decoder).map(Self::Change),
            KIND_REDRIVE => {
                let place = place_of(&mut decoder)?;
                let topic = TopicId(decoder.u64()?);
                let to = QueueKey { topic, queue: QueueId(decoder.u32()?) };
                let letters = count_of(&mut decoder)?;
                let letters = letters_of(&mut decoder, letters)?;
                decoder.finish()?;
                Ok(Self::Redrive { place, to, letters })
            }
            KIND_PURGE => {
                let place = place_of(&mut decoder)?;
                let spans = count_of(&mut decoder)?;
                decoder.take(4)?;
                let spans = spans_of(&mut decoder, spans)?;
                decoder.finish()?;
                Ok(Self::Purge { place, spans })
            }
            KIND_HAND_BACK => {
                let holding = holding_of(&mut decoder)?;
                let unseen_from = Offset(decoder.u64()?);
                let in_work = count_of(&mut decoder)?;
                decoder.take(4)?;
                let in_work = spans_of(&mut decoder, in_work)?;
                decoder.finish()?;
                Ok(Self::HandBack(HandBack { holding, unseen_from, in_work }))
            }
            kind => Err(CodecError::Kind(kind)),
        }
    }
}

impl Settle {
    fn encode(&self, mut out: BytesMut) -> Vec<Bytes> {
        put_holding(&mut out, &self.holding);
        out.put_u32_le(count(self.acks.len()));
        out.put_u32_le(count(self.nacks.len()));
        out.put_u32_le(count(self.letters.len()));
        out.put_u32_le(self.letters_to.0);
        put_spans(&mut out, &self.acks);
        for nack in &self.nacks {
            out.put_u64_le(nack.offset.0);
            out.put_u64_le(nack.due.0);
        }
        put_letters(out, &self.letters)
    }

    fn decode(mut decoder: Decoder) -> Result<Self, CodecError> {
        let holding = holding_of(&mut decoder)?;
        let (acks, nacks) = (count_of(&mut decoder)?, count_of(&mut decoder)?);
        let letters = count_of(&mut decoder)?;
        let letters_to = QueueId(decoder.u32()?);
        let acks = spans_of(&mut decoder, acks)?;
        let nacks = list(nacks, || {
            let offset = Offset(decoder.u64()?);
            Ok(Nack { offset, due: TimestampMs(decoder.u64()?) })
        })?;
        let letters = letters_of(&mut decoder, letters)?;
        decoder.finish()?;
        Ok(Self { holding, acks, nacks, letters_to, letters })
    }

    /// Where the batch of each letter begins in the item.
    pub(crate) fn letter_places(&self) -> impl Iterator<Item = u32> {
        let lists = RANGE_BYTES * count(self.acks.len()) + NACK_BYTES * count(self.nacks.len());
        let first = HEAD_BYTES + HOLDING_BYTES + SETTLE_COUNTS_BYTES + lists;
        places(first, &self.letters)
    }
}

/// Where the batch of each letter that is sent back begins in the item.
pub(crate) fn redriven_places(letters: &[Letter]) -> impl Iterator<Item = u32> {
    places(HEAD_BYTES + PLACE_BYTES + REDRIVE_TO_BYTES, letters)
}

fn places(first: u32, letters: &[Letter]) -> impl Iterator<Item = u32> {
    letters.iter().scan(first, move |next, letter| {
        let place = next.saturating_add(LETTER_BYTES);
        *next = place.saturating_add(count(letter.batch.len()));
        Some(place)
    })
}

/// Ends an item with letters; what was written before goes first.
fn put_letters(mut out: BytesMut, letters: &[Letter]) -> Vec<Bytes> {
    let mut slices = Vec::with_capacity(1 + 2 * letters.len());
    for letter in letters {
        out.put_u64_le(letter.offset.0);
        out.put_u32_le(count(letter.batch.len()));
        out.put_bytes(0, 4);
        slices.push(out.split().freeze());
        slices.push(letter.batch.clone());
    }
    if !out.is_empty() {
        slices.push(out.freeze());
    }
    slices
}

fn letters_of(decoder: &mut Decoder, letters: u32) -> Result<Vec<Letter>, CodecError> {
    list(letters, || {
        let offset = Offset(decoder.u64()?);
        let length = decoder.u32()?;
        decoder.take(4)?;
        Ok(Letter { offset, batch: decoder.take(length as usize)? })
    })
}
