//! Reading the records of a batch that nobody checked: an end or an error, never a panic.

#![no_main]

use bytes::Bytes;
use grus_protocol::{BatchLimits, RecordBatch};
use grus_protocol_fuzz::{read_all, resealed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(batch) = RecordBatch::from_log(Bytes::copy_from_slice(data)) {
        let _ = read_all(&batch);
    }
    if let Ok(batch) = RecordBatch::from_log(resealed(data)) {
        batch.verify_checksum().expect("it was put right");
        let _ = read_all(&batch);
        let _ = batch.decompressed(&BatchLimits::PRODUCE);
        let views = batch.views().count();
        assert_eq!(views, batch.records().count());
    }
});
