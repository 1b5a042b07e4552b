//! Where a batch was stored, as a receipt says it: at an offset, or as timers.

use bytes::{BufMut, BytesMut};
use grus_protocol::ids::Offset;

use crate::codec::{CodecError, Decoder};
use crate::timers::TimerId;

/// Set in the number of a batch that was scheduled: the rest is a log index then.
const IS_TIMER: u64 = 1 << 63;

/// An offset, or the timer of a scheduled batch's first record; in 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Landed {
    number: u64,
    place: u32,
}

impl Landed {
    /// At an offset.
    #[must_use]
    pub const fn at(offset: Offset) -> Self {
        Self { number: offset.0 & !IS_TIMER, place: 0 }
    }

    /// As timers.
    #[must_use]
    pub const fn later(first: TimerId) -> Self {
        Self { number: first.index | IS_TIMER, place: first.place }
    }

    /// The offset; 0 for timers.
    #[must_use]
    pub const fn offset(self) -> Offset {
        Offset(if self.number & IS_TIMER == 0 { self.number } else { 0 })
    }

    /// The timer of the first record, if they are timers.
    #[must_use]
    pub const fn timer(self) -> Option<TimerId> {
        if self.number & IS_TIMER == 0 {
            return None;
        }
        Some(TimerId { index: self.number & !IS_TIMER, place: self.place })
    }

    /// Writes it; layouts of before there were timers have the offset alone.
    pub(super) fn encode(self, has_timers: bool, out: &mut BytesMut) {
        out.put_u64_le(self.number);
        if has_timers {
            out.put_u32_le(self.place);
        }
    }

    pub(super) fn decode(has_timers: bool, decoder: &mut Decoder) -> Result<Self, CodecError> {
        let number = decoder.u64()?;
        let place = if has_timers { decoder.u32()? } else { 0 };
        if number & IS_TIMER == 0 && place != 0 || number & IS_TIMER != 0 && !has_timers {
            return Err(CodecError::Value("where a batch was stored"));
        }
        Ok(Self { number, place })
    }
}
