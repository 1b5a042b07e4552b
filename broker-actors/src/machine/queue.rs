//! One queue's numbers, as every replica knows them.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{Offset, ProducerId, TimestampMs};

use super::dedup::DedupKeys;
use super::digest::Tracked;
use super::window::Window;
use crate::codec::{CodecError, Decoder};

const VERSION: u8 = 1;

/// The numbers of a queue that are saved as one part. Those of a temporary queue say where its ring
/// began when groups were told last: its messages lie in no log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueNumbers {
    /// The first offset that readers may see.
    pub visible_start: Offset,
    /// The offset the next record gets.
    pub next_offset: Offset,
    /// Bytes of the visible batches.
    pub bytes: u64,
    /// When a batch was last stored; 0 before the first.
    pub last_modified: TimestampMs,
}

impl QueueNumbers {
    /// Messages that readers may see.
    pub const fn messages(&self) -> u64 {
        self.next_offset.0 - self.visible_start.0
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(33);
        out.put_u8(VERSION);
        out.put_u64_le(self.visible_start.0);
        out.put_u64_le(self.next_offset.0);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.last_modified.0);
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let numbers = Self {
            visible_start: Offset(decoder.u64()?),
            next_offset: Offset(decoder.u64()?),
            bytes: decoder.u64()?,
            last_modified: TimestampMs(decoder.u64()?),
        };
        decoder.finish()?;
        if numbers.visible_start > numbers.next_offset {
            return Err(CodecError::Value("start of a queue"));
        }
        Ok(numbers)
    }
}

/// A queue: its numbers, and who has written to it.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueState {
    pub(super) numbers: Tracked<QueueNumbers>,
    pub(super) windows: BTreeMap<ProducerId, Tracked<Window>>,
    pub(super) dedup: DedupKeys,
    /// Already named in the machine's list of queues that this entry has changed.
    pub(super) changed: bool,
}
