//! A run: some thousand timers in the order in which they were stored.
//!
//! What was scheduled ([`Content`]) seldom changes once the run is full; which of it is over
//! ([`Done`]) is a bit for each timer. Both are parts of a checkpoint, so that a release costs a
//! bit and not the run. A row stands for a batch: 16 bytes, and once the run is full as few as its columns
//! take ([`rows`](super::rows)). A timer costs 4 or 8 bytes more for its due time, a bit, and 2 bytes once
//! the run was sorted.

use std::collections::BTreeMap;

use grus_log::Position;
use grus_protocol::ids::{QueueKey, TimestampMs, TopicId};
use grus_protocol::limits::BATCH_RECORDS_MAX;

use super::TimerId;
use super::done::Done;
use super::due::Dues;
use super::rows::{Row, Rows};

mod saved;

/// A run takes batches until it has so many timers; a larger batch has a run of its own.
pub const RUN_TIMERS_MAX: usize = 4096;
/// Most timers of one batch: a position in a run fits 16 bits.
pub const BATCH_TIMERS_MAX: usize = BATCH_RECORDS_MAX as usize;

const _: () = assert!(RUN_TIMERS_MAX <= BATCH_TIMERS_MAX && BATCH_TIMERS_MAX <= 1 << 16);

/// A scheduled batch as it is added.
#[derive(Debug, Clone, Copy)]
pub struct NewBatch<'a> {
    /// Its queue.
    pub queue: QueueKey,
    /// The timer of its first record; its place is where the batch's bytes begin.
    pub first: TimerId,
    /// Bytes of the batch.
    pub length: u32,
    /// When each of its records is due, in order.
    pub due: &'a [TimestampMs],
}

/// How a run is saved: as its first batch says, so that it is the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunForm {
    /// Row by row: of an item that an earlier build has written.
    Rows,
    /// Column by column, which is half as long.
    Columns,
}

/// What a timer is, and where its message lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// Its name.
    pub id: TimerId,
    /// The queue it is for.
    pub queue: QueueKey,
    /// When it is due.
    pub due: TimestampMs,
    /// The timer of the first record of its batch.
    pub batch: TimerId,
    /// Records in that batch.
    pub count: u32,
    /// Where the batch lies now.
    pub at: Position,
    /// Bytes of the batch.
    pub length: u32,
}

impl Timer {
    /// The number of its record in the batch.
    pub const fn number(&self) -> u32 {
        self.id.place - self.batch.place
    }
}

/// A batch that was carried on into a later entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moved {
    row: u16,
    to: Position,
}

/// What was scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    form: RunForm,
    base_index: u64,
    queues: Vec<QueueKey>,
    rows: Rows,
    dues: Dues,
    /// By row.
    moved: Vec<Moved>,
}

impl Content {
    /// A run whose first batch comes with entry `base_index`.
    #[must_use]
    pub fn new(base_index: u64, form: RunForm) -> Self {
        let (queues, rows, moved) = (Vec::new(), Rows::default(), Vec::new());
        Self { form, base_index, queues, rows, dues: Dues::default(), moved }
    }

    /// Timers in it, over or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dues.len()
    }

    /// Whether nothing was scheduled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// Whether a batch still fits.
    #[must_use]
    pub fn takes(&self, batch: &NewBatch<'_>) -> bool {
        let in_reach = batch.first.index.checked_sub(self.base_index).is_some_and(|after| {
            u32::try_from(after).is_ok() && self.queues.len() < usize::from(u16::MAX)
        });
        in_reach && (self.is_empty() || self.len() + batch.due.len() <= RUN_TIMERS_MAX)
    }

    /// Adds a batch behind all others.
    ///
    /// # Panics
    /// When it does not fit ([`Content::takes`]), has no or too many records, or is not the last.
    pub fn push(&mut self, batch: &NewBatch<'_>) {
        assert!(self.takes(batch), "a batch is added where it fits");
        assert!((1..=BATCH_TIMERS_MAX).contains(&batch.due.len()), "a batch has records");
        let last = self.len().checked_sub(1).map(|last| self.id(last));
        assert!(last.is_none_or(|last| last < batch.first), "timers come in order");
        let known = self.queues.iter().rposition(|queue| *queue == batch.queue);
        let queue = known.unwrap_or_else(|| {
            self.queues.push(batch.queue);
            self.queues.len() - 1
        });
        let narrow = |number: usize| u16::try_from(number).expect("bounded by `takes`");
        self.rows.push(Row {
            index_after: u32::try_from(batch.first.index - self.base_index).expect("in reach"),
            place: batch.first.place,
            length: batch.length,
            queue: narrow(queue),
            first: narrow(self.len()),
        });
        batch.due.iter().for_each(|due| self.dues.push(due.0));
    }

    /// Gives back memory that more batches would have used.
    pub fn pack(&mut self) {
        self.dues.pack();
        self.rows.pack();
        self.queues.shrink_to_fit();
        self.moved.shrink_to_fit();
    }

    /// Bytes of all its batches.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.length)).sum()
    }

    /// Log indexes of the first and the last entry in which a batch with a timer that is not over lies.
    #[must_use]
    pub fn reach(&self, done: &Done) -> Option<(u64, u64)> {
        let mut moved = self.moved.iter().peekable();
        let mut entries = (0..self.rows.len()).filter_map(|row| {
            // Both are in the order of rows: nothing is searched for.
            let moved = moved.next_if(|moved| usize::from(moved.row) == row);
            let mut positions = self.rows.first_of(row)..self.end_of(row);
            let lives = positions.any(|position| !done.contains(position));
            let index = || moved.map_or_else(|| self.id_of_row(row).index, |moved| moved.to.index);
            lives.then(index)
        });
        let first = entries.next()?;
        Some(entries.fold((first, first), |(low, high), at| (low.min(at), high.max(at))))
    }

    /// The queues that have, or had, a timer in it.
    pub fn queues(&self) -> impl Iterator<Item = QueueKey> + '_ {
        self.queues.iter().copied()
    }

    fn row_at(&self, position: usize) -> usize {
        self.rows.partition_point(|row| self.rows.first_of(row) <= position) - 1
    }

    fn end_of(&self, row: usize) -> usize {
        let next = row + 1;
        if next < self.rows.len() { self.rows.first_of(next) } else { self.len() }
    }

    fn id_of_row(&self, row: usize) -> TimerId {
        let Row { index_after, place, .. } = self.rows.get(row);
        TimerId { index: self.base_index + u64::from(index_after), place }
    }

    fn id(&self, position: usize) -> TimerId {
        let row = self.row_at(position);
        let number = position - self.rows.first_of(row);
        self.id_of_row(row).nth(u32::try_from(number).expect("a position fits 16 bits"))
    }

    fn place_of(&self, row: usize) -> Position {
        let id = self.id_of_row(row);
        let narrow = u16::try_from(row).expect("a row has a timer");
        self.moved
            .binary_search_by_key(&narrow, |moved| moved.row)
            .map_or(Position { index: id.index, byte: id.place }, |found| self.moved[found].to)
    }

    /// The last batch whose first timer has this name or an earlier one.
    fn row_before(&self, id: TimerId) -> Option<usize> {
        let is_before = |row: usize| self.id_of_row(row) <= id;
        self.rows.partition_point(is_before).checked_sub(1)
    }

    /// The position of a timer.
    #[must_use]
    pub fn find(&self, id: TimerId) -> Option<usize> {
        let row = self.row_before(id)?;
        let batch = self.id_of_row(row);
        let number = (batch.index == id.index).then(|| id.place - batch.place)?;
        let position = self.rows.first_of(row) + number as usize;
        (position < self.end_of(row)).then_some(position)
    }

    /// How many timers have this name or an earlier one.
    #[must_use]
    pub fn rank(&self, id: TimerId) -> usize {
        let Some(row) = self.row_before(id) else { return 0 };
        let (batch, end) = (self.id_of_row(row), self.end_of(row));
        if batch.index < id.index {
            return end;
        }
        let number = (id.place - batch.place) as usize;
        end.min(self.rows.first_of(row) + number + 1)
    }

    /// The timer at a position.
    #[must_use]
    pub fn timer(&self, position: usize) -> Timer {
        self.timer_of(self.row_at(position), position)
    }

    /// The timers at `positions`, which ascend: a search for the row costs ten times as much as
    /// the rest of a timer.
    pub fn timers_at(&self, positions: impl Iterator<Item = usize>) -> impl Iterator<Item = Timer> {
        let mut row = 0;
        positions.map(move |position| {
            while self.end_of(row) <= position {
                row += 1;
            }
            self.timer_of(row, position)
        })
    }

    fn timer_of(&self, row: usize, position: usize) -> Timer {
        let Row { length, queue, first, .. } = self.rows.get(row);
        let first = usize::from(first);
        let narrow = |number: usize| u32::try_from(number).expect("a position fits 16 bits");
        let batch = self.id_of_row(row);
        Timer {
            id: batch.nth(narrow(position - first)),
            queue: self.queues[usize::from(queue)],
            due: self.due(position),
            batch,
            count: narrow(self.end_of(row) - first),
            at: self.place_of(row),
            length,
        }
    }

    /// When the timer at a position is due.
    #[must_use]
    pub fn due(&self, position: usize) -> TimestampMs {
        TimestampMs(self.dues.get(position))
    }

    /// The earliest due time of all, over or not.
    #[must_use]
    pub fn min_due(&self) -> TimestampMs {
        TimestampMs(self.dues.iter().min().unwrap_or(u64::MAX))
    }

    /// Positions in the order of (due time, timer).
    #[must_use]
    pub fn sorted(&self) -> Box<[u16]> {
        let all = (0..self.len()).map(|position| u16::try_from(position).expect("16 bits"));
        let mut order: Box<[u16]> = all.collect();
        order.sort_unstable_by_key(|position| (self.dues.get(usize::from(*position)), *position));
        order
    }

    /// Each batch with a timer that is not over: its first timer, where it lies, its bytes, and
    /// the range of its positions.
    pub fn live_batches<'a>(
        &'a self,
        done: &'a Done,
    ) -> impl Iterator<Item = (TimerId, Position, u32, std::ops::Range<usize>)> + 'a {
        (0..self.rows.len()).filter_map(move |row| {
            let positions = self.rows.first_of(row)..self.end_of(row);
            let lives = positions.clone().any(|position| !done.contains(position));
            let length = || self.rows.get(row).length;
            lives.then(|| (self.id_of_row(row), self.place_of(row), length(), positions))
        })
    }

    /// How many timers there are by topic, over or not.
    #[must_use]
    pub fn counts_by_topic(&self) -> BTreeMap<TopicId, u64> {
        let mut counts = BTreeMap::new();
        for (row, batch) in self.rows.iter().enumerate() {
            let count = self.end_of(row) - usize::from(batch.first);
            let topic = self.queues[usize::from(batch.queue)].topic;
            *counts.entry(topic).or_default() += count as u64;
        }
        counts
    }

    /// Positions of a topic's timers that are not over.
    #[must_use]
    pub fn positions_of(&self, topic: TopicId, done: &Done) -> Vec<usize> {
        let rows = self.rows.iter().enumerate();
        let rows = rows.filter(|(_, batch)| self.queues[usize::from(batch.queue)].topic == topic);
        let all = rows.flat_map(|(row, batch)| usize::from(batch.first)..self.end_of(row));
        all.filter(|position| !done.contains(*position)).collect()
    }

    /// Notes that the batch whose first timer is `batch` lies at `to` now. False when there is no
    /// such batch.
    pub fn carry(&mut self, batch: TimerId, to: Position) -> bool {
        let Some(position) = self.find(batch) else { return false };
        let row = self.row_at(position);
        if self.id_of_row(row) != batch {
            return false;
        }
        let row = u16::try_from(row).expect("a row has a timer");
        match self.moved.binary_search_by_key(&row, |moved| moved.row) {
            Ok(found) => self.moved[found].to = to,
            Err(place) => self.moved.insert(place, Moved { row, to }),
        }
        true
    }

    /// The same without the batches all of whose timers are over.
    #[must_use]
    pub fn without(&self, done: &Done) -> (Self, Done) {
        let mut left = Self::new(self.base_index, self.form);
        let mut left_done = Done::default();
        let live: Vec<_> = self.live_batches(done).collect();
        for (first, at, length, positions) in live {
            let due: Vec<TimestampMs> = positions.clone().map(|at| self.due(at)).collect();
            let queue = self.timer(positions.start).queue;
            for (place, position) in (left.len()..).zip(positions) {
                if done.contains(position) {
                    left_done.insert(place);
                }
            }
            left.push(&NewBatch { queue, first, length, due: &due });
            if at != (Position { index: first.index, byte: first.place }) {
                left.carry(first, at);
            }
        }
        left.pack();
        (left, left_done)
    }
}
