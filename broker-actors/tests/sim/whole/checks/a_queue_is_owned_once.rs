//! A generation of a group gives a queue to one member, on whichever replica; the generation that holds it grows;
//! and nobody is sent messages of it once a later generation has claimed it.

use std::collections::BTreeMap;

use grus_broker::machine::groups::progress::Progress;
use grus_consensus::NodeId;
use grus_protocol::ids::QueueKey;

use super::{Found, ensure};
use crate::groups::facts::Fact;

/// Who has held what.
#[derive(Default)]
pub(crate) struct Owners {
    /// The member by queue and generation.
    members: BTreeMap<(QueueKey, u64), u64>,
    /// The generation that each member of the shard has, since its start.
    newest: BTreeMap<(NodeId, QueueKey), u64>,
    /// The newest generation of which it was told that it has the queue.
    told: BTreeMap<QueueKey, u64>,
}

impl Owners {
    pub(crate) fn restarted(&mut self, node: NodeId) {
        self.newest.retain(|(member, _), _| *member != node);
    }

    /// What a replica says of a queue.
    pub(crate) fn progress(&mut self, node: NodeId, queue: QueueKey, numbers: &Progress) -> Found {
        let (generation, member) = (numbers.generation.0, numbers.member.0);
        self.belongs(queue, generation, member)?;
        let before = self.newest.insert((node, queue), generation);
        ensure(before.is_none_or(|before| before <= generation), || {
            format!("member {node}: {queue} goes from generation {before:?} back to {generation}")
        })
    }

    fn belongs(&mut self, queue: QueueKey, generation: u64, member: u64) -> Found {
        let first = *self.members.entry((queue, generation)).or_insert(member);
        ensure(first == member, || {
            format!("generation {generation} gives {queue} to {first} and to {member}")
        })
    }

    pub(crate) fn fact(&mut self, fact: &Fact) -> Found {
        match fact {
            Fact::Claimed { by, .. } => {
                self.belongs(by.queue, by.generation, by.member)?;
                let told = self.told.entry(by.queue).or_default();
                *told = by.generation.max(*told);
                Ok(())
            }
            Fact::Delivered { by, .. } => {
                self.belongs(by.queue, by.generation, by.member)?;
                let told = self.told.get(&by.queue).copied().unwrap_or(0);
                ensure(by.generation >= told, || {
                    format!("two owners: {by:?} is sent messages, generation {told} has the queue")
                })
            }
            _ => Ok(()),
        }
    }
}
