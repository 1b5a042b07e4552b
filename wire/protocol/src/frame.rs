//! Frames: what travels on a connection.
//!
//! ```text
//!  0        4    5    6      8       10        12           20             24
//!  | length | v  | k  | flags | opcode | reserved | correlation | header_length | header | body |
//!      u32    u8   u8   u16     u16      u16        u64           u32
//! ```
//!
//! All numbers are little endian; `length` counts what follows it. The first 24 bytes keep their
//! places in every version, so a frame of an unknown version can be skipped and answered.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

mod blocks;
mod head;
mod header;
mod refusal;

pub use blocks::{Allowance, Blocks, KEPT_BYTES_MAX};
pub use head::{FrameFlags, FrameHead, FrameKind, RawHead};
pub use header::{HEADER_DEPTH_MAX, HeaderError, ReplyError, decode_header};
pub use refusal::{BrokenFrame, FrameError, RefusedFrame};

use crate::limits::FrameLimits;
use crate::opcode::Opcode;

/// The version of frames and headers this crate speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// Bytes of the fixed head, the length field included.
pub const FRAME_HEAD_BYTES: usize = 24;
/// Bytes of the length field, which does not count itself.
pub const FRAME_LENGTH_FIELD_BYTES: usize = 4;
/// One frame. Header and body share the buffer they were read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The fixed head.
    pub head: FrameHead,
    /// The MessagePack header.
    pub header: Bytes,
    /// What follows the header: a batch, several, or nothing.
    pub body: Bytes,
}

impl Frame {
    /// Decodes the header as a message.
    ///
    /// # Errors
    /// When it is not one.
    pub fn header<T: DeserializeOwned>(&self) -> Result<T, HeaderError> {
        decode_header(&self.header)
    }

    /// Decodes the header of a reply.
    ///
    /// # Errors
    /// [`ReplyError::Refused`] when the reply is an error, [`ReplyError::Header`] when the header
    /// is neither a `T` nor an error.
    pub fn reply<T: DeserializeOwned>(&self) -> Result<T, ReplyError> {
        if self.head.is_error() {
            return Err(ReplyError::Refused(self.header()?));
        }
        Ok(self.header()?)
    }
}

/// Takes the first frame off `buffer`; `None` when it is not there in full yet. Allocates nothing:
/// the frame shares the buffer. How many bytes to read is for the caller to decide, with
/// [`bytes_missing`].
///
/// # Errors
/// [`FrameError::Refused`] when the frame was taken off unread, and the next call goes on with the
/// one after it; [`FrameError::Broken`] when there is no going on.
pub fn decode(buffer: &mut BytesMut, limits: &FrameLimits) -> Result<Option<Frame>, FrameError> {
    let Some(head) = RawHead::peek(buffer) else { return Ok(None) };
    let Some(room) = head.length.checked_sub(EMPTY_FRAME_LENGTH) else {
        return Err(FrameError::Broken { head, reason: BrokenFrame::TooShort(head.length) });
    };
    let bytes = head.frame_bytes();
    if bytes > u64::from(limits.frame_bytes_max) {
        let reason = BrokenFrame::TooLong { bytes, limit: limits.frame_bytes_max };
        return Err(FrameError::Broken { head, reason });
    }
    let Ok(frame_bytes) = usize::try_from(bytes) else { return Ok(None) };
    if buffer.len() < frame_bytes {
        return Ok(None);
    }
    let mut frame = buffer.split_to(frame_bytes);
    let checked =
        judge(&head, room, *limits).map_err(|reason| FrameError::Refused { head, reason });
    let (checked_head, header_bytes) = checked?;
    let mut body = frame.split_off(FRAME_HEAD_BYTES).freeze();
    let header = body.split_to(header_bytes);
    Ok(Some(Frame { head: checked_head, header, body }))
}

/// The least a length field can say: the head after it, no header, no body.
const EMPTY_FRAME_LENGTH: u32 = 20;

/// Judges what the head of a frame of sound length says. Answers the header's length, too.
fn judge(
    raw: &RawHead,
    room: u32,
    limits: FrameLimits,
) -> Result<(FrameHead, usize), RefusedFrame> {
    if raw.version != PROTOCOL_VERSION {
        return Err(RefusedFrame::Version(raw.version));
    }
    let kind = FrameKind::from_number(raw.kind).ok_or(RefusedFrame::Kind(raw.kind))?;
    let unknown_flags = raw.flags & FrameFlags::CRITICAL & !FrameFlags::KNOWN;
    if unknown_flags != 0 {
        return Err(RefusedFrame::Flags(unknown_flags));
    }
    if raw.header_length > room {
        return Err(RefusedFrame::HeaderBeyondFrame { header: raw.header_length, room });
    }
    if raw.header_length > limits.header_bytes_max {
        let limit = limits.header_bytes_max;
        return Err(RefusedFrame::HeaderTooLong { bytes: raw.header_length, limit });
    }
    let opcode = Opcode::from_number(raw.opcode).ok_or(RefusedFrame::Opcode(raw.opcode))?;
    let head = FrameHead {
        version: raw.version,
        kind,
        flags: FrameFlags(raw.flags),
        opcode,
        correlation: raw.correlation,
    };
    Ok((head, raw.header_length as usize))
}

/// Bytes still missing until the first frame in `buffer` is whole, as far as is known: 0 when it
/// is, or when it is broken, which [`decode`] will say.
pub fn bytes_missing(buffer: &[u8], limits: &FrameLimits) -> usize {
    let Some(head) = RawHead::peek(buffer) else { return FRAME_HEAD_BYTES - buffer.len() };
    if head.frame_bytes() > u64::from(limits.frame_bytes_max) {
        return 0;
    }
    usize::try_from(head.frame_bytes()).map_or(0, |bytes| bytes.saturating_sub(buffer.len()))
}

/// Why a frame could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// It would have more bytes than a length field can say.
    #[error("a frame of {bytes} bytes does not fit its length field")]
    TooLong {
        /// Bytes of the frame.
        bytes: u64,
    },
    /// The header could not be serialised.
    #[error("header does not encode: {0}")]
    Header(String),
}

/// Appends a frame's head and header to `out`. The caller sends `body_bytes` bytes after it, so a
/// body is never copied.
///
/// # Errors
/// When the header does not encode or the frame is too long; `out` is as it was then.
pub fn encode<H: Serialize + ?Sized>(
    head: FrameHead,
    header: &H,
    body_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    encode_raw(head.into(), header, body_bytes, out)
}

fn encode_raw<H: Serialize + ?Sized>(
    mut head: RawHead,
    header: &H,
    body_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let start = out.len();
    head.put(out);
    let header_start = out.len();
    if let Err(error) = rmp_serde::encode::write(&mut (&mut *out).writer(), header) {
        out.truncate(start);
        return Err(EncodeError::Header(error.to_string()));
    }
    let header_bytes = (out.len() - header_start) as u64;
    let length = u64::from(EMPTY_FRAME_LENGTH) + header_bytes + body_bytes as u64;
    let (Ok(length), Ok(header_length)) = (u32::try_from(length), u32::try_from(header_bytes))
    else {
        out.truncate(start);
        return Err(EncodeError::TooLong { bytes: length + FRAME_LENGTH_FIELD_BYTES as u64 });
    };
    head.length = length;
    out[start..start + 4].copy_from_slice(&head.length.to_le_bytes());
    out[start + 20..start + 24].copy_from_slice(&header_length.to_le_bytes());
    Ok(())
}
