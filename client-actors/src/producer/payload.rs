//! The bytes of a batch, from its first record to the last time it is sent.

use bytes::Bytes;
use grus_protocol::batch::Compression;
use grus_protocol::{BatchBuilder, RecordBatch, Sequence};

use super::lane::Identity;

/// A batch's bytes. They are complete once it is known under which sequence it goes.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Not sent yet.
    Open(BatchBuilder),
    /// Sent before.
    Stamped {
        /// The whole batch.
        bytes: Bytes,
        /// What it was stamped with.
        stamp: (Identity, Sequence),
    },
}

impl Payload {
    /// About how many bytes it has.
    pub(crate) fn len_bytes(&self) -> u64 {
        match self {
            Self::Open(builder) => builder.len_bytes() as u64,
            Self::Stamped { bytes, .. } => bytes.len() as u64,
        }
    }

    /// The batch as `identity` sends it from `first_sequence` on. Compresses and encodes once; the
    /// same bytes again for the same stamp.
    pub(crate) fn stamped(
        &mut self,
        identity: Identity,
        first_sequence: Sequence,
        compression: Compression,
    ) -> Bytes {
        let stamp = (identity, first_sequence);
        let bytes = match self {
            Self::Stamped { bytes, stamp: present } if *present == stamp => return bytes.clone(),
            Self::Stamped { bytes, .. } => RecordBatch::from_log(bytes.clone())
                .expect("this producer encoded it")
                .restamped(identity.producer, identity.epoch, first_sequence)
                .into_bytes(),
            Self::Open(builder) => {
                builder.compress(compression);
                builder.set_producer(identity.producer, identity.epoch, first_sequence);
                builder.finish()
            }
        };
        *self = Self::Stamped { bytes: bytes.clone(), stamp };
        bytes
    }
}
