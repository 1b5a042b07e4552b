//! What must hold at every moment, one function each.

use std::collections::BTreeMap;

use grus_consensus::NodeId;
use grus_log::EntryKind;

use super::cluster::Receipt;
use super::machine::queue_key;
use super::member::{Member, Running};

/// What has been seen so far.
#[derive(Default)]
pub struct Checks {
    leaders: BTreeMap<u64, NodeId>,
    committed: BTreeMap<u64, (u64, u32)>,
    digests: BTreeMap<u64, u64>,
    /// Per member since its start: how far its committed entries were compared.
    compared: BTreeMap<NodeId, u64>,
    last_commit: BTreeMap<NodeId, u64>,
    receipts_checked: BTreeMap<(NodeId, u64), usize>,
}

type Found = Result<(), String>;
type Members = BTreeMap<NodeId, Member>;

impl Checks {
    /// A member's process is new: what it says may start again further back.
    pub fn restarted(&mut self, node: NodeId) {
        self.compared.remove(&node);
        self.last_commit.remove(&node);
        self.receipts_checked.retain(|(member, _), _| *member != node);
    }

    pub fn all(&mut self, members: &Members, receipts: &[Receipt]) -> Found {
        one_lease(members)?;
        for member in members.values().filter(|member| member.is_alive()) {
            let running = member.running.as_ref().unwrap();
            self.one_leader_per_term(member.node, running)?;
            self.commits_never_go_back(member.node, running)?;
            self.committed_entries_agree(member.node, running)?;
            self.equal_states_at_equal_entries(member.node, running)?;
            self.leaders_hold_what_was_acknowledged(member.node, running, receipts)?;
            positions_are_in_order(member.node, running)?;
            snapshot_is_the_purge_point(member.node, running)?;
        }
        Ok(())
    }

    fn one_leader_per_term(&mut self, node: NodeId, running: &Running) -> Found {
        let status = running.group.status();
        if !status.is_leader {
            return Ok(());
        }
        let first = *self.leaders.entry(status.term).or_insert(node);
        ensure(first == node, || format!("term {} has leaders {first} and {node}", status.term))
    }

    fn commits_never_go_back(&mut self, node: NodeId, running: &Running) -> Found {
        let Some(now) = running.group.status().committed else { return Ok(()) };
        let before = self.last_commit.insert(node, now);
        ensure(before.is_none_or(|before| before <= now), || {
            format!("member {node} went back from commit {before:?} to {now}")
        })
    }

    /// Wherever two members have committed an entry, it is the same entry.
    fn committed_entries_agree(&mut self, node: NodeId, running: &Running) -> Found {
        let log = running.log.borrow();
        let Some(applied) = running.group.status().applied else { return Ok(()) };
        let first = log.purged().map_or(0, |purged| purged.index + 1);
        let from = self.compared.get(&node).map_or(first, |compared| first.max(compared + 1));
        if from > applied {
            return Ok(());
        }
        let entries = log.entries(from..applied + 1, u64::MAX);
        let entries = entries.map_err(|error| format!("member {node} cannot read: {error}"))?;
        for entry in entries {
            let crc = crc32c::crc32c(&entry.payload);
            let ours = (entry.term, crc ^ kind_code(entry.kind));
            let first = *self.committed.entry(entry.index).or_insert(ours);
            ensure(first == ours, || {
                format!("member {node} has {ours:?} at {}, was {first:?}", entry.index)
            })?;
        }
        self.compared.insert(node, applied);
        Ok(())
    }

    /// Whoever has applied the same entries has the same state.
    fn equal_states_at_equal_entries(&mut self, node: NodeId, running: &Running) -> Found {
        use grus_consensus::StateMachine as _;
        let Some(applied) = running.group.status().applied else { return Ok(()) };
        let digest = running.machine.borrow().digest();
        let first = *self.digests.entry(applied).or_insert(digest);
        ensure(first == digest, || format!("member {node} has another state at {applied}"))
    }

    /// A leader that is ready has every entry that was ever acknowledged.
    fn leaders_hold_what_was_acknowledged(
        &mut self,
        node: NodeId,
        running: &Running,
        receipts: &[Receipt],
    ) -> Found {
        let status = running.group.status();
        if !status.ready {
            return Ok(());
        }
        let log = running.log.borrow();
        let purged = log.purged().map(|purged| purged.index);
        let checked = self.receipts_checked.entry((node, status.term)).or_default();
        for receipt in &receipts[*checked..] {
            // A leader that was cut off knows nothing of those after it.
            let later = receipt.term > status.term;
            if later || purged.is_some_and(|purged| receipt.index <= purged) {
                continue;
            }
            let Receipt { id, index, term, .. } = receipt;
            let entries = log.entries(*index..index + 1, u64::MAX).unwrap_or_default();
            let found = entries.first().map(|entry| entry.term);
            ensure(found == Some(*term), || {
                format!("leader {node} lost message {id}: entry {index} is {found:?}, not {term}")
            })?;
        }
        *checked = receipts.len();
        Ok(())
    }
}

/// At most one member may deliver at any moment.
fn one_lease(members: &Members) -> Found {
    let alive = members.values().filter(|member| member.is_alive());
    let holds = |member: &&Member| !member.group().unwrap().status().lease_left.is_zero();
    let holders: Vec<NodeId> = alive.filter(holds).map(|member| member.node).collect();
    ensure(holders.len() <= 1, || format!("members {holders:?} hold the lease at once"))
}

fn positions_are_in_order(node: NodeId, running: &Running) -> Found {
    let s = running.group.status();
    ensure(s.applied <= s.last && s.purged <= s.applied && s.durable <= s.last, || {
        format!("member {node} has its positions in disorder: {s:?}")
    })
}

/// The snapshot is never newer than the purge point by more than the one step of a promotion,
/// and never older.
fn snapshot_is_the_purge_point(node: NodeId, running: &Running) -> Found {
    let log = running.log.borrow();
    let (floor, purged) = (log.floor().map(|id| id.index), log.purged().map(|id| id.index));
    ensure(purged <= floor, || format!("member {node} purged {purged:?} beyond {floor:?}"))
}

/// Every retained message on one member: found by its queue and offset, whole by its checksum.
pub fn read_everything(node: NodeId, running: &Running, receipts: &[Receipt]) -> Found {
    let log = running.log.borrow();
    let purged = log.purged().map(|id| id.index);
    let retained =
        receipts.iter().filter(|receipt| purged.is_none_or(|purged| receipt.index > purged));
    for receipt in retained {
        let placed = receipt.placed;
        let offset = grus_protocol::ids::Offset(placed.offset);
        let runs = log.runs(queue_key(placed.queue), offset, 1);
        let run = runs.first().filter(|run| run.base == offset);
        let run = run.ok_or_else(|| format!("member {node} has no run for {receipt:?}"))?;
        let bytes = log.slice(run).map_err(|error| format!("member {node}: {error}"))?;
        ensure(crc32c::crc32c(&bytes) == placed.crc, || {
            format!("member {node} has other bytes for {receipt:?}")
        })?;
    }
    Ok(())
}

fn kind_code(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::Blank => 0,
        EntryKind::Membership => 1,
        EntryKind::Normal => 2,
        EntryKind::Seal => 3,
        EntryKind::Lost => 4,
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(what()) }
}
