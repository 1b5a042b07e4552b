//! Applying committed entries: what an entry does to the machine and to consensus's own state.
//!
//! Everything here is a function of the entry and the state, so that replicas stay alike. What
//! cannot be applied is a [`Fault`] that stops the replica; skipping it would make it differ.

use std::ops::RangeInclusive;

use bytes::Bytes;
use grus_log::Part;
use openraft::entry::RaftEntry as _;

use crate::codec::encode_stored_membership;
use crate::fault::Fault;
use crate::machine::{AppliedReply, ApplyContext, IndexSink, Item, MACHINE_KIND_MIN, StateMachine};
use crate::own::{self, OWN_KEY, OwnState, SealPoint};
use crate::payload::{self, Command, RawItem};
use crate::snapshot::SnapshotData;
use crate::types::{LogId, Outcome, Payload, RaftEntry, StoredMembership, log_id_parts};

/// What has been applied, next to the machine itself.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The last entry applied.
    pub(crate) last: Option<LogId>,
    /// The last membership applied.
    pub(crate) membership: StoredMembership,
    /// Consensus's own state.
    pub(crate) own: OwnState,
    /// The last seal applied and the digest of the state right after it.
    pub(crate) sealed: Option<(SealPoint, u64)>,
    /// The checkpoint that is being encoded.
    sealing: Option<Sealing>,
    /// Bytes of the last full checkpoint, and of all deltas since.
    checkpoint_bytes: Option<(usize, usize)>,
    /// Entries whose digests were made with others that the operator has given up since.
    pub(crate) doubtful: Option<RangeInclusive<u64>>,
}

/// A checkpoint that is being encoded, slice by slice.
#[derive(Debug)]
struct Sealing {
    point: SealPoint,
    full: bool,
    membership: Bytes,
    own: Bytes,
    parts: Vec<Part>,
}

/// A checkpoint to be written: the state right after a Seal entry.
#[derive(Debug)]
pub(crate) struct SealedState {
    pub(crate) point: SealPoint,
    pub(crate) full: bool,
    pub(crate) membership: Bytes,
    pub(crate) parts: Vec<Part>,
    pub(crate) digest: u64,
}

impl Applied {
    /// Applies one entry. A Seal begins a checkpoint ([`Applied::seal_slice`]); the one before must
    /// be over.
    pub(crate) fn apply<S: StateMachine>(
        &mut self,
        entry: RaftEntry,
        machine: &mut S,
        index: &mut dyn IndexSink,
        level_max: u16,
    ) -> Result<Outcome<S::Reply>, Fault> {
        let id = entry.log_id();
        let outcome = match entry.payload {
            Payload::Blank => Outcome::Nothing,
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                Outcome::Nothing
            }
            Payload::Normal(command) => {
                let seal = command.seal;
                let outcome = self.apply_command(id, &command, machine, index, level_max)?;
                if seal {
                    self.begin_seal(id, machine);
                }
                outcome
            }
        };
        self.last = Some(id);
        Ok(outcome)
    }

    fn apply_command<S: StateMachine>(
        &mut self,
        id: LogId,
        command: &Command,
        machine: &mut S,
        sink: &mut dyn IndexSink,
        level_max: u16,
    ) -> Result<Outcome<S::Reply>, Fault> {
        let (term, index) = log_id_parts(&id);
        let (time, items) =
            payload::decode(&command.contiguous()).map_err(|error| Fault::payload(index, error))?;
        let context = ApplyContext { term, index, time: self.own.entry_time(time) };
        let mut replies = Vec::new();
        for RawItem { kind, byte, bytes } in items {
            if kind < MACHINE_KIND_MIN {
                self.apply_own(index, kind, bytes, level_max)?;
            } else if machine.knows(kind, self.own.level) {
                let item = Item { kind, byte, bytes };
                replies.push(machine.apply(&context, item, sink));
            } else {
                return Err(Fault::UnknownItem { index, kind, level: self.own.level });
            }
        }
        machine.entry_applied(&context);
        Ok(Outcome::Applied(AppliedReply { term, index, time: context.time, replies }))
    }

    fn apply_own(
        &mut self,
        index: u64,
        kind: u16,
        bytes: Bytes,
        level_max: u16,
    ) -> Result<(), Fault> {
        let bad = |error| Fault::codec(index, error);
        match kind {
            own::KIND_DIGEST => {
                let (point, theirs) = own::read_digest_item(bytes).map_err(bad)?;
                if self.doubtful.as_ref().is_some_and(|doubtful| doubtful.contains(&index)) {
                    return Ok(());
                }
                self.compare(point, theirs)
            }
            own::KIND_TRIM => {
                self.own.trim_to(own::read_trim_item(bytes).map_err(bad)?);
                Ok(())
            }
            own::KIND_FEATURE_LEVEL => {
                let level = own::read_level_item(bytes).map_err(bad)?;
                if level > level_max {
                    return Err(Fault::FeatureLevel { index, level, level_max });
                }
                self.own.level = self.own.level.max(level);
                Ok(())
            }
            _ => Err(Fault::UnknownItem { index, kind, level: self.own.level }),
        }
    }

    fn compare(&self, point: SealPoint, theirs: u64) -> Result<(), Fault> {
        match self.sealed {
            Some((ours, digest)) if ours == point && digest == theirs => Ok(()),
            Some((ours, digest)) if ours == point => {
                Err(Fault::Diverged { index: point.index, ours: digest, theirs })
            }
            // Of another seal than our last one: two Seals were under way at once, or the operator
            // has accepted the loss of one. There is nothing to compare it with.
            _ => Ok(()),
        }
    }

    /// Fixes the state after the Seal entry `id`: the changed parts, or all of them when the
    /// changes since the last full one have grown to its size.
    fn begin_seal<S: StateMachine>(&mut self, id: LogId, machine: &mut S) {
        assert!(self.sealing.is_none(), "a checkpoint is over before the next Seal is applied");
        let (term, index) = log_id_parts(&id);
        let point = SealPoint { index, term };
        self.own.seals.push(point);
        let full = self.checkpoint_bytes.is_none_or(|(full, deltas)| deltas >= full);
        let mut parts = Vec::new();
        if !machine.freeze(full) {
            parts = machine.dirty_parts();
            if full {
                parts = machine.all_parts();
            }
        }
        let membership = encode_stored_membership(&self.membership);
        let own = self.own.encode();
        self.sealing = Some(Sealing { point, full, membership, own, parts });
        self.sealed = None;
    }

    /// Whether a checkpoint is being encoded.
    pub(crate) fn is_sealing(&self) -> bool {
        self.sealing.is_some()
    }

    /// Encodes the next slice of the checkpoint that has begun. The checkpoint, once that was the
    /// last one.
    pub(crate) fn seal_slice<S: StateMachine>(&mut self, machine: &mut S) -> Option<SealedState> {
        let sealing = self.sealing.as_mut()?;
        let digest = machine.frozen_parts(&mut sealing.parts)?;
        let Sealing { point, full, membership, own, mut parts } = self.sealing.take()?;
        let digest = whole_digest(digest, &own);
        let bytes = bytes_of(&parts);
        match &mut self.checkpoint_bytes {
            Some((_, deltas)) if !full => *deltas += bytes,
            sizes => *sizes = Some((bytes, 0)),
        }
        debug_assert!(
            parts.iter().all(|part| part.key.first() != Some(&0)),
            "keys that start with a zero byte are consensus's own"
        );
        parts.push(Part { key: Bytes::from_static(OWN_KEY), value: Some(own) });
        self.sealed = Some((point, digest));
        Some(SealedState { point, full, membership, parts, digest })
    }

    /// The next checkpoint holds everything, whatever has changed.
    pub(crate) fn next_is_full(&mut self) {
        self.checkpoint_bytes = None;
    }

    /// Digest of the machine and of consensus's own state.
    pub(crate) fn digest<S: StateMachine>(&self, machine: &S) -> u64 {
        whole_digest(machine.digest(), &self.own.encode())
    }

    /// Replaces everything by the state at `id`, and checks that it has the digest it came with.
    pub(crate) fn restore<S: StateMachine>(
        &mut self,
        id: LogId,
        membership: StoredMembership,
        mut data: SnapshotData,
        machine: &mut S,
    ) -> Result<(), Fault> {
        let (term, index) = log_id_parts(&id);
        let bad = |reason: String| Fault::Checkpoint { index, reason };
        let own = data.parts.remove(OWN_KEY).ok_or_else(|| bad("no group part".to_owned()))?;
        let own = OwnState::decode(own).map_err(|error| bad(error.to_string()))?;
        let parts = data.to_parts();
        let bytes = bytes_of(&parts);
        machine.restore(parts).map_err(|error| Fault::restore(index, &error))?;
        let applied = Applied {
            last: Some(id),
            membership,
            own,
            sealed: None,
            sealing: None,
            checkpoint_bytes: Some((bytes, 0)),
            doubtful: self.doubtful.take(),
        };
        let digest = applied.digest(machine);
        if digest != data.digest {
            let want = data.digest;
            return Err(bad(format!("digest is {digest:#018x}, should be {want:#018x}")));
        }
        *self = Applied { sealed: Some((SealPoint { index, term }, digest)), ..applied };
        Ok(())
    }
}

fn whole_digest(machine: u64, own: &Bytes) -> u64 {
    machine.rotate_left(32) ^ u64::from(crc32c::crc32c(own))
}

fn bytes_of(parts: &[Part]) -> usize {
    let value = |part: &Part| part.value.as_ref().map_or(0, Bytes::len);
    parts.iter().map(|part| part.key.len() + value(part)).sum()
}
