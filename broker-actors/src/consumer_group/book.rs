//! What the log says of a group: members, generation, and who has which queue. Changed only by
//! [`Change`]s that are applied. Pure.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::{Generation, MemberId, QueueKey};

use super::records::{Head, MemberRecord};

/// Who has a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The member.
    pub member: MemberId,
    /// Since which generation.
    pub generation: Generation,
}

/// One entry about a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The generation that it begins.
    pub generation: Generation,
    /// What the group as a whole remembers, if that is new.
    pub head: Option<Head>,
    /// Members that are new, or want something else.
    pub members_set: Vec<(MemberId, MemberRecord)>,
    /// Members that are none any more.
    pub members_gone: Vec<MemberId>,
    /// Queues that are a member's from this generation on, or nobody's.
    pub grants: Vec<(QueueKey, Option<MemberId>)>,
}

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    head: Head,
    generation: Generation,
    members: BTreeMap<MemberId, MemberRecord>,
    grants: BTreeMap<QueueKey, Grant>,
    /// Derived: the queues of each member that has any.
    held: BTreeMap<MemberId, BTreeSet<QueueKey>>,
    /// Derived: who bears a session, or a stable name.
    sessions: BTreeMap<u64, MemberId>,
}

impl Book {
    /// The book as the state machine has it.
    #[must_use]
    pub fn restored(
        head: Head,
        generation: Generation,
        members: BTreeMap<MemberId, MemberRecord>,
        grants: BTreeMap<QueueKey, Grant>,
    ) -> Self {
        let mut held: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (queue, grant) in &grants {
            held.entry(grant.member).or_default().insert(*queue);
        }
        let sessions = members.iter().map(|(id, record)| (record.session, *id)).collect();
        Self { head, generation, members, grants, held, sessions }
    }

    /// What the group as a whole remembers.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The newest generation.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The members, by id.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<MemberId, MemberRecord> {
        &self.members
    }

    /// Who has which queue.
    #[must_use]
    pub const fn grants(&self) -> &BTreeMap<QueueKey, Grant> {
        &self.grants
    }

    /// The queues of a member.
    pub fn held_by(&self, member: MemberId) -> impl Iterator<Item = QueueKey> {
        self.held.get(&member).into_iter().flatten().copied()
    }

    /// The member of a session.
    #[must_use]
    pub fn of_session(&self, session: u64) -> Option<MemberId> {
        self.sessions.get(&session).copied()
    }

    /// An entry is applied.
    ///
    /// # Panics
    /// When it does not begin a newer generation: the log has refused it then.
    pub fn apply(&mut self, change: &Change) {
        assert!(change.generation > self.generation, "generations go on");
        self.generation = change.generation;
        if let Some(head) = &change.head {
            self.head = head.clone();
        }
        for member in &change.members_gone {
            if let Some(record) = self.members.remove(member)
                && self.sessions.get(&record.session) == Some(member)
            {
                self.sessions.remove(&record.session);
            }
        }
        for (member, record) in &change.members_set {
            self.sessions.insert(record.session, *member);
            self.members.insert(*member, record.clone());
        }
        for (queue, member) in &change.grants {
            self.take(*queue);
            let Some(member) = *member else { continue };
            let generation = change.generation;
            self.grants.insert(*queue, Grant { member, generation });
            self.held.entry(member).or_default().insert(*queue);
        }
    }

    fn take(&mut self, queue: QueueKey) {
        let Some(old) = self.grants.remove(&queue) else { return };
        if let Some(held) = self.held.get_mut(&old.member) {
            held.remove(&queue);
            if held.is_empty() {
                self.held.remove(&old.member);
            }
        }
    }
}

impl Change {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { generation: _, head, members_set, members_gone, grants } = self;
        head.is_none() && members_set.is_empty() && members_gone.is_empty() && grants.is_empty()
    }
}
