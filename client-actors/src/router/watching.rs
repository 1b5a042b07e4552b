//! Who wants to hear that routes have changed, and over which connection that is heard. Pure.
//!
//! One connection at a time tells the routes of all topics in use. What it tells is not trusted for
//! more than that something is new: the routes themselves are asked for, as they always are.

use std::collections::BTreeMap;

use grus_mailbox::Inbox;
use grus_protocol::TopicName;
use grus_protocol::message::RoutesChanged;

use super::Routed;
use crate::route::LinkId;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Watching {
    followers: BTreeMap<TopicName, Vec<Inbox<Routed>>>,
    /// The connection, its session, and how many topics it was asked to tell of.
    over: Option<(LinkId, u64, usize)>,
    /// What was heard last: which registry, and its version.
    heard: Option<(u64, u64)>,
    /// The version that was answered last, when it was asked for.
    answered: Option<u64>,
    /// What comes first over a connection is the whole of what is known there.
    stage: Stage,
}

/// What the next push is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The beginning of the whole.
    #[default]
    First,
    /// The rest of the whole, of a version that is known here already.
    Known,
    /// A change, or of a whole that has something new.
    Change,
}

impl Watching {
    /// `to` asks for the routes of a topic, and is to hear of their changes.
    pub(super) fn follow(&mut self, topic: &TopicName, to: &Inbox<Routed>) {
        let known = self.followers.entry(topic.clone()).or_default();
        known.retain(|other| !other.is_stopped());
        if !known.iter().any(|other| other.is_same(to)) {
            known.push(to.clone());
        }
    }

    /// Whether to ask the connection to tell of the topics in use now.
    pub(super) fn wants(&self, link: LinkId, session: u64) -> bool {
        let topics = self.followers.len();
        topics > 0 && self.over != Some((link, session, topics))
    }

    /// Which connection tells, and in which session.
    pub(super) fn over(&self) -> Option<(LinkId, u64)> {
        self.over.map(|(link, session, _)| (link, session))
    }

    /// The topics in use; the connection was asked to tell of them.
    pub(super) fn asked(&mut self, link: LinkId, session: u64) -> Vec<TopicName> {
        self.followers.retain(|_, followers| {
            followers.retain(|to| !to.is_stopped());
            !followers.is_empty()
        });
        self.over = Some((link, session, self.followers.len()));
        self.stage = Stage::First;
        self.followers.keys().cloned().collect()
    }

    /// Routes of this version were answered when they were asked for.
    pub(super) fn answered(&mut self, version: u64) {
        self.answered = Some(version);
    }

    /// Whom to tell the routes of which topic anew, as something about them has changed. Over another
    /// connection than before, too: what changed in between, nobody has told.
    pub(super) fn heard(&mut self, change: &RoutesChanged) -> Vec<(TopicName, Inbox<Routed>)> {
        let version = (change.registry, change.version);
        let is_same = match self.heard.replace(version) {
            Some(before) => before == version,
            None => self.answered == Some(change.version),
        };
        let stage = match self.stage {
            Stage::First if is_same => Stage::Known,
            Stage::First => Stage::Change,
            stage => stage,
        };
        self.stage = if stage == Stage::Known && change.more { stage } else { Stage::Change };
        let says_nothing = !change.more && change.topics.is_empty() && change.gone.is_empty();
        if stage == Stage::Known || (is_same && says_nothing) {
            return Vec::new();
        }
        let brokers_changed = !change.brokers.is_empty() || !change.shards.is_empty();
        let concerns = |name: &TopicName| {
            brokers_changed
                || change.topics.iter().any(|topic| topic.name == *name)
                || change.gone.contains(name)
        };
        let told = self.followers.iter().filter(|(name, _)| concerns(name));
        told.flat_map(|(name, to)| to.iter().map(|to| (name.clone(), to.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use grus_mailbox::outlet;
    use grus_protocol::BrokerId;
    use grus_protocol::message::BrokerState;

    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::try_from(text).unwrap()
    }

    fn change(version: u64, brokers: usize) -> RoutesChanged {
        let broker =
            BrokerState { id: BrokerId(1), host: "h".into(), port: 1, live: false, disk: 0 };
        RoutesChanged {
            registry: 7,
            version,
            whole: version == 1,
            more: false,
            brokers: vec![broker; brokers],
            shards: Vec::new(),
            topics: Vec::new(),
            gone: Vec::new(),
        }
    }

    #[test]
    fn those_who_follow_are_told_of_what_concerns_them_and_once_each() {
        let mut watching = Watching::default();
        let (link, session) = (LinkId(0), 3);
        assert!(!watching.wants(link, session), "nobody follows anything");
        let (to, _kept) = outlet(1);
        watching.follow(&name("a"), &to);
        watching.follow(&name("a"), &to.clone());
        watching.follow(&name("b"), &to);
        assert!(watching.wants(link, session));
        assert_eq!(watching.asked(link, session), [name("a"), name("b")]);
        assert!(!watching.wants(link, session) && watching.wants(link, session + 1));
        watching.answered(1);
        assert!(watching.heard(&change(1, 1)).is_empty(), "what is known already");
        let told: Vec<_> =
            watching.heard(&change(2, 1)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(told, [name("a"), name("b")], "brokers concern all");
        assert!(watching.heard(&change(3, 0)).is_empty());
        let gone = RoutesChanged { gone: vec![name("b")], ..change(4, 0) };
        assert_eq!(watching.heard(&gone).len(), 1);
        watching.follow(&name("c"), &to);
        assert!(watching.wants(link, session), "one more topic");
    }

    #[test]
    fn what_changed_while_no_connection_told_is_asked_for() {
        let mut watching = Watching::default();
        let (to, _kept) = outlet(1);
        watching.follow(&name("a"), &to);
        watching.asked(LinkId(0), 1);
        watching.answered(6);
        assert_eq!(watching.heard(&change(7, 1)).len(), 1, "newer than what was answered");
        watching.asked(LinkId(0), 2);
        let more = RoutesChanged { more: true, ..change(7, 1) };
        assert!(watching.heard(&more).is_empty() && watching.heard(&change(7, 1)).is_empty());
        watching.asked(LinkId(1), 1);
        assert_eq!(watching.heard(&change(9, 1)).len(), 1, "changed between two connections");
        assert!(watching.heard(&change(9, 1)).is_empty());
        let registry = RoutesChanged { registry: 8, ..change(9, 1) };
        watching.asked(LinkId(2), 1);
        assert_eq!(watching.heard(&registry).len(), 1, "of another registry");
    }
}
