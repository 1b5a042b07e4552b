//! Drives a log on a [`SimDisk`] by chance, cuts the power, and checks what comes back.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use grus_log::switches::OrderRule;
use grus_log::{
    AppendError, EntryId, EntryKind, Job, Log, LogConfig, NewEntry, Progress, Recovered, Seeded,
    SimDisk, Ticket,
};
use grus_protocol::ids::Durability;

use crate::model::{Model, checkpoint, payload, run};

pub const FOLDER: &str = "/log";

/// What a ticket makes durable.
#[derive(Debug, Clone, Copy)]
enum Promise {
    /// This vote, and the log up to here.
    Vote(u64, Option<EntryId>),
    Purge(EntryId),
    Floor,
    Install(EntryId),
}

/// A log, its model, and the chances taken.
pub struct Harness {
    pub disk: SimDisk,
    pub log: Option<Log<SimDisk>>,
    pub model: Model,
    pub random: Seeded,
    without: Option<OrderRule>,
    durability: Durability,
    job: Option<Job<SimDisk>>,
    promises: BTreeMap<Ticket, Promise>,
    checkpointed: Option<u64>,
    checkpoints_taken: u64,
    /// What must still be there if the snapshot that is being installed does not make it.
    before_install: Option<Box<Model>>,
    /// Slices somebody still reads, and what they must say.
    held: Vec<(Bytes, EntryId)>,
    pub seals: u64,
    pub truncations: u64,
    pub purges: u64,
    pub votes: u64,
    pub installs: u64,
    pub cuts: u64,
}

fn fail<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

impl Harness {
    pub fn new(seed: u64, without: Option<OrderRule>) -> Self {
        let mut harness = Self {
            disk: SimDisk::new(seed),
            log: None,
            model: Model { term: 1, ..Model::default() },
            random: Seeded::new(seed ^ 0x5eed),
            without,
            // Every fourth log is of the class that syncs late.
            durability: if seed % 4 == 3 { Durability::Replicated } else { Durability::Persisted },
            job: None,
            promises: BTreeMap::new(),
            checkpointed: None,
            checkpoints_taken: 0,
            before_install: None,
            held: Vec::new(),
            seals: 0,
            truncations: 0,
            purges: 0,
            votes: 0,
            installs: 0,
            cuts: 0,
        };
        let (log, _) = harness.open().expect("a new disk opens");
        harness.log = Some(log);
        harness
    }

    fn open(&self) -> Result<(Log<SimDisk>, Recovered), String> {
        let config = LogConfig {
            segment_bytes: 64 * 1024,
            first_segment_bytes: 64 * 1024,
            entry_bytes_max: 8 * 1024,
            without: self.without,
            durability: self.durability,
            unsynced_bytes_max: 512 * 1024,
            ..LogConfig::default()
        };
        Log::open(&self.disk, Path::new(FOLDER), config).map_err(|error| error.to_string())
    }

    /// One thing that a broker might do. `Ok(false)`: the power is off.
    pub fn step(&mut self) -> Result<bool, String> {
        match self.random.below(100) {
            0..=39 => self.append(),
            40..=79 => self.work()?,
            80..=83 => self.vote(),
            84..=85 => self.truncate(),
            86..=89 => self.commit(),
            90..=91 => self.checkpoint(),
            92..=93 => self.purge(),
            94..=96 => self.hold(),
            97 => self.log().request_sync(),
            98 => self.install(),
            _ => self.check_held()?,
        }
        Ok(!self.disk.is_off())
    }

    /// Lets everything that was asked for become true.
    pub fn settle(&mut self) {
        self.vote();
        for _ in 0..1_000 {
            self.work().unwrap();
            if self.job.is_none() {
                self.work().unwrap();
            }
            if self.job.is_none() {
                return;
            }
        }
        panic!("jobs without end");
    }

    fn log(&mut self) -> &mut Log<SimDisk> {
        self.log.as_mut().expect("open between cuts")
    }

    fn append(&mut self) {
        for _ in 0..=self.random.below(3) {
            let index = self.model.last().map_or(0, |last| last.index + 1);
            let seal = self.log().should_seal();
            let kind = if seal { EntryKind::Seal } else { EntryKind::Normal };
            let id = EntryId { term: self.model.term, index };
            let whole = payload(id);
            let middle = whole.len() / 2;
            let pieces = [whole.slice(..middle), whole.slice(middle..)];
            let entry = NewEntry { kind, term: id.term, index, payload: &pieces };
            match self.log().append(&[entry]) {
                Ok(()) => self.model.append(id, kind),
                Err(AppendError::NoRoom | AppendError::DiskFull) => return,
                Err(error) => panic!("{error}"),
            }
            self.seals += u64::from(seal);
            // A leader with a quorum elsewhere applies its Seal before this disk has it.
            if seal && self.random.below(2) == 0 {
                self.checkpoint();
            }
        }
    }

    /// A job is handed out, or the one that is out runs and completes.
    fn work(&mut self) -> Result<(), String> {
        let Some(job) = self.job.take() else {
            self.job = self.log().next_job();
            return Ok(());
        };
        let done = job.run();
        match self.log().complete(done) {
            Ok(mut progress) => {
                // What a cut must not take is what is on the disk, whatever the class acknowledges.
                if self.durability == Durability::Replicated {
                    progress.durable_index = self.log().synced_index();
                }
                self.progress(&progress)
            }
            Err(_) if self.disk.is_off() => Ok(()),
            Err(fatal) => fail(format!("fatal with the power on: {fatal}")),
        }
    }

    fn progress(&mut self, progress: &Progress) -> Result<(), String> {
        if let Some(index) = progress.durable_index {
            if self.model.last().is_none_or(|last| last.index < index) {
                return fail(format!("durable to {index}, beyond the end {:?}", self.model.last()));
            }
            self.model.durable = self.model.durable.max(Some(index));
        }
        for ticket in &progress.tickets {
            match self.promises.remove(ticket) {
                Some(Promise::Vote(vote, last)) => {
                    self.model.vote_durable = self.model.vote_durable.max(vote);
                    // The log as it was then, as far as it has not been truncated since.
                    let stands =
                        last.filter(|last| self.model.term_of(last.index) == Some(last.term));
                    self.model.durable = self.model.durable.max(stands.map(|last| last.index));
                }
                Some(Promise::Purge(id)) => {
                    self.model.purged_durable = self.model.purged_durable.max(Some(id));
                }
                Some(Promise::Install(id)) => {
                    self.before_install = None;
                    self.model.purged_durable = self.model.purged_durable.max(Some(id));
                }
                Some(Promise::Floor) | None => {}
            }
        }
        if let Some(index) = progress.checkpoint {
            self.model.checkpoint_durable = self.model.checkpoint_durable.max(Some(index));
        }
        Ok(())
    }

    fn vote(&mut self) {
        self.model.vote_written += 1;
        self.votes += 1;
        let vote = self.model.vote_written;
        let ticket = self.log().append_vote(&vote.to_le_bytes());
        let last = self.model.live.last_key_value();
        let last = last.map(|(index, (term, _))| EntryId { term: *term, index: *index });
        self.promises.insert(ticket, Promise::Vote(vote, last));
    }

    /// A new leader disagrees from somewhere behind the committed entries.
    fn truncate(&mut self) {
        let floor = self.model.committed.max(self.model.purged_written.map(|id| id.index));
        let Some(last) = self.model.last().map(|id| id.index) else { return };
        let from = floor.map_or(0, |floor| floor + 1);
        if from > last || self.random.below(2) == 0 {
            return;
        }
        let cut = from + self.random.below(last - from + 1);
        let keep = cut.checked_sub(1);
        self.log().truncate_after(keep);
        self.model.truncate_after(keep);
        // Whether the snapshot on its way makes it or not, what disagreed may be gone.
        if let Some(before) = &mut self.before_install {
            before.durable = before.durable.min(keep);
            before.live.retain(|index, _| Some(*index) <= keep);
        }
        self.truncations += 1;
    }

    /// Consensus commits; a leader with a quorum elsewhere may be ahead of this disk.
    fn commit(&mut self) {
        let Some(last) = self.model.last().map(|id| id.index) else { return };
        let ahead = self.random.below(3) == 0;
        let upto = if ahead { Some(last) } else { self.model.durable };
        let from = self.model.committed.map_or(0, |committed| committed + 1);
        let Some(upto) = upto.filter(|upto| *upto >= from) else { return };
        let committed = from + self.random.below(upto - from + 1);
        self.apply(committed);
    }

    /// Applies everything up to `committed`, in order.
    fn apply(&mut self, committed: u64) {
        let from = self.model.committed.map_or(0, |committed| committed + 1);
        for index in from..=committed {
            if let Some(term) = self.model.term_of(index) {
                self.log().index_add(run(EntryId { term, index }));
            }
        }
        self.model.committed = Some(committed);
        let term = self.model.term_of(committed);
        self.log().save_committed(term.map(|term| EntryId { term, index: committed }));
    }

    /// Seal, apply, checkpoint; the sync between is the log's to see to.
    fn checkpoint(&mut self) {
        let is_new = |index: &u64| Some(*index) > self.checkpointed;
        let seals = self.model.live.iter().filter(|(_, (_, kind))| *kind == EntryKind::Seal);
        let Some(seal) = seals.map(|(index, _)| *index).find(is_new) else { return };
        if Some(seal) > self.model.committed {
            self.apply(seal);
        }
        let id = EntryId { term: self.model.term_of(seal).unwrap(), index: seal };
        let full = self.checkpoints_taken.is_multiple_of(3);
        self.log().checkpoint(checkpoint(id, full)).unwrap();
        self.checkpoints_taken += 1;
        self.checkpointed = Some(seal);
    }

    /// The oldest segments go, up to a durable checkpoint.
    fn purge(&mut self) {
        let held: Vec<EntryId> = self.log().checkpoints().collect();
        let keep = 1 + self.random.below(3) as usize;
        let Some(id) = held.len().checked_sub(keep + 1).map(|nth| held[nth]) else { return };
        if Some(id) <= self.model.purged_written {
            return;
        }
        let floor = self.log().set_floor(id);
        self.promises.insert(floor, Promise::Floor);
        let ticket = self.log().purge(id);
        self.model.purged_written = Some(id);
        self.model.live.retain(|index, _| *index > id.index);
        self.promises.insert(ticket, Promise::Purge(id));
        self.purges += 1;
    }

    /// A leader sends its snapshot: beyond this log, or somewhere behind what is applied here, where
    /// it may agree with the log or not.
    fn install(&mut self) {
        let Some(last) = self.model.last() else { return };
        if self.before_install.is_some() || self.random.below(3) > 0 {
            return;
        }
        let from = self.model.committed.map_or(0, |committed| committed + 1);
        let index = from + self.random.below(last.index.saturating_sub(from) + 20);
        let held = self.model.term_of(index).filter(|_| self.random.below(2) == 0);
        self.model.term += 1;
        let id = EntryId { term: held.unwrap_or(self.model.term), index };
        self.model.term += 1;
        self.before_install = Some(Box::new(self.model.clone()));
        let ticket = self.log().install(checkpoint(id, true));
        self.promises.insert(ticket, Promise::Install(id));
        let model = &mut self.model;
        if held.is_some() {
            model.live.retain(|held, _| *held > index);
        } else {
            model.live.clear();
        }
        model.purged_written = Some(id);
        model.committed = Some(index);
        // Not durable yet, but nothing behind it is acknowledged before it is.
        model.durable = model.durable.filter(|_| held.is_some()).max(Some(index));
        self.checkpointed = Some(index);
        self.checkpoints_taken = 1;
        self.installs += 1;
    }

    /// Somebody starts to read an applied entry, slowly.
    fn hold(&mut self) {
        let Some(first) = self.model.live.first_key_value().map(|(index, _)| *index) else {
            return;
        };
        let last = self.model.last().map_or(first, |last| last.index);
        let span = if self.random.below(2) == 0 { 1 } else { last - first + 1 };
        let index = first + self.random.below(span);
        let id = EntryId { term: self.model.term_of(index).unwrap(), index };
        let entry = self.log().entry(index).expect("a live entry can be read");
        self.held.push((entry.payload, id));
    }

    fn check_held(&mut self) -> Result<(), String> {
        for (bytes, id) in &self.held {
            if bytes != &payload(*id) {
                return fail(format!("entry {id} changed under its reader"));
            }
        }
        let keep = self.held.len() / 2;
        self.held.truncate(keep);
        Ok(())
    }

    /// The power goes off, or only the process dies; both are recovered twice, the second time after
    /// a cut during or right after recovery.
    pub fn cut_and_recover(&mut self) -> Result<(), String> {
        self.check_held()?;
        self.job = None;
        let kill = !self.disk.is_off() && self.random.below(4) == 0;
        self.log = None;
        if kill {
            self.disk.kill_process();
        } else {
            self.disk.power_on();
        }
        self.cuts += 1;
        // A second cut somewhere during recovery.
        let steps = self.random.below(40);
        self.disk.cut_at_step(steps);
        let first = self.open();
        // What the cut hit last may have been a thing that a log can start without.
        let first = if self.disk.is_off() { first.and_then(|_| fail("off")) } else { first };
        match &first {
            Err(error) if !self.disk.is_off() => return fail(format!("does not open: {error}")),
            _ => {}
        }
        let was_open = first.is_ok();
        let before = match first {
            Ok((log, recovered)) => Some(self.check(&log, &recovered, kill)?),
            Err(_) => None,
        };
        self.disk.power_on();
        let (mut log, recovered) =
            self.open().or_else(|error| fail(format!("does not open again: {error}")))?;
        let after = self.check(&log, &recovered, false)?;
        if let Some(before) = before.filter(|before| was_open && *before != after) {
            return fail(format!("recovered {before:?}, and after another cut {after:?}"));
        }
        self.adopt(&mut log, &recovered);
        self.before_install = None;
        self.promises.clear();
        self.held.clear();
        self.log = Some(log);
        Ok(())
    }

    /// Checks everything that was promised. Answers the log's identity and the vote.
    fn check(
        &self,
        log: &Log<SimDisk>,
        recovered: &Recovered,
        kill: bool,
    ) -> Result<(Vec<EntryId>, Vec<u8>), String> {
        // A snapshot on its way is there with all that comes with it, or not at all.
        let missed = self.before_install.as_deref().filter(|_| log.purged() != self.installing());
        let model = missed.unwrap_or(&self.model);
        if !recovered.report.damage.is_empty() {
            return fail(format!("damage where only power was cut: {:?}", recovered.report));
        }
        let purged = log.purged();
        if purged < model.purged_durable || purged > model.purged_written {
            return fail(format!("purged {purged:?}, durably {:?}", model.purged_durable));
        }
        let last = log.last();
        let durable = model.durable.max(purged.map(|id| id.index));
        let durable = if kill { model.last().map(|id| id.index).max(durable) } else { durable };
        if last.map(|id| id.index) < durable {
            return fail(format!("ends at {last:?}, acknowledged to {durable:?}"));
        }
        let vote = log.vote();
        let voted = vote.try_into().map_or(0, u64::from_le_bytes);
        if voted < model.vote_durable || voted > model.vote_written {
            return fail(format!("vote {voted}, acknowledged {}", model.vote_durable));
        }
        let first = purged.map_or(0, |id| id.index + 1);
        let mut before = purged;
        let mut entries = Vec::new();
        for index in first..last.map_or(0, |id| id.index + 1) {
            let entry =
                log.entry(index).or_else(|error| fail(format!("entry {index}: {error}")))?;
            let id = entry.id();
            if entry.payload != payload(id) {
                return fail(format!("entry {id} has other bytes"));
            }
            if Some(index) <= durable && model.term_of(index).is_some_and(|term| term != id.term) {
                return fail(format!(
                    "acknowledged {:?}-{index} is now {id}",
                    model.term_of(index)
                ));
            }
            let known = match before {
                // Also behind a snapshot that did not make it, where that agreed with the log.
                Some(before) => self.model.was_appended(before.term, id),
                None => self.model.was_ever(id),
            };
            if !known {
                return fail(format!("entry {id} was never appended behind {before:?}"));
            }
            before = Some(id);
            entries.push(id);
        }
        check_checkpoints(model, log, recovered)?;
        Ok((entries, vote.to_vec()))
    }

    fn installing(&self) -> Option<EntryId> {
        self.promises.values().find_map(|promise| match promise {
            Promise::Install(id) => Some(*id),
            _ => None,
        })
    }

    /// Goes on from what came back: all of it is durable now.
    fn adopt(&mut self, log: &mut Log<SimDisk>, recovered: &Recovered) {
        let entries = log.first_index().map_or(0..0, |first| first..log.last().unwrap().index + 1);
        let model = &mut self.model;
        model.live.clear();
        for entry in log.entries(entries, u64::MAX).unwrap() {
            model.live.insert(entry.index, (entry.term, entry.kind));
        }
        model.durable = log.last().map(|id| id.index);
        model.purged_written = log.purged();
        model.purged_durable = log.purged();
        model.vote_durable = log.vote().try_into().map_or(0, u64::from_le_bytes);
        model.vote_written = model.vote_durable;
        model.term += 1;
        let checkpoint = recovered.checkpoints.last().map(|data| data.index);
        model.checkpoint_durable = checkpoint;
        // Whoever held what this disk lost of the committed entries is asked for it again.
        let committed = model.committed.min(model.durable).max(checkpoint);
        model.committed = committed;
        self.checkpointed = checkpoint;
        self.checkpoints_taken = if checkpoint.is_some() { self.checkpoints_taken } else { 0 };
        let from = checkpoint.map_or(0, |index| index + 1);
        for index in from..committed.map_or(0, |index| index + 1) {
            if let Some(term) = self.model.term_of(index) {
                log.index_add(run(EntryId { term, index }));
            }
        }
    }
}

fn check_checkpoints(
    model: &Model,
    log: &Log<SimDisk>,
    recovered: &Recovered,
) -> Result<(), String> {
    let newest = recovered.checkpoints.last().map(|data| data.index);
    if newest < model.checkpoint_durable {
        return fail(format!("checkpoint {newest:?}, durably {:?}", model.checkpoint_durable));
    }
    for data in &recovered.checkpoints {
        if *data != checkpoint(data.id(), data.full) {
            return fail(format!("checkpoint {} has other content", data.index));
        }
    }
    if let Some(purged) = log.purged() {
        let floor = log.floor();
        if floor.is_none_or(|floor| floor < purged) {
            return fail(format!("purged to {purged}, the snapshot is {floor:?}"));
        }
        log.checkpoint_at(floor.unwrap().index).or_else(|error| fail(error.to_string()))?;
    }
    // What lies between the purge point and the checkpoint is found by its queue.
    let first = log.purged().map_or(0, |id| id.index + 1);
    for index in first..newest.map_or(0, |index| index + 1) {
        let Some(term) = log.term_of(index) else { continue };
        let expected = run(EntryId { term, index });
        let found = log.runs(expected.queue, expected.base, 1);
        if found.first() != Some(&expected) {
            return fail(format!("entry {index} is not in the index: {found:?}"));
        }
        let bytes = log.slice(&expected).or_else(|error| fail(error.to_string()))?;
        if bytes != payload(EntryId { term, index }) {
            return fail(format!("the run of entry {index} has other bytes"));
        }
    }
    Ok(())
}

/// Runs `rounds` cuts; the error says how to run it again.
pub fn torture(seed: u64, rounds: u64, without: Option<OrderRule>) -> Result<Harness, String> {
    let mut harness = Harness::new(seed, without);
    for round in 0..rounds {
        let steps = 40 + harness.random.below(400);
        let cut = harness.disk.steps() + harness.random.below(steps * 3);
        harness.disk.cut_at_step(cut);
        for _ in 0..steps {
            let alive =
                harness.step().map_err(|error| format!("seed {seed} round {round}: {error}"))?;
            if !alive {
                break;
            }
        }
        harness.cut_and_recover().map_err(|error| format!("seed {seed} round {round}: {error}"))?;
    }
    Ok(harness)
}
