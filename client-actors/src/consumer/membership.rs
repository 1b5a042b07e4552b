//! Being a member of a group: joining, staying, leaving, and how long it may count on it. No clock,
//! no I/O.

use grus_protocol::error::ErrorDetail;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    AssignTopic, AssignedQueue, DivideQueues, GroupHeartbeatReply, GroupSettings, JoinGroupReply,
    QueuePlace,
};
use grus_protocol::{ErrorCode, Generation, GroupId, MemberId};

use super::patience::Wait;
use crate::backoff::Backoff;
use crate::error::Refusal;

/// How much longer than it may be held an answer may take, as a part of the session.
const ANSWER_SLACK_PART: u64 = 3;
/// The coordinator takes a member for gone so long after its connection was lost.
const ORPHAN_MS: u64 = 2_000;
/// How long the answer to a join may take.
const JOIN_MS_MAX: u64 = 10_000;
/// How long it tries to say that it leaves. Its lease ends by itself, too.
const LEAVE_MS_MAX: u64 = 5_000;

/// Something to ask the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberAsk {
    pub(crate) number: u64,
    /// Whom; none: any broker, which knows better or is the one.
    pub(crate) to: Option<BrokerAddress>,
    pub(crate) what: MemberWord,
    /// When it is of no use any more.
    pub(crate) deadline_ms: u64,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberWord {
    Join,
    Heartbeat { at: Joined, known: Generation, holding: Vec<QueuePlace>, wait_ms: u32 },
    Leave { at: Joined },
    Assign { at: Joined, question: u64, topics: Option<Vec<AssignTopic>> },
}

/// As what it has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) group_id: GroupId,
    pub(crate) member: MemberId,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// It is another member than before: whatever it had is lost.
    Lost,
    /// These are its queues, all of them.
    Assigned(Vec<AssignedQueue>),
    /// It cannot be a member, and will not become one by asking again.
    Refused(Refusal),
    /// It has left.
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Join,
    Heartbeat,
    Leave,
    Assign,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    kind: Kind,
    sent_ms: u64,
    until_ms: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Membership {
    coordinator: Option<BrokerAddress>,
    joined: Option<Joined>,
    session_ms: u64,
    heartbeat_ms: u64,
    settings: GroupSettings,
    known: Generation,
    /// A join is to be sent: it is no member, or what it wants has changed.
    wants_join: bool,
    /// What it holds has changed since the last heartbeat.
    has_word: bool,
    under_way: Vec<UnderWay>,
    not_before_ms: u64,
    backoff: Backoff,
    safe_until_ms: u64,
    /// What the program is to divide.
    question: Option<DivideQueues>,
    /// How it has divided which question; none: it has no function for that.
    division: Option<(u64, Option<Vec<AssignTopic>>)>,
    /// To be a member, or to hear of the coordinator again.
    waits: Wait,
    standing: Standing,
}

/// Whether it is to be a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Staying,
    Leaving { by_ms: u64 },
    Over,
}

impl Membership {
    /// One that joins first.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            coordinator: None,
            joined: None,
            session_ms: 0,
            heartbeat_ms: 0,
            settings: GroupSettings::default(),
            known: Generation::NONE,
            wants_join: true,
            has_word: false,
            under_way: Vec::new(),
            not_before_ms: 0,
            backoff: Backoff::new(50, 1_000, seed),
            safe_until_ms: 0,
            question: None,
            division: None,
            waits: Wait::default(),
            standing: Standing::Staying,
        }
    }

    /// As what it has joined.
    pub(crate) fn joined(&self) -> Option<Joined> {
        self.joined
    }

    /// How the group works, as it was told last.
    pub(crate) fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Until when it may hand out messages.
    pub(crate) fn safe_until_ms(&self) -> u64 {
        self.safe_until_ms
    }

    /// What it waits for, and whether it is a member.
    pub(crate) fn waits(&self) -> (&Wait, bool) {
        (&self.waits, self.joined.is_some())
    }

    /// What the program is to divide, once.
    pub(crate) fn take_question(&mut self) -> Option<DivideQueues> {
        self.question.take()
    }

    /// The program has divided it, or has no function for that.
    pub(crate) fn divided(&mut self, question: u64, topics: Option<Vec<AssignTopic>>) {
        self.division = Some((question, topics));
    }

    /// It does not wait to be a member any longer.
    pub(crate) fn give_up(&mut self) {
        self.over();
    }

    /// Whether it has left, or been refused.
    pub(crate) fn is_over(&self) -> bool {
        self.standing == Standing::Over
    }

    /// It wants other things than before.
    pub(crate) fn join_again(&mut self) {
        self.wants_join = true;
    }

    /// Whether it is a member, and waits for news.
    pub(crate) fn is_at_rest(&self) -> bool {
        let waits = self.under_way.iter().all(|ask| ask.kind == Kind::Heartbeat);
        self.joined.is_some()
            && self.standing == Standing::Staying
            && !self.wants_join
            && !self.has_word
            && waits
            && !self.under_way.is_empty()
    }

    /// It has let go of a queue, or of another.
    pub(crate) fn tell(&mut self) {
        self.has_word = true;
    }

    /// It leaves, as soon as it may. Said again, it changes nothing.
    pub(crate) fn leave(&mut self, now_ms: u64) {
        if self.standing == Standing::Staying {
            self.not_before_ms = 0;
            self.standing = Standing::Leaving { by_ms: now_ms + LEAVE_MS_MAX };
        }
        let may_be_joined =
            self.joined.is_some() || self.under_way.iter().any(|ask| ask.kind == Kind::Join);
        if !may_be_joined {
            self.over();
        }
    }

    /// What to ask now, as request `number`; `holding` are the queues that it has not let go of.
    pub(crate) fn poll(
        &mut self,
        number: u64,
        holding: &[QueuePlace],
        now_ms: u64,
    ) -> Option<MemberAsk> {
        if self.is_over() || now_ms < self.not_before_ms {
            return None;
        }
        let leaving_by_ms = match self.standing {
            Standing::Leaving { by_ms } => Some(by_ms),
            Standing::Staying | Standing::Over => None,
        };
        let is_leaving = leaving_by_ms.is_some();
        let count = |kind| self.under_way.iter().filter(|ask| ask.kind == kind).count();
        let (kind, what, wait_ms) = match self.joined {
            Some(at) if is_leaving && count(Kind::Leave) == 0 => {
                (Kind::Leave, MemberWord::Leave { at }, 0)
            }
            _ if is_leaving => return None,
            _ if self.wants_join && count(Kind::Join) == 0 => (Kind::Join, MemberWord::Join, 0),
            Some(at) if self.division.is_some() => {
                let (question, topics) = self.division.take()?;
                (Kind::Assign, MemberWord::Assign { at, question, topics }, 0)
            }
            Some(at) if count(Kind::Heartbeat) < if self.has_word { 2 } else { 1 } => {
                // Long enough to be few, short enough that one that is late does no harm.
                let wait_ms = u32::try_from(self.heartbeat_ms * 2 / 3).unwrap_or(u32::MAX);
                self.has_word = false;
                let (known, holding) = (self.known, holding.to_vec());
                let what = MemberWord::Heartbeat { at, known, holding, wait_ms };
                (Kind::Heartbeat, what, u64::from(wait_ms))
            }
            _ => return None,
        };
        if kind == Kind::Join {
            self.wants_join = false;
            self.waits.begin(now_ms);
        }
        let slack_ms = match kind {
            Kind::Heartbeat => (self.session_ms / ANSWER_SLACK_PART).max(1),
            Kind::Join | Kind::Leave | Kind::Assign => JOIN_MS_MAX,
        };
        let until_ms = (now_ms + wait_ms + slack_ms).min(leaving_by_ms.unwrap_or(u64::MAX));
        self.under_way.push(UnderWay { number, kind, sent_ms: now_ms, until_ms });
        Some(MemberAsk { number, to: self.coordinator.clone(), what, deadline_ms: until_ms })
    }

    fn answered(&mut self, number: u64) -> Option<UnderWay> {
        let index = self.under_way.iter().position(|ask| ask.number == number)?;
        Some(self.under_way.remove(index))
    }

    fn extend_lease(&mut self, sent_ms: u64) {
        self.backoff.succeeded();
        self.waits.end();
        self.safe_until_ms = self.safe_until_ms.max(sent_ms + self.session_ms * 2 / 3);
    }

    /// It has joined.
    pub(crate) fn is_member(&mut self, number: u64, reply: JoinGroupReply) -> News {
        let Some(ask) = self.answered(number) else { return News::None };
        let joined = Joined { group_id: reply.group_id, member: reply.member };
        let is_other = self.joined.is_some_and(|had| had != joined);
        if self.joined != Some(joined) {
            (self.known, self.safe_until_ms) = (Generation::NONE, 0);
        }
        self.joined = Some(joined);
        self.session_ms = u64::from(reply.session_ms);
        self.heartbeat_ms = u64::from(reply.heartbeat_ms);
        self.settings = reply.settings;
        self.extend_lease(ask.sent_ms);
        if is_other { News::Lost } else { News::None }
    }

    /// A heartbeat was answered.
    pub(crate) fn is_heard(&mut self, number: u64, reply: GroupHeartbeatReply) -> News {
        let Some(ask) = self.answered(number) else { return News::None };
        self.extend_lease(ask.sent_ms);
        if let Some(settings) = reply.settings {
            self.settings = settings;
        }
        self.question = reply.divide.or(self.question.take());
        match reply.assigned {
            Some(assigned) if reply.generation >= self.known => {
                self.known = reply.generation;
                News::Assigned(assigned)
            }
            _ => News::None,
        }
    }

    /// What it has divided was taken.
    pub(crate) fn is_taken(&mut self, number: u64) {
        let _ = self.answered(number);
    }

    /// It has left.
    pub(crate) fn has_left(&mut self, number: u64) -> News {
        if self.answered(number).is_none() {
            return News::None;
        }
        self.over();
        News::Left
    }

    fn over(&mut self) {
        self.joined = None;
        self.standing = Standing::Over;
        self.under_way.clear();
        self.safe_until_ms = 0;
    }

    /// It was refused.
    pub(crate) fn is_refused(&mut self, number: u64, refusal: Refusal, now_ms: u64) -> News {
        let Some(ask) = self.answered(number) else { return News::None };
        if ask.kind == Kind::Assign {
            return News::None; // another member is asked
        }
        if ask.kind == Kind::Leave && !refusal.retriable {
            self.over(); // it is no member any more
            return News::Left;
        }
        if ask.kind == Kind::Join {
            self.wants_join = true;
        }
        match refusal.code {
            ErrorCode::NotLeader => {
                let to = match &refusal.detail {
                    Some(ErrorDetail::Leader(address)) => Some(address.clone()),
                    _ => None,
                };
                let is_new = to.is_some() && to != self.coordinator;
                if !is_new {
                    self.waits.refused(&refusal, now_ms);
                }
                self.coordinator = to;
                let wait_ms = self.backoff.failed().max(u64::from(refusal.retry_after_ms));
                self.not_before_ms = now_ms + if is_new { 0 } else { wait_ms };
                News::None
            }
            ErrorCode::UnknownMember | ErrorCode::UnknownGroup if ask.kind == Kind::Heartbeat => {
                self.joined = None;
                self.wants_join = true;
                self.under_way.clear();
                (self.known, self.safe_until_ms) = (Generation::NONE, 0);
                News::Lost
            }
            code if refusal.retriable
                || code.wants_metadata()
                || code == ErrorCode::UnknownGroup =>
            {
                self.waits.refused(&refusal, now_ms);
                self.wait(now_ms, u64::from(refusal.retry_after_ms));
                News::None
            }
            _ if ask.kind == Kind::Join && self.joined.is_none() => {
                self.over();
                News::Refused(refusal)
            }
            _ => {
                // What it wanted anew is refused: it stays what it was.
                self.wants_join = false;
                self.wait(now_ms, 0);
                if ask.kind == Kind::Join { News::Refused(refusal) } else { News::None }
            }
        }
    }

    fn wait(&mut self, now_ms: u64, least_ms: u64) {
        self.coordinator = None; // any broker may know better by now
        self.not_before_ms = now_ms + self.backoff.failed().max(least_ms);
    }

    /// A request got no answer: its connection was lost, or was not there in time. The coordinator
    /// may have seen that, too.
    pub(crate) fn is_lost(&mut self, number: u64, now_ms: u64) -> News {
        let Some(ask) = self.answered(number) else { return News::None };
        self.safe_until_ms = self.safe_until_ms.min(now_ms + ORPHAN_MS * 2 / 3);
        match ask.kind {
            Kind::Join => self.wants_join = true,
            Kind::Leave => {
                self.over(); // the lease ends by itself
                return News::Left;
            }
            Kind::Heartbeat | Kind::Assign => {}
        }
        self.waits.begin(now_ms);
        self.wait(now_ms, 0);
        News::None
    }

    /// Requests that are given up by now, and the attempt to leave.
    pub(crate) fn tick(&mut self, now_ms: u64) -> News {
        if matches!(self.standing, Standing::Leaving { by_ms } if by_ms <= now_ms) {
            self.over(); // the lease ends by itself
            return News::Left;
        }
        let overdue = self.under_way.iter().find(|ask| ask.until_ms <= now_ms);
        match overdue.map(|ask| ask.number) {
            Some(number) => self.is_lost(number, now_ms),
            None => News::None,
        }
    }
}

#[cfg(test)]
mod tests;
