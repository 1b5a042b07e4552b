//! The records of a stored batch: what is indexed of them, and which of them match.

use bytes::Bytes;
use grus_protocol::batch::{Record, RecordBatch};
use grus_protocol::ids::{MessageId, TopicId};
use grus_protocol::limits::BatchLimits;

use super::FindBy;
use super::entries::Entries;
use super::hash::Hashing;

/// A batch was held against its broker's limits before it was stored. This bounds the memory for
/// one whose bytes have changed since.
const LIMITS: BatchLimits =
    BatchLimits { batch_bytes_max: 256 * 1024 * 1024, ..BatchLimits::FORMAT };

/// A batch cannot be read.
pub(super) type Unreadable = ();

impl Entries {
    /// Adds the ids and keys of a batch's records under the batch's number.
    ///
    /// # Errors
    /// When the batch cannot be read, or there is no room.
    pub(super) fn add_batch(
        &mut self,
        batch: &Bytes,
        topic: TopicId,
        number: u32,
        hashing: Hashing,
    ) -> Result<(), Unreadable> {
        let batch = RecordBatch::from_log(batch.clone()).map_err(drop)?;
        let batch = batch.decompressed(&LIMITS).map_err(drop)?;
        let mut last_key = None;
        for record in batch.views() {
            let record = record.map_err(drop)?;
            self.add_id(record.id(), number, hashing)?;
            for key in record.keys() {
                let hash = hashing.of_key(topic, key);
                // Runs of one key are common: one entry for the batch is enough.
                if last_key.replace(hash) != Some(hash) {
                    self.add(hash, number)?;
                }
            }
        }
        Ok(())
    }
}

impl FindBy {
    pub(super) fn hash(&self, hashing: Hashing) -> u32 {
        match self {
            Self::Id(id) => hashing.of_id(*id),
            Self::Key { topic, key } => hashing.of_key(*topic, key),
        }
    }

    /// The topic whose messages alone are meant.
    pub(super) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::Id(_) => None,
            Self::Key { topic, .. } => Some(*topic),
        }
    }

    pub(super) fn id(&self) -> Option<MessageId> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Key { .. } => None,
        }
    }

    fn is_of(&self, record: &Record) -> bool {
        match self {
            Self::Id(id) => record.id() == *id,
            Self::Key { key, .. } => record.keys().any(|held| held == key),
        }
    }
}

/// The records of a batch that match, each with its place in the batch and as a batch of its own.
/// The checksum of the batch is compared first: what it came from may be old.
///
/// # Errors
/// When the batch is damaged.
pub(super) fn matching(batch: Bytes, by: &FindBy) -> Result<Vec<(u32, Bytes)>, Unreadable> {
    let batch = RecordBatch::from_log(batch).map_err(drop)?;
    batch.verify_checksum().map_err(drop)?;
    let batch = batch.decompressed(&LIMITS).map_err(drop)?;
    let mut found = Vec::new();
    for (place, record) in (0..).zip(batch.records()) {
        let record = record.map_err(drop)?;
        if by.is_of(&record) {
            found.push((place, batch.alone(place, &record).into_bytes()));
        }
    }
    Ok(found)
}
