//! Who hears what of a link. It outlives the link's panics: the factory holds it, and whoever waits
//! for a push waits on, for the link that is built in place of the one that panicked.

use std::collections::HashMap;

use grus_mailbox::Inbox;
use grus_protocol::Frame;

use super::{LinkChanged, LinkState, Pushed, PushesTo};
use crate::route::LinkId;

/// See the module documentation. When it is dropped, the link is gone for good, and they hear so.
pub(crate) struct Listeners {
    link: LinkId,
    /// The last attempt to connect. Counted on, so that no answer, push or call of a session before
    /// a panic can be taken for one of a session behind it.
    session: u64,
    subscribers: Vec<Inbox<LinkChanged>>,
    pushes: HashMap<u32, Inbox<Pushed>>,
}

impl Listeners {
    /// Nobody yet.
    pub(crate) fn new(link: LinkId) -> Self {
        Self { link, session: 0, subscribers: Vec::new(), pushes: HashMap::new() }
    }

    /// The last session; 0: there was none.
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// Begins another session.
    pub(super) fn next_session(&mut self) -> u64 {
        self.session += 1;
        self.session
    }

    /// `to` hears of changes from now on, once each.
    pub(super) fn add(&mut self, to: Inbox<LinkChanged>, pushes: Option<PushesTo>) {
        self.subscribers.retain(|other| !other.is_stopped() && !other.is_same(&to));
        self.subscribers.push(to);
        self.pushes.retain(|_, inbox| !inbox.is_stopped());
        self.pushes.extend(pushes.map(|to| (to.owner, to.inbox)));
    }

    /// Tells all.
    pub(super) fn tell(&mut self, state: &LinkState) {
        let link = self.link;
        self.subscribers.retain(|to| {
            let stopped = to.is_stopped();
            let change = LinkChanged { link, state: state.clone() };
            if !stopped && to.try_put(change).is_err_and(|refused| refused.is_full()) {
                tracing::error!(link = link.0, "bug: a subscriber has no room for a change");
            }
            !stopped
        });
    }

    /// Hands a push to the one it is meant for, if there is one.
    pub(super) fn push(&mut self, frame: Frame) {
        let owner = u32::try_from(frame.head.correlation >> 32).unwrap_or(u32::MAX);
        if let Some(to) = self.pushes.get(&owner)
            && to.try_put(Pushed { frame }).is_err()
        {
            self.pushes.remove(&owner); // it has stopped; one that lives has room for its credit
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tell(&LinkState::Gone);
    }
}
