//! Where the queues of a topic are served.

use std::sync::Arc;

use grus_protocol::TopicId;

/// A connection of this client, whatever it is connected to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u32);

/// The connections that lead to the queues of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// The topic's incarnation.
    pub(crate) topic_id: TopicId,
    /// One for each queue, by number; `None` while nobody leads it.
    pub(crate) links: Arc<[Option<LinkId>]>,
}

/// Something to ask for: not while an answer is awaited, not before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Not needed.
    Rest,
    /// To be asked for once it is this late.
    NotBefore(u64),
    /// Asked for when it was this late.
    Awaited(u64),
}

/// An answer that has not come after so long is not waited for any longer.
pub(crate) const ASK_MS_MAX: u64 = 10_000;
const SLACK_MS: u64 = 1_000;

impl Ask {
    /// It is needed.
    pub(crate) fn want(&mut self) {
        if *self == Self::Rest {
            *self = Self::NotBefore(0);
        }
    }

    /// Whether to ask now; if so, the answer is awaited from here on.
    pub(crate) fn poll(&mut self, now_ms: u64) -> bool {
        let due = match *self {
            Self::Rest => false,
            Self::NotBefore(at_ms) => at_ms <= now_ms,
            // By then the router has given up what it could not send; this one was lost.
            Self::Awaited(since_ms) => now_ms.saturating_sub(since_ms) > ASK_MS_MAX + SLACK_MS,
        };
        if due {
            *self = Self::Awaited(now_ms);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_twice_or_too_early() {
        let mut ask = Ask::Rest;
        assert!(!ask.poll(5));
        ask.want();
        assert!(ask.poll(5));
        ask.want();
        assert!(!ask.poll(5), "its answer is awaited");
        assert!(!ask.poll(ASK_MS_MAX) && ask.poll(ASK_MS_MAX + 2_000), "but not for ever");
        ask = Ask::NotBefore(9);
        ask.want();
        assert!(!ask.poll(8) && ask.poll(9));
    }
}
