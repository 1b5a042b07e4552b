//! The bytes of a batch, from its first record to the last time it is sent.

use bytes::Bytes;
use grus_protocol::batch::Compression;
use grus_protocol::{BatchBuilder, BatchLimits, RecordBatch, Sequence};

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
    /// The batch as `identity` sends it from `first_sequence` on, over a connection that reads the
    /// compressions `agreed` (bit n for compression n). Compresses and encodes once; the same bytes
    /// again for the same stamp. What was compressed for another broker, and is not read by this
    /// one, goes plain: its records, and so its sequences, stay the same.
    pub(crate) fn stamped(
        &mut self,
        identity: Identity,
        first_sequence: Sequence,
        wanted: Compression,
        agreed: u32,
    ) -> Bytes {
        let stamp = (identity, first_sequence);
        let bytes = match self {
            Self::Stamped { bytes, stamp: present } if *present == stamp => bytes.clone(),
            Self::Stamped { bytes, .. } => own(bytes.clone())
                .restamped(identity.producer, identity.epoch, first_sequence)
                .into_bytes(),
            Self::Open(builder) => {
                if agreed & wanted.bit() != 0 {
                    builder.compress(wanted);
                }
                builder.set_producer(identity.producer, identity.epoch, first_sequence);
                builder.finish()
            }
        };
        let bytes = readable(bytes, agreed);
        *self = Self::Stamped { bytes: bytes.clone(), stamp };
        bytes
    }
}

/// What this producer has encoded, it can read.
fn own(bytes: Bytes) -> RecordBatch {
    RecordBatch::from_log(bytes).expect("this producer encoded it")
}

/// The batch as it is, if its compression is one of those agreed on; otherwise plain.
fn readable(bytes: Bytes, agreed: u32) -> Bytes {
    let batch = own(bytes.clone());
    let compression = batch.compression().expect("this producer encoded it");
    if compression == Compression::None || agreed & compression.bit() != 0 {
        return bytes;
    }
    batch.decompressed(&BatchLimits::FORMAT).expect("this producer encoded it").into_bytes()
}
