//! Items about schedules of recurring messages, as bytes. Little endian; reserved bytes are 0.
//!
//! | kind | item | layout |
//! |---|---|---|
//! | 84 | create | version u8, cadence u8 (0 cron, 1 every), 2 reserved bytes, queue u32, topic u64, made up max u32, 4 reserved bytes, every ms u64 (0 with cron), next u64, name, cron expression, zone (u16 length, bytes each; the last two empty without cron), then the batch |
//! | 85 | pause | version u8, paused u8, 2 reserved bytes, queue u32, topic u64, next u64, name |
//! | 86 | delete | version u8, 3 reserved bytes, queue u32, topic u64, name |
//! | 87 | run | version u8, flags u8 (bit 0 runs, bit 1 was missed, bit 2 the last missed), 2 reserved bytes, queue u32, topic u64, due u64, next u64, name, then the batch, if it runs |

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{QueueId, QueueKey, TimestampMs, TopicId};
use grus_protocol::names::ScheduleName;

use super::VERSION;
use crate::codec::{CodecError, Decoder, put_text};
use crate::schedule::{CadenceText, Step, Timing};

/// Item kind of [`Recurring::Create`].
pub const KIND_SCHEDULE_CREATE: u16 = 84;
/// Item kind of [`Recurring::Pause`].
pub const KIND_SCHEDULE_PAUSE: u16 = 85;
/// Item kind of [`Recurring::Delete`].
pub const KIND_SCHEDULE_DELETE: u16 = 86;
/// Item kind of [`Recurring::Run`].
pub const KIND_SCHEDULE_RUN: u16 = 87;

const CADENCE_CRON: u8 = 0;
const CADENCE_EVERY: u8 = 1;
const FLAG_RUNS: u8 = 1;
const FLAG_MISSED: u8 = 2;
const FLAG_LAST_MISSED: u8 = 4;
/// Bytes before the name in a run.
const RUN_NAME_AT: usize = 32;

/// Names a schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduleKey {
    /// The queue that its messages come into.
    pub queue: QueueKey,
    /// Its name there.
    pub name: ScheduleName,
}

/// What a schedule is: it does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleTerms {
    /// When it runs.
    pub cadence: CadenceText,
    /// Most missed runs that are made up for.
    pub made_up_max: u32,
    /// Its message, as a record batch of one.
    pub batch: Bytes,
}

/// An item about schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recurring {
    /// Make a schedule.
    Create {
        /// Its name.
        key: ScheduleKey,
        /// What it is.
        terms: ScheduleTerms,
        /// When it runs first.
        next: TimestampMs,
    },
    /// Have it rest, or go on.
    Pause {
        /// Which.
        key: ScheduleKey,
        /// Whether it rests.
        is_paused: bool,
        /// When it runs next, once it does not rest.
        next: TimestampMs,
    },
    /// Remove it.
    Delete {
        /// Which.
        key: ScheduleKey,
    },
    /// A step of it: counts only if the step's time is its next one.
    Run {
        /// Which.
        key: ScheduleKey,
        /// The step.
        step: Step,
        /// The message, as a record batch of one; empty for a step that does not run.
        batch: Bytes,
    },
}

impl Recurring {
    /// The item kind.
    pub(super) const fn kind(&self) -> u16 {
        match self {
            Self::Create { .. } => KIND_SCHEDULE_CREATE,
            Self::Pause { .. } => KIND_SCHEDULE_PAUSE,
            Self::Delete { .. } => KIND_SCHEDULE_DELETE,
            Self::Run { .. } => KIND_SCHEDULE_RUN,
        }
    }

    /// Bytes before the batch of a run of this schedule.
    pub(crate) fn run_header_bytes(key: &ScheduleKey) -> u32 {
        let name = key.name.as_str().len() + 2;
        u32::try_from(RUN_NAME_AT + name).expect("names are short")
    }

    pub(super) fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        match self {
            Self::Create { key, terms, next } => {
                let code = match terms.cadence {
                    CadenceText::Cron { .. } => CADENCE_CRON,
                    CadenceText::Every(_) => CADENCE_EVERY,
                };
                out.put_u8(code);
                put_queue(&mut out, key.queue);
                put_terms_head(&mut out, terms);
                out.put_u64_le(next.0);
                put_text(&mut out, key.name.as_str());
                put_cron(&mut out, &terms.cadence);
                return vec![out.freeze(), terms.batch.clone()];
            }
            Self::Pause { key, is_paused, next } => {
                out.put_u8(u8::from(*is_paused));
                put_queue(&mut out, key.queue);
                out.put_u64_le(next.0);
                put_text(&mut out, key.name.as_str());
            }
            Self::Delete { key } => {
                out.put_u8(0);
                put_queue(&mut out, key.queue);
                put_text(&mut out, key.name.as_str());
            }
            Self::Run { key, step, batch } => {
                let runs = if step.runs { FLAG_RUNS } else { 0 };
                out.put_u8(runs | timing_flags(step.timing));
                put_queue(&mut out, key.queue);
                out.put_u64_le(step.due.0);
                out.put_u64_le(step.next.0);
                put_text(&mut out, key.name.as_str());
                return vec![out.freeze(), batch.clone()];
            }
        }
        vec![out.freeze()]
    }

    pub(super) fn decode(kind: u16, mut decoder: Decoder) -> Result<Self, CodecError> {
        let code = decoder.u8()?;
        let queue = queue_of(&mut decoder)?;
        match kind {
            KIND_SCHEDULE_CREATE => {
                let (made_up_max, every_ms) = terms_head_of(&mut decoder)?;
                let next = TimestampMs(decoder.u64()?);
                let key = ScheduleKey { queue, name: name_of(&mut decoder)? };
                let cadence = cadence_of(code, every_ms, &mut decoder)?;
                let terms = ScheduleTerms { cadence, made_up_max, batch: decoder.rest() };
                Ok(Self::Create { key, terms, next })
            }
            KIND_SCHEDULE_PAUSE => {
                let is_paused = flag_of(code)?;
                let next = TimestampMs(decoder.u64()?);
                let key = ScheduleKey { queue, name: name_of(&mut decoder)? };
                decoder.finish()?;
                Ok(Self::Pause { key, is_paused, next })
            }
            KIND_SCHEDULE_DELETE => {
                let key = ScheduleKey { queue, name: name_of(&mut decoder)? };
                decoder.finish()?;
                Ok(Self::Delete { key })
            }
            KIND_SCHEDULE_RUN => {
                let (runs, timing) = (code & FLAG_RUNS != 0, timing_of(code & !FLAG_RUNS)?);
                let (due, next) = (TimestampMs(decoder.u64()?), TimestampMs(decoder.u64()?));
                let key = ScheduleKey { queue, name: name_of(&mut decoder)? };
                let step = Step { due, next, runs, timing };
                Ok(Self::Run { key, step, batch: decoder.rest() })
            }
            kind => Err(CodecError::Kind(kind)),
        }
    }
}

impl ScheduleTerms {
    /// Writes them, the batch last; for a checkpoint.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let code = match self.cadence {
            CadenceText::Cron { .. } => CADENCE_CRON,
            CadenceText::Every(_) => CADENCE_EVERY,
        };
        out.put_u8(code);
        put_terms_head(out, self);
        put_cron(out, &self.cadence);
        out.put_slice(&self.batch);
    }

    /// Reads what [`ScheduleTerms::encode`] wrote.
    pub(crate) fn decode(mut decoder: Decoder) -> Result<Self, CodecError> {
        let code = decoder.u8()?;
        let (made_up_max, every_ms) = terms_head_of(&mut decoder)?;
        let cadence = cadence_of(code, every_ms, &mut decoder)?;
        Ok(Self { cadence, made_up_max, batch: decoder.rest() })
    }
}

const fn timing_flags(timing: Timing) -> u8 {
    match timing {
        Timing::InTime => 0,
        Timing::Missed => FLAG_MISSED,
        Timing::LastMissed => FLAG_MISSED | FLAG_LAST_MISSED,
    }
}

fn timing_of(flags: u8) -> Result<Timing, CodecError> {
    let all = [Timing::InTime, Timing::Missed, Timing::LastMissed];
    let found = all.into_iter().find(|timing| timing_flags(*timing) == flags);
    found.ok_or(CodecError::Value("flags of a run"))
}

fn put_queue(out: &mut BytesMut, queue: QueueKey) {
    out.put_bytes(0, 2);
    out.put_u32_le(queue.queue.0);
    out.put_u64_le(queue.topic.0);
}

fn queue_of(decoder: &mut Decoder) -> Result<QueueKey, CodecError> {
    decoder.take(2)?;
    let queue = QueueId(decoder.u32()?);
    Ok(QueueKey { topic: TopicId(decoder.u64()?), queue })
}

fn put_terms_head(out: &mut BytesMut, terms: &ScheduleTerms) {
    out.put_u32_le(terms.made_up_max);
    out.put_bytes(0, 4);
    out.put_u64_le(match terms.cadence {
        CadenceText::Cron { .. } => 0,
        CadenceText::Every(every_ms) => every_ms,
    });
}

fn terms_head_of(decoder: &mut Decoder) -> Result<(u32, u64), CodecError> {
    let made_up_max = decoder.u32()?;
    decoder.take(4)?;
    Ok((made_up_max, decoder.u64()?))
}

fn put_cron(out: &mut BytesMut, cadence: &CadenceText) {
    let (expression, zone) = match cadence {
        CadenceText::Cron { expression, zone } => (expression.as_str(), zone.as_str()),
        CadenceText::Every(_) => ("", ""),
    };
    put_text(out, expression);
    put_text(out, zone);
}

fn cadence_of(code: u8, every_ms: u64, decoder: &mut Decoder) -> Result<CadenceText, CodecError> {
    let expression = decoder.text("cron expression")?;
    let zone = decoder.text("time zone")?;
    match code {
        CADENCE_CRON if every_ms == 0 => Ok(CadenceText::Cron { expression, zone }),
        CADENCE_EVERY if expression.is_empty() && zone.is_empty() => {
            Ok(CadenceText::Every(every_ms))
        }
        _ => Err(CodecError::Value("cadence")),
    }
}

fn name_of(decoder: &mut Decoder) -> Result<ScheduleName, CodecError> {
    let name = decoder.text("schedule name")?;
    ScheduleName::try_from(&*name).map_err(|_| CodecError::Value("schedule name"))
}

const fn flag_of(code: u8) -> Result<bool, CodecError> {
    match code {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Value("flag")),
    }
}
