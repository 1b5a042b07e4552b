//! The batches of a run, 16 bytes each while the run grows, and as columns once it is full.

use super::column::Column;

/// A batch in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Log index of its entry, from the run's first on.
    pub(super) index_after: u32,
    /// Place of its first timer in that entry.
    pub(super) place: u32,
    /// Bytes of it.
    pub(super) length: u32,
    /// Its queue's number in the run's list.
    pub(super) queue: u16,
    /// Position of its first timer.
    pub(super) first: u16,
}

/// All of them, in order.
#[derive(Debug, Clone)]
pub(super) enum Rows {
    Open(Vec<Row>),
    Packed(Box<Packed>),
}

/// The same by columns.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    count: usize,
    index_after: Column,
    place: Column,
    length: Column,
    queue: Column,
    first: Column,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Rows {}

impl Default for Rows {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Open(rows) => rows.len(),
            Self::Packed(packed) => packed.count,
        }
    }

    pub(super) fn get(&self, nth: usize) -> Row {
        match self {
            Self::Open(rows) => rows[nth],
            Self::Packed(packed) => packed.get(nth),
        }
    }

    /// Position of the first timer of a row.
    pub(super) fn first_of(&self, nth: usize) -> usize {
        match self {
            Self::Open(rows) => usize::from(rows[nth].first),
            Self::Packed(packed) => narrow(packed.first.get(nth)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.len()).map(|nth| self.get(nth))
    }

    /// How many rows from the front satisfy `is_before`, which must hold for a prefix.
    pub(super) fn partition_point(&self, is_before: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub(super) fn push(&mut self, row: Row) {
        if let Self::Packed(_) = self {
            *self = Self::Open(self.iter().collect());
        }
        if let Self::Open(rows) = self {
            rows.push(row);
        }
    }

    /// Brings them into as few bytes as they fit.
    pub(super) fn pack(&mut self) {
        let Self::Open(rows) = self else { return };
        let column = |of: fn(&Row) -> u64| Column::of(&rows.iter().map(of).collect::<Vec<u64>>());
        let packed = Packed {
            count: rows.len(),
            index_after: column(|row| u64::from(row.index_after)),
            place: column(|row| u64::from(row.place)),
            length: column(|row| u64::from(row.length)),
            queue: column(|row| u64::from(row.queue)),
            first: column(|row| u64::from(row.first)),
        };
        *self = Self::Packed(Box::new(packed));
    }
}

impl Packed {
    fn get(&self, nth: usize) -> Row {
        assert!(nth < self.count, "row {nth} of {}", self.count);
        Row {
            index_after: narrow(self.index_after.get(nth)),
            place: narrow(self.place.get(nth)),
            length: narrow(self.length.get(nth)),
            queue: narrow(self.queue.get(nth)),
            first: narrow(self.first.get(nth)),
        }
    }
}

/// A number that was as narrow before it came into a column.
fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).ok().expect("a column gives back what it took")
}
