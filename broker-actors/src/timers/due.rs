//! Due times of a run, in four bytes each where they lie within 49 days of one another.

/// Due times in milliseconds, by position.
#[derive(Debug, Clone)]
pub(super) enum Dues {
    /// `base` and what is added to it.
    Near { base: u64, after: Vec<u32> },
    /// As they are.
    Far(Vec<u64>),
}

impl PartialEq for Dues {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Dues {}

impl Default for Dues {
    fn default() -> Self {
        Self::Near { base: 0, after: Vec::new() }
    }
}

impl Dues {
    /// Those of `all`, in as few bytes as they fit.
    pub(super) fn of(all: Vec<u64>) -> Self {
        let base = all.iter().copied().min().unwrap_or(0);
        let fits = all.iter().all(|due| u32::try_from(due - base).is_ok());
        if !fits {
            let mut all = all;
            all.shrink_to_fit();
            return Self::Far(all);
        }
        let after = all.iter().filter_map(|due| u32::try_from(due - base).ok()).collect();
        Self::Near { base, after }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Near { after, .. } => after.len(),
            Self::Far(all) => all.len(),
        }
    }

    pub(super) fn get(&self, position: usize) -> u64 {
        match self {
            Self::Near { base, after } => base + u64::from(after[position]),
            Self::Far(all) => all[position],
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).map(|position| self.get(position))
    }

    pub(super) fn push(&mut self, due: u64) {
        if let Self::Near { base, after } = self {
            if after.is_empty() {
                *base = due;
            }
            if let Some(delta) = due.checked_sub(*base).and_then(|delta| u32::try_from(delta).ok())
            {
                return after.push(delta);
            }
            *self = Self::Far(self.iter().collect());
        }
        if let Self::Far(all) = self {
            all.push(due);
        }
    }

    /// Gives back memory that more of them would have used.
    pub(super) fn pack(&mut self) {
        *self = Self::of(self.iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_are_what_they_were_however_they_are_kept() {
        let cases: [&[u64]; 4] = [&[], &[7, 7, 9], &[9, 7], &[1_000, u64::MAX, 0, 1 << 40]];
        for all in cases {
            let mut pushed = Dues::default();
            for due in all {
                pushed.push(*due);
            }
            assert_eq!(pushed.iter().collect::<Vec<_>>(), all);
            pushed.pack();
            assert_eq!(pushed.iter().collect::<Vec<_>>(), all);
            assert_eq!(pushed, Dues::of(all.to_vec()));
        }
        let mut near = Dues::of(vec![1 << 40, (1 << 40) + 5]);
        assert!(matches!(near, Dues::Near { .. }));
        near.push(1 << 50);
        assert_eq!(near.iter().collect::<Vec<_>>(), [1 << 40, (1 << 40) + 5, 1 << 50]);
    }
}
