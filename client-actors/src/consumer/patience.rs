//! What a member waits for, since when, and when to say so: nobody is to look at a program that is still and not
//! know why. No clock, no I/O.

use std::fmt;

use grus_protocol::{QueueId, TopicName};

use super::messages::NoMore;
use super::queue::{OwnedQueue, Phase};
use super::state::ConsumerState;
use crate::error::Refusal;

/// Said for the first time after so long: a broker that starts anew is back before.
const FIRST_MS: u64 = 3_000;
/// Said again after so long.
const AGAIN_MS: u64 = 30_000;

/// Something that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wait {
    since_ms: Option<u64>,
    /// What was said last by the one who has to answer.
    refusal: Option<Refusal>,
}

impl Wait {
    /// It has not come, or not again.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.since_ms.get_or_insert(now_ms);
    }

    /// It was refused for now.
    pub(crate) fn refused(&mut self, refusal: &Refusal, now_ms: u64) {
        self.begin(now_ms);
        self.refusal = Some(refusal.clone());
    }

    /// It has come.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    /// For how long it has not come; none: it is there.
    pub(crate) fn waited_ms(&self, now_ms: u64) -> Option<u64> {
        self.since_ms.map(|since_ms| now_ms.saturating_sub(since_ms))
    }

    fn is_long(&self, now_ms: u64) -> bool {
        self.waited_ms(now_ms).is_some_and(|waited_ms| waited_ms >= FIRST_MS)
    }
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    what: What,
    waited_ms: u64,
    refusal: Option<Refusal>,
    /// Nothing more is waited for.
    pub(crate) is_last: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// To be a member.
    Join,
    /// To hear of the coordinator again.
    Coordinator,
    /// For messages of a queue, and of so many others.
    Queue { topic: TopicName, queue: QueueId, others: usize },
}

impl Complaint {
    /// Whether the answer could come of any broker, so that it matters which ones there are.
    pub(crate) fn is_of_membership(&self) -> bool {
        !matches!(self.what, What::Queue { .. })
    }

    /// It as a line; `outlook` is what is known of brokers.
    pub(crate) fn line(&self, outlook: &str) -> String {
        format!("{self}; {outlook}")
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.waited_ms / 1_000;
        match &self.what {
            What::Join => write!(out, "not a member of the group after {seconds} s")?,
            What::Coordinator => write!(out, "the group's coordinator is silent for {seconds} s")?,
            What::Queue { topic, queue, others } => {
                write!(out, "queue {queue} of {topic}")?;
                if *others > 0 {
                    write!(out, " and {others} more")?;
                }
                write!(out, " not served for {seconds} s")?;
            }
        }
        match &self.refusal {
            Some(refusal) => write!(out, ": {refusal}"),
            None => out.write_str(": no answer"),
        }
    }
}

/// When to complain: once something has been waited for long, and again after a while.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    said_ms: Option<u64>,
}

impl Patience {
    fn may_say(&self, now_ms: u64) -> bool {
        self.said_ms.is_none_or(|said_ms| now_ms.saturating_sub(said_ms) >= AGAIN_MS)
    }

    /// What is to be said now of a membership (`is_member`: of one that there was) and of queues.
    pub(crate) fn poll<'a>(
        &mut self,
        (membership, is_member): (&Wait, bool),
        queues: impl Iterator<Item = (&'a TopicName, QueueId, &'a Wait)>,
        now_ms: u64,
    ) -> Option<Complaint> {
        if !self.may_say(now_ms) {
            return None;
        }
        let (what, wait) = if membership.is_long(now_ms) {
            (if is_member { What::Coordinator } else { What::Join }, membership)
        } else {
            let mut long = queues.filter(|(_, _, wait)| wait.is_long(now_ms));
            let (topic, queue, wait) = long.next()?;
            let (topic, others) = (topic.clone(), long.count());
            (What::Queue { topic, queue, others }, wait)
        };
        self.said_ms = Some(now_ms);
        Some(Complaint {
            what,
            waited_ms: wait.waited_ms(now_ms).unwrap_or(0),
            refusal: wait.refusal.clone(),
            is_last: false,
        })
    }

    /// It is no member after so long, and waits no longer.
    pub(crate) fn gives_up(wait: &Wait, now_ms: u64) -> Complaint {
        Complaint {
            what: What::Join,
            waited_ms: wait.waited_ms(now_ms).unwrap_or(0),
            refusal: wait.refusal.clone(),
            is_last: true,
        }
    }
}

impl<P> OwnedQueue<P> {
    /// Notes whether messages of it are waited for: nothing is in hand, and no subscription stands.
    pub(super) fn note_wait(&mut self, now_ms: u64) {
        let is_served = matches!(self.phase, Phase::Live { .. } | Phase::Fenced);
        if is_served || self.revoked_by_ms.is_some() || !self.is_drained() {
            self.waits.end();
        } else {
            self.waits.begin(now_ms);
        }
    }
}

impl<P> ConsumerState<P> {
    /// What is to be said now, of what it waits for.
    pub(crate) fn poll_complaint(&mut self, now_ms: u64) -> Option<Complaint> {
        let (wait, is_member) = self.membership.waits();
        if self.membership.is_over() || self.stopping_by_ms.is_some() {
            return None;
        }
        let is_over = |limit_ms| wait.waited_ms(now_ms).is_some_and(|waited| waited >= limit_ms);
        if !self.was_member && self.settings.join_ms_max.is_some_and(is_over) {
            let last = Patience::gives_up(wait, now_ms);
            self.membership.give_up();
            self.is_giving_up = true;
            return Some(last);
        }
        let queues = self.queues.values();
        let queues = queues.map(|queue| (&queue.topic, queue.place.queue, &queue.waits));
        self.patience.poll((wait, is_member), queues, now_ms)
    }

    /// Whether something that goes wrong again and again is to be said now.
    pub(crate) fn may_complain(&mut self, now_ms: u64) -> bool {
        let may_say = self.patience.may_say(now_ms);
        if may_say {
            self.patience.said_ms = Some(now_ms);
        }
        may_say
    }

    /// It waits no longer to be a member; the program hears why.
    pub(crate) fn gave_up(&mut self, why: String) {
        self.is_giving_up = false;
        self.refused = Some(NoMore::NotJoined(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use std::iter::empty;

    use grus_protocol::{ErrorCode, ErrorReply};

    use super::*;

    fn refusal() -> Refusal {
        ErrorReply::new(ErrorCode::Unavailable, "the shard has no leader").into()
    }

    #[test]
    fn what_is_waited_for_is_said_after_a_while_and_now_and_then() {
        let (mut patience, mut wait) = (Patience::default(), Wait::default());
        assert_eq!(patience.poll((&wait, false), empty(), 9_000), None, "nothing is waited for");
        wait.begin(10_000);
        assert_eq!(patience.poll((&wait, false), empty(), 12_999), None);
        let said = patience.poll((&wait, false), empty(), 13_000).unwrap();
        let outlook = "no broker is connected: refused";
        assert_eq!(
            said.line(outlook),
            "not a member of the group after 3 s: no answer; no broker is connected: refused"
        );
        wait.refused(&refusal(), 14_000);
        assert_eq!(patience.poll((&wait, false), empty(), 42_999), None, "not again so soon");
        let said = patience.poll((&wait, true), empty(), 43_000).unwrap().to_string();
        assert_eq!(
            said,
            "the group's coordinator is silent for 33 s: the shard has no leader (Unavailable)"
        );
        wait.end();
        assert_eq!(patience.poll((&wait, true), empty(), 99_000), None);
    }

    #[test]
    fn queues_are_named_once_the_membership_is_well() {
        let (mut patience, topic) = (Patience::default(), TopicName::try_from("t").unwrap());
        let mut wait = Wait::default();
        wait.refused(&refusal(), 0);
        let well = Wait::default();
        let queues = [(&topic, QueueId(0), &well), (&topic, QueueId(1), &wait)];
        let queues = queues.into_iter().chain([(&topic, QueueId(2), &wait)]);
        let said = patience.poll((&well, true), queues, 5_000).unwrap();
        assert!(!said.is_of_membership() && !said.is_last);
        assert_eq!(
            said.to_string(),
            "queue 1 of t and 1 more not served for 5 s: the shard has no leader (Unavailable)"
        );
        let last = Patience::gives_up(&wait, 7_000);
        assert!(
            last.is_last && last.to_string().starts_with("not a member of the group after 7 s")
        );
    }
}
