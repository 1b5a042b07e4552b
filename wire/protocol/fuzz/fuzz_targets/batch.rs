//! The full check of a batch: as it came, and with length and checksum put right, so that what
//! stands behind them is reached.

#![no_main]

use bytes::Bytes;
use grus_protocol::{BatchLimits, RecordBatch};
use grus_protocol_fuzz::{read_all, rebuild, resealed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits =
        BatchLimits { message_bytes_max: 512, batch_bytes_max: 1 << 20, ..BatchLimits::FORMAT };
    let _ = RecordBatch::check(Bytes::copy_from_slice(data), &limits);
    let _ = RecordBatch::check(resealed(data), &BatchLimits::PRODUCE);
    let Ok(batch) = RecordBatch::check(resealed(data), &limits) else { return };
    assert_eq!(RecordBatch::from_log(batch.bytes().clone()).as_ref(), Ok(&batch));
    let batch = batch.decompressed(&limits).expect("what was checked decompresses");
    let records = read_all(&batch).expect("what was checked reads back");
    assert_eq!(records.len(), batch.count() as usize);
    let again = RecordBatch::check(rebuild(&records), &limits).expect("and builds again");
    assert_eq!(read_all(&again).expect("and reads back again"), records);
    assert_eq!(again.tag_bloom() & batch.tag_bloom(), again.tag_bloom());
    assert_eq!(again.born_max(), batch.born_max());
});
