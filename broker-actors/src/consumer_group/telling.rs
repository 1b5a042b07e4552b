//! What is shown of a group. Pure.

use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey};
use grus_protocol::message::{DescribeGroupReply, GroupMember, GroupQueue};
use grus_protocol::names::GroupName;

use super::coordination::Coordination;

/// All that the coordinator knows.
pub fn description(
    name: &GroupName,
    group: GroupId,
    coordination: &Coordination,
) -> DescribeGroupReply {
    let book = coordination.book();
    let member = |(id, record): (&MemberId, &super::records::MemberRecord)| {
        let (last_seen, known) = coordination.heard(*id);
        GroupMember {
            member: *id,
            client_id: record.client_id.clone(),
            address: record.address.clone(),
            instance: record.instance.clone(),
            subscriptions: record.subscriptions.clone(),
            joined: record.joined,
            last_seen,
            known,
        }
    };
    DescribeGroupReply {
        group: name.clone(),
        group_id: group,
        settings: coordination.settings().clone(),
        generation: book.generation(),
        members: book.members().iter().map(member).collect(),
        queues: queues(coordination),
    }
}

fn queues(coordination: &Coordination) -> Vec<GroupQueue> {
    let field = coordination.field();
    let mut queues = Vec::with_capacity(field.len());
    for topic in field.topics() {
        for queue in &topic.queues {
            let key = QueueKey { topic: topic.id, queue: *queue };
            let grant = coordination.book().grants().get(&key);
            let member = grant.map(|grant| grant.member);
            let next = coordination.target().get(&key).copied();
            queues.push(GroupQueue {
                topic: topic.name.clone(),
                topic_id: topic.id,
                queue: *queue,
                member,
                generation: grant.map_or(Generation::NONE, |grant| grant.generation),
                next: next.filter(|next| Some(*next) != member),
            });
        }
    }
    queues.sort_by(|a, b| (&a.topic, a.queue).cmp(&(&b.topic, b.queue)));
    queues
}
