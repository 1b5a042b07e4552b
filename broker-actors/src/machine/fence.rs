//! The newest epochs of named producers whose names another shard keeps.

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{ProducerEpoch, ProducerId, TimestampMs};

use super::digest::Tracked;
use super::part::PartKey;
use super::{Machine, NAMED_PRODUCER_EXPIRY_MS, NAMED_PRODUCERS_MAX, Refusal};
use crate::codec::{CodecError, Decoder};

const VERSION: u8 = 1;

/// What is remembered of such a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) epoch: ProducerEpoch,
    /// When it last came back.
    asked: TimestampMs,
}

impl Fence {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(13);
        out.put_u8(VERSION);
        out.put_u32_le(self.epoch.0);
        out.put_u64_le(self.asked.0);
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let fence =
            Self { epoch: ProducerEpoch(decoder.u32()?), asked: TimestampMs(decoder.u64()?) };
        decoder.finish()?;
        Ok(fence)
    }
}

impl Machine {
    /// Refuses the producer's earlier epochs from now on.
    pub(super) fn apply_fence(
        &mut self,
        asked: TimestampMs,
        producer: ProducerId,
        epoch: ProducerEpoch,
    ) -> Result<(), Refusal> {
        self.touch(&PartKey::Fence(producer));
        if let Some(known) = self.fences.get_mut(&producer) {
            if epoch < known.get().epoch {
                return Err(Refusal::Fenced { epoch: known.get().epoch });
            }
            let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
            let known = known.change(|hash| {
                *digest ^= hash;
                dirty.insert(PartKey::Fence(producer));
            });
            *known = Fence { epoch, asked };
            self.epochs.insert(producer, epoch);
            return Ok(());
        }
        if self.fences.len() >= NAMED_PRODUCERS_MAX {
            self.expire_fences(asked);
        }
        if self.fences.len() >= NAMED_PRODUCERS_MAX {
            return Err(Refusal::Limit { what: "named producers", limit: NAMED_PRODUCERS_MAX });
        }
        self.dirty.insert(PartKey::Fence(producer));
        self.fences.insert(producer, Tracked::unsaved(Fence { epoch, asked }));
        self.epochs.insert(producer, epoch);
        Ok(())
    }

    fn expire_fences(&mut self, time: TimestampMs) {
        let due = time.0.saturating_sub(NAMED_PRODUCER_EXPIRY_MS);
        let over: Vec<ProducerId> = self
            .fences
            .iter()
            .filter(|(_, fence)| fence.get().asked.0 < due)
            .map(|(producer, _)| *producer)
            .collect();
        for producer in over {
            self.touch(&PartKey::Fence(producer));
            let Some(fence) = self.fences.remove(&producer) else { continue };
            self.epochs.remove(&producer);
            self.forget_part(PartKey::Fence(producer), fence.clean_hash());
        }
    }
}
