//! openraft's log storage, on grus-log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::rc::Rc;

use bytes::Bytes;
use grus_log::{Disk, EntryId};
use openraft::async_runtime::AsyncRuntime;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use crate::codec::{decode_vote, encode_vote};
use crate::fault::Fault;
use crate::machine::StateMachine;
use crate::shared::{Shared, Types};
use crate::types::{LogId, RaftEntry, RaftVote, entry_id, log_id, log_id_parts, to_log_id};

/// The log as openraft writes it; also its reader. Shares everything with the group.
pub(crate) struct LogStore<S: StateMachine, D: Disk, RT: AsyncRuntime> {
    shared: Rc<Shared<S, D, RT>>,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> LogStore<S, D, RT> {
    pub(crate) fn new(shared: Rc<Shared<S, D, RT>>) -> Self {
        Self { shared }
    }

    /// The log ids between which entries are there: (purged, last].
    fn bounds(&self) -> (Option<LogId>, Option<LogId>) {
        let log = self.shared.log.borrow();
        (log.purged().map(to_log_id), log.last().map(to_log_id))
    }

    /// Cuts a range to the entries that are there: from inclusive, to exclusive.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let (_, last) = self.bounds();
        let first = self.shared.log.borrow().first_index().unwrap_or(u64::MAX);
        let end = last.map_or(0, |id| log_id_parts(&id).1 + 1);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(first), to.min(end))
    }

    fn read(&self, range: &impl RangeBounds<u64>, bytes_max: u64) -> io::Result<Vec<RaftEntry>> {
        let (from, to) = self.clip(range);
        if from >= to {
            return Ok(Vec::new());
        }
        // At start openraft reads single entries only to learn their ids. Such an entry may be
        // damaged without any harm when the checkpoint already holds what it did.
        if self.shared.starting.get() && to == from + 1 && self.is_applied(from) {
            return Ok(vec![RaftEntry::new_blank(self.id_of(from)?)]);
        }
        self.shared.read(from, to, bytes_max)
    }

    fn is_applied(&self, index: u64) -> bool {
        let applied = self.shared.applied.borrow();
        applied.last.is_some_and(|last| index <= log_id_parts(&last).1)
    }

    fn id_of(&self, index: u64) -> io::Result<LogId> {
        let term = self.shared.log.borrow().term_of(index);
        let missing = || Fault::Entry { index, reason: "its term is not known".to_owned() };
        let term = term.ok_or_else(|| self.shared.fail(missing()))?;
        Ok(log_id(term, index))
    }

    /// The last entry of each term in a range: terms never fall.
    fn key_ids(&self, first: LogId, last: LogId) -> io::Result<Vec<LogId>> {
        let (last_term, last_index) = log_id_parts(&last);
        let mut keys = Vec::new();
        let (mut term, mut from) = log_id_parts(&first);
        while term < last_term {
            // The last index of `term`: at `low` it still is that term, at `high` no more.
            let (mut low, mut high) = (from, last_index);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if log_id_parts(&self.id_of(middle)?).0 > term {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            keys.push(log_id(term, low));
            (term, from) = log_id_parts(&self.id_of(high)?);
        }
        keys.push(last);
        Ok(keys)
    }

    /// The committed position to begin from: the saved one, if this log still proves it.
    ///
    /// The saved position is not synced and may be ahead of the log that was recovered. Entries
    /// of the same leader below it are committed as well; entries of another leader may not be.
    fn committed(&self) -> Option<LogId> {
        let saved = self.shared.log.borrow().saved_committed()?;
        let EntryId { term, index } = saved;
        let (purged, last) = self.bounds();
        let last = last?;
        if index >= log_id_parts(&last).1 {
            return (log_id_parts(&last).0 == term).then_some(last);
        }
        if purged.is_some_and(|purged| index <= log_id_parts(&purged).1) {
            return purged;
        }
        let ours = self.shared.log.borrow().term_of(index);
        (ours == Some(term)).then(|| to_log_id(saved))
    }
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> RaftLogReader<Types<S, RT>>
    for LogStore<S, D, RT>
{
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(&range, u64::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(&(start..end), self.shared.config.append_bytes_max)
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        self.key_ids(*range.start(), *range.end())
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        let bytes = Bytes::copy_from_slice(self.shared.log.borrow().vote());
        if bytes.is_empty() {
            return Ok(None);
        }
        let bad = |error| self.shared.fail(Fault::Log(format!("saved vote: {error}")));
        decode_vote(bytes).map(Some).map_err(bad)
    }
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> RaftLogStorage<Types<S, RT>>
    for LogStore<S, D, RT>
{
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<S, RT>>> {
        let (last_purged_log_id, last_log_id) = self.bounds();
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        Self::new(Rc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        let ticket = self.shared.log.borrow_mut().append_vote(&encode_vote(vote));
        if self.shared.config.sabotage.vote_unsynced {
            self.shared.pump();
            return Ok(());
        }
        self.shared.wait(ticket).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.log.borrow_mut().save_committed(committed.as_ref().map(entry_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<S, RT>>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.shared.truncate(last_log_id.map(|id| log_id_parts(&id).1));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.shared.purge(entry_id(&log_id));
        Ok(())
    }
}
