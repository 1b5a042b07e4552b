//! What a shard is asked from outside, and what of it becomes an item.

use grus_consensus::Standing;
use grus_log::Disk;
use grus_mailbox::{Credit, Room};
use grus_protocol::ids::{Durability, Term};
use grus_registry::draw_number;

use super::waiter::Rest;
use super::{
    InitializedProducer, Propose, ShardActor, ShardRequest, ShardStatus, Stage, TopicConfig, Waiter,
};
use crate::commands::Command;
use crate::error::QueueError;

/// What tells the identities of a shard whose log begins from those of a log that it has lost. One of several
/// members gets its log back from the others, and these may be of a build that does not know the entry with a salt.
fn first_salt(is_alone: bool) -> u16 {
    let drawn = || u16::try_from(draw_number() & u64::from(u16::MAX)).unwrap_or(0).max(1);
    if is_alone { drawn() } else { 0 }
}

impl<D: Disk> ShardActor<D> {
    pub(super) fn request(
        &mut self,
        request: ShardRequest,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let (command, waiter) = match request {
            ShardRequest::OpenTopic { config, reply } => {
                let topic = config.topic;
                drop(self.look_at_leader());
                if !self.ground.leads.get() {
                    let leader = self.ground.leader.get();
                    return reply.send(Err(QueueError::NotLeader { leader }));
                }
                if config.durability != self.ground.durability {
                    return reply.send(Err(QueueError::WrongShard));
                }
                if self.is_open(&config) {
                    return self.finish(Rest::Open(topic, reply));
                }
                (Command::TopicConfig(config), Waiter::OpenTopic { topic, reply })
            }
            ShardRequest::DropTopic { reply, .. } if !self.ground.complete.get() => {
                return reply.send(Err(QueueError::StorageFull));
            }
            ShardRequest::DropTopic { topic, reply } => {
                if self.ground.machine.borrow().state.topic(topic).is_none() {
                    return reply.send(Ok(()));
                }
                if !self.ground.leads.get() {
                    let leader = self.ground.leader.get();
                    return reply.send(Err(QueueError::NotLeader { leader }));
                }
                (Command::TopicDrop { topic }, Waiter::DropTopic { topic, reply })
            }
            ShardRequest::InitProducer { reply, .. }
                if self.ground.durability != Durability::Persisted =>
            {
                return reply.send(Err(QueueError::WrongShard));
            }
            ShardRequest::InitProducer { name, reply } => {
                let is_first = !self.ground.machine.borrow().state.has_given_identities();
                let is_alone = self.ground.lease.get().is_none();
                let salt = if is_first { first_salt(is_alone) } else { 0 };
                (Command::InitProducer { name, salt }, Waiter::InitProducer { reply })
            }
            ShardRequest::Fence { producer: InitializedProducer { producer, epoch }, reply } => {
                (Command::Fence { producer, epoch }, Waiter::Fence { reply })
            }
            ShardRequest::Schedule(ask) => return self.schedule(ask, credit, room),
            ShardRequest::GroupProgress { group, after, most, reply } => {
                return reply.send(self.group_progress(group, after, most));
            }
            ShardRequest::GroupSums { from, is_one, reply } => {
                return reply.send(self.group_sums(from, is_one));
            }
            ShardRequest::ListTopics { reply } => {
                let topics = self.ground.machine.borrow().state.topics().cloned().collect();
                return reply.send(topics);
            }
            ShardRequest::Find { by, messages_max, reply } => {
                return self.find(by, messages_max, reply);
            }
            ShardRequest::ListGroups { reply } => return reply.send(self.groups.summaries()),
            ShardRequest::Status { reply } => return reply.send(self.status()),
        };
        if self.stage == Stage::Serving {
            self.propose(Propose::new(&command, waiter), credit, room);
        } else {
            waiter.fail(QueueError::Stopping);
        }
    }

    /// Whether the topic is there with these settings or newer ones, and at least these queues.
    fn is_open(&self, config: &TopicConfig) -> bool {
        let machine = self.ground.machine.borrow();
        machine.state.topic(config.topic).is_some_and(|known| {
            let queues = known.queues.clone();
            config.queues.iter().all(|queue| queues.contains(queue))
                && (known.altered > config.altered
                    || *known == TopicConfig { queues, ..config.clone() })
        })
    }

    fn status(&self) -> ShardStatus {
        let group = self.group.status();
        let log = self.ground.log.borrow();
        let stats = log.stats();
        ShardStatus {
            shard: self.ground.shard,
            durability: self.ground.durability,
            is_ready: group.ready,
            is_replicated: self.leading.is_some(),
            leader: group.leader,
            term: Term(group.term),
            // Said of the term above: what was noted may be of the one before.
            leads: group.ready && self.ground.leads.get(),
            is_amnesiac: group.standing != Standing::Sound,
            lags: self.group.lags(),
            last_index: group.last,
            applied_index: group.applied,
            synced_index: log.synced_index(),
            purged_index: group.purged,
            disk_full: log.is_disk_full(),
            queues: self.queues.len(),
            waiting_bytes: self.gather.waiting_bytes(),
            temporary_bytes: self.ground.rings.borrow().held_bytes(),
            segments: stats.segments,
            log_bytes: stats.bytes,
            damaged_entries: stats.damaged_entries,
            unchecked_segments: stats.unchecked_segments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shard_that_is_on_one_broker_writes_a_salt() {
        assert_ne!(first_salt(true), 0);
        assert_eq!(first_salt(false), 0);
    }
}
