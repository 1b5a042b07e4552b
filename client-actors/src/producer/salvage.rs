//! What was encoded, taken apart again: when one record of a batch is refused, or the queue that a
//! batch was for is gone, the others go on without it.

use grus_protocol::batch::BATCH_HEADER_BYTES;
use grus_protocol::{BatchBuilder, BatchLimits, ErrorCode, NewRecord, RecordBatch};

use super::lane::{Batch, Divided};
use super::parts::Members;
use super::payload::Payload;
use crate::error::Refusal;

/// What this producer has encoded, it can read.
const OWN: BatchLimits = BatchLimits::FORMAT;

/// The records of a batch.
pub(super) fn records_of(payload: Payload) -> Vec<NewRecord> {
    let bytes = match payload {
        Payload::Open(mut builder) => builder.finish(),
        Payload::Stamped { bytes, .. } => bytes,
    };
    assert!(bytes.len() > BATCH_HEADER_BYTES, "a batch has records");
    let batch = RecordBatch::from_log(bytes).and_then(|batch| batch.decompressed(&OWN));
    let batch = batch.expect("this producer encoded it");
    let read = |record: Result<_, _>| NewRecord::from(&record.expect("this producer encoded it"));
    batch.records().map(read).collect()
}

/// A batch of these records, which were in one before.
pub(super) fn batch_of<'a>(records: impl IntoIterator<Item = &'a NewRecord>) -> BatchBuilder {
    let mut builder = BatchBuilder::new(OWN);
    for record in records {
        builder.push(record).expect("it was in a batch before");
    }
    builder
}

/// Takes a refused batch of several callers apart: the one whose record is to blame, if the broker
/// named it, and the others in their order. If it named none, two halves are tried. The batch
/// stays whole when it is of one caller, or when no record is to blame.
pub(super) fn divide<P>(
    batch: Batch<Payload, Members<P>>,
    refusal: &Refusal,
) -> Divided<Payload, Members<P>> {
    if batch.members.len() < 2 || !blames_a_record(refusal.code) {
        return Divided::whole(batch);
    }
    let Batch { payload, members, deadline_ms, .. } = batch;
    let mut pairs: Vec<_> = records_of(payload).into_iter().zip(members).collect();
    let blamed = refusal.record_index().map(|index| index as usize);
    let failed = blamed.filter(|index| *index < pairs.len()).map(|index| pairs.remove(index).1);
    let middle = if failed.is_some() { pairs.len() } else { pairs.len() / 2 };
    let second = pairs.split_off(middle);
    let rest = [pairs, second].into_iter().filter(|some| !some.is_empty()).map(|some| {
        let builder = batch_of(some.iter().map(|(record, _)| record));
        let (records, bytes) = (builder.count(), builder.len_bytes() as u64);
        let members = some.into_iter().map(|(_, member)| member).collect();
        Batch { payload: Payload::Open(builder), members, records, bytes, deadline_ms }
    });
    Divided { failed: failed.map(|member| vec![member]), rest: rest.collect() }
}

/// Whether a batch is refused so for what one of its records is, or for their number.
fn blames_a_record(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidRecord
            | ErrorCode::MessageTooLarge
            | ErrorCode::BatchTooLarge
            | ErrorCode::RecordNotAllowed
            | ErrorCode::MalformedBatch
            | ErrorCode::UnsupportedFeature
    )
}
