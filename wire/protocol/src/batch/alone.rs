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
        self.part(place, std::slice::from_ref(record))
    }

    /// The same for some records that follow one another, the first being number `place`: a batch
    /// of them.
    ///
    /// # Panics
    /// Without a record.
    #[must_use]
    pub fn part(&self, place: u32, records: &[Record]) -> Self {
        let first = records.first().expect("a part has a record");
        let room: usize = records.iter().map(|record| 5 + record.content().len()).sum();
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES + room);
        bytes.put_bytes(0, BATCH_HEADER_BYTES);
        for record in records {
            put_varint(&mut bytes, record.content().len() as u64);
            bytes.extend_from_slice(record.content());
        }
        let mut header = BatchHeader {
            length: u32::try_from(bytes.len()).expect("shorter than its batch"),
            count: u32::try_from(records.len()).expect("fewer than its batch has"),
            born_max: records.iter().map(Record::born).max().expect("one of them"),
            attributes: BatchAttributes::new(self.is_gray(), Compression::None)
                .with_ttl(first.ttl_ms().is_some()),
            tag_bloom: records.iter().fold(0, |bloom, record| bloom | record.tag_bloom()),
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
