//! A record taken out of its batch, as a batch of its own.

use bytes::{BufMut, Bytes, BytesMut};

use super::cursor::put_varint;
use super::header::{BATCH_HEADER_BYTES, checksum_of};
use super::{BatchAttributes, BatchHeader, Compression, Record, RecordBatch};
use crate::ids::{ProducerId, Sequence};

impl RecordBatch {
    /// The record number `place` of this [plain](RecordBatch::decompressed) batch, as a batch of one, not compressed, under the same
    /// producer and with the record's own sequence. Copies the record.
    #[must_use]
    pub fn alone(&self, place: u32, record: &Record) -> Self {
        let content = record.content();
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES + 5 + content.len());
        bytes.put_bytes(0, BATCH_HEADER_BYTES);
        put_varint(&mut bytes, content.len() as u64);
        bytes.extend_from_slice(content);
        let mut header = BatchHeader {
            length: u32::try_from(bytes.len()).expect("shorter than its batch"),
            count: 1,
            born_max: record.born(),
            attributes: BatchAttributes::new(self.is_gray(), Compression::None)
                .with_ttl(record.ttl_ms().is_some()),
            tag_bloom: record.tag_bloom(),
            ..self.header
        };
        if header.producer_id != ProducerId::NONE {
            header.first_sequence = Sequence(header.first_sequence.0 + u64::from(place));
        }
        let bytes: Bytes = header.seal(bytes);
        header.checksum = checksum_of(&bytes);
        Self { bytes, header }
    }
}
