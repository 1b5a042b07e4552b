//! A run as the value of its part in a checkpoint.
//!
//! ```text
//! version u8 (1: rows, 2: columns) | base index u64 | queues varint | queues x (topic u64, queue u32) | rows varint
//! 1: rows x (index after the row before, place, length, queue, timers: varints)
//!    timers x due time, by its distance to the one before: varint
//! 2: columns (`timers/column.rs`): index after the run's first, place, length, queue, timers; due times
//! moved rows varint | moved x (row, index, byte: varints)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use grus_log::Position;
use grus_protocol::ids::{QueueId, QueueKey, TopicId};

use super::{BATCH_TIMERS_MAX, Content, Moved, RUN_TIMERS_MAX, RunForm};
use crate::codec::{CodecError, Decoder, put_varint};
use crate::timers::column::{fold, put_column, read_column, unfold};
use crate::timers::due::Dues;
use crate::timers::rows::Row;

const VERSION_ROWS: u8 = 1;
const VERSION_COLUMNS: u8 = 2;
const BAD: CodecError = CodecError::Value("batches of a run");

/// A row as it is saved: the number of its timers instead of where they begin.
struct SavedRow {
    index_after: u32,
    place: u32,
    length: u32,
    queue: u16,
    count: u32,
}

impl Content {
    /// The value of the run's part in a checkpoint.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.rows.len() * 4 + self.len() * 4);
        out.put_u8(match self.form {
            RunForm::Rows => VERSION_ROWS,
            RunForm::Columns => VERSION_COLUMNS,
        });
        out.put_u64_le(self.base_index);
        put_varint(&mut out, self.queues.len() as u64);
        for queue in &self.queues {
            out.put_u64_le(queue.topic.0);
            out.put_u32_le(queue.queue.0);
        }
        put_varint(&mut out, self.rows.len() as u64);
        match self.form {
            RunForm::Rows => self.encode_rows(&mut out),
            RunForm::Columns => self.encode_columns(&mut out),
        }
        put_varint(&mut out, self.moved.len() as u64);
        for moved in &self.moved {
            put_varint(&mut out, u64::from(moved.row));
            put_varint(&mut out, moved.to.index);
            put_varint(&mut out, u64::from(moved.to.byte));
        }
        out.freeze()
    }

    fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.rows.len()).map(|row| (self.end_of(row) - self.rows.first_of(row)) as u64)
    }

    fn encode_rows(&self, out: &mut BytesMut) {
        let mut last_index = 0;
        for (row, count) in self.rows.iter().zip(self.counts()) {
            put_varint(out, u64::from(row.index_after - last_index));
            last_index = row.index_after;
            put_varint(out, u64::from(row.place));
            put_varint(out, u64::from(row.length));
            put_varint(out, u64::from(row.queue));
            put_varint(out, count);
        }
        let mut last_due = 0_u64;
        for due in self.dues.iter() {
            put_varint(out, fold(due.wrapping_sub(last_due)));
            last_due = due;
        }
    }

    fn encode_columns(&self, out: &mut BytesMut) {
        let of: [fn(Row) -> u64; 4] = [
            |row| u64::from(row.index_after),
            |row| u64::from(row.place),
            |row| u64::from(row.length),
            |row| u64::from(row.queue),
        ];
        for number in of {
            put_column(out, &self.rows.iter().map(number).collect::<Vec<u64>>());
        }
        put_column(out, &self.counts().collect::<Vec<u64>>());
        put_column(out, &self.dues.iter().collect::<Vec<u64>>());
    }

    /// Reads what [`Content::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        let form = match decoder.u8()? {
            VERSION_ROWS => RunForm::Rows,
            VERSION_COLUMNS => RunForm::Columns,
            version => return Err(CodecError::Version(version)),
        };
        let mut content = Self::new(decoder.u64()?, form);
        for _ in 0..decoder.varint_u32("queues of a run")? {
            let topic = TopicId(decoder.u64()?);
            content.queues.push(QueueKey { topic, queue: QueueId(decoder.u32()?) });
        }
        let rows = decoder.varint_u32("batches of a run")? as usize;
        if !(1..=BATCH_TIMERS_MAX).contains(&rows) {
            return Err(BAD);
        }
        let dues = match form {
            RunForm::Rows => content.decode_rows(&mut decoder, rows)?,
            RunForm::Columns => content.decode_columns(&mut decoder, rows)?,
        };
        content.dues = Dues::of(dues);
        content.decode_moved(&mut decoder)?;
        decoder.finish()?;
        content.pack();
        Ok(content)
    }

    /// Reads the rows, and gives the due times.
    fn decode_rows(&mut self, decoder: &mut Decoder, rows: usize) -> Result<Vec<u64>, CodecError> {
        let (mut timers, mut index_after) = (0, 0_u32);
        for _ in 0..rows {
            let step = decoder.varint_u32("index")?;
            index_after = index_after.checked_add(step).ok_or(BAD)?;
            let row = SavedRow {
                index_after,
                place: decoder.varint_u32("place")?,
                length: decoder.varint_u32("length")?,
                queue: u16::try_from(decoder.varint("queue")?).map_err(|_| BAD)?,
                count: decoder.varint_u32("count")?,
            };
            timers = self.take_row(&row, timers)?;
        }
        if timers > decoder.left() {
            return Err(BAD);
        }
        let mut dues = Vec::with_capacity(timers);
        let mut last_due = 0_u64;
        for _ in 0..timers {
            last_due = last_due.wrapping_add(unfold(decoder.varint("due time")?));
            dues.push(last_due);
        }
        Ok(dues)
    }

    fn decode_columns(
        &mut self,
        decoder: &mut Decoder,
        rows: usize,
    ) -> Result<Vec<u64>, CodecError> {
        let mut column = || read_column(decoder, rows);
        let (indexes, places) = (column()?, column()?);
        let (lengths, queues, counts) = (column()?, column()?, column()?);
        let narrow = |number: u64| u32::try_from(number).map_err(|_| BAD);
        let mut timers = 0;
        for nth in 0..rows {
            let row = SavedRow {
                index_after: narrow(indexes[nth])?,
                place: narrow(places[nth])?,
                length: narrow(lengths[nth])?,
                queue: u16::try_from(queues[nth]).map_err(|_| BAD)?,
                count: narrow(counts[nth])?,
            };
            timers = self.take_row(&row, timers)?;
        }
        read_column(decoder, timers)
    }

    /// Adds a row behind so many timers, if it fits there; how many there are then.
    fn take_row(&mut self, saved: &SavedRow, timers: usize) -> Result<usize, CodecError> {
        let SavedRow { index_after, place, length, queue, count } = *saved;
        let first = u16::try_from(timers).map_err(|_| BAD)?;
        let last = self.rows.len().checked_sub(1).map(|last| self.rows.get(last));
        let is_behind = last.is_none_or(|last| {
            let last_count = timers - usize::from(last.first);
            let end = (last.place as usize).saturating_add(last_count);
            (index_after, place as usize) >= (last.index_after, end)
        });
        let end = timers.saturating_add(count as usize);
        let limit = if timers == 0 { BATCH_TIMERS_MAX } else { RUN_TIMERS_MAX };
        let fits = count > 0 && end <= limit && place.checked_add(count).is_some();
        if !is_behind || !fits || usize::from(queue) >= self.queues.len() {
            return Err(BAD);
        }
        self.rows.push(Row { index_after, place, length, queue, first });
        Ok(end)
    }

    fn decode_moved(&mut self, decoder: &mut Decoder) -> Result<(), CodecError> {
        for _ in 0..decoder.varint_u32("moved rows of a run")? {
            let row = u16::try_from(decoder.varint("moved row")?).ok();
            let row = row.filter(|row| usize::from(*row) < self.rows.len());
            let row = row.ok_or(CodecError::Value("moved row"))?;
            if self.moved.last().is_some_and(|last| last.row >= row) {
                return Err(CodecError::Value("moved row"));
            }
            let index = decoder.varint("moved index")?;
            let to = Position { index, byte: decoder.varint_u32("moved byte")? };
            self.moved.push(Moved { row, to });
        }
        Ok(())
    }
}
