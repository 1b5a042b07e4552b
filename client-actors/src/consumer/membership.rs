//! Being a member of a group: joining, staying, leaving, and how long it may count on it. No clock,
//! no I/O.

use grus_protocol::error::ErrorDetail;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    AssignedQueue, GroupHeartbeatReply, GroupSettings, JoinGroupReply, QueuePlace,
};
use grus_protocol::{ErrorCode, Generation, GroupId, MemberId};

use crate::backoff::Backoff;
use crate::error::Refusal;

/// How much longer than it may be held an answer may take, as a part of the session.
const ANSWER_SLACK_PART: u64 = 3;
/// The coordinator takes a member for gone so long after its connection was lost.
const ORPHAN_MS: u64 = 2_000;
/// How long the answer to a join may take.
const JOIN_MS_MAX: u64 = 10_000;

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
    standing: Standing,
}

/// Whether it is to be a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Staying,
    Leaving,
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

    /// Whether it has left, or been refused.
    pub(crate) fn is_over(&self) -> bool {
        self.standing == Standing::Over
    }

    /// It wants other things than before.
    pub(crate) fn join_again(&mut self) {
        self.wants_join = true;
    }

    /// It has let go of a queue, or of another.
    pub(crate) fn tell(&mut self) {
        self.has_word = true;
    }

    /// It leaves, as soon as it may.
    pub(crate) fn leave(&mut self) {
        self.not_before_ms = 0;
        let may_be_joined =
            self.joined.is_some() || self.under_way.iter().any(|ask| ask.kind == Kind::Join);
        self.standing = if may_be_joined { Standing::Leaving } else { Standing::Over };
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
        let is_leaving = self.standing == Standing::Leaving;
        let count = |kind| self.under_way.iter().filter(|ask| ask.kind == kind).count();
        let (kind, what, wait_ms) = match self.joined {
            Some(at) if is_leaving && count(Kind::Leave) == 0 => {
                (Kind::Leave, MemberWord::Leave { at }, 0)
            }
            _ if is_leaving => return None,
            _ if self.wants_join && count(Kind::Join) == 0 => (Kind::Join, MemberWord::Join, 0),
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
        }
        let slack_ms = match kind {
            Kind::Heartbeat => (self.session_ms / ANSWER_SLACK_PART).max(1),
            Kind::Join | Kind::Leave => JOIN_MS_MAX,
        };
        let until_ms = now_ms + wait_ms + slack_ms;
        self.under_way.push(UnderWay { number, kind, sent_ms: now_ms, until_ms });
        Some(MemberAsk { number, to: self.coordinator.clone(), what, deadline_ms: until_ms })
    }

    fn answered(&mut self, number: u64) -> Option<UnderWay> {
        let index = self.under_way.iter().position(|ask| ask.number == number)?;
        Some(self.under_way.remove(index))
    }

    fn extend_lease(&mut self, sent_ms: u64) {
        self.backoff.succeeded();
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
        match reply.assigned {
            Some(assigned) if reply.generation >= self.known => {
                self.known = reply.generation;
                News::Assigned(assigned)
            }
            _ => News::None,
        }
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
        if ask.kind == Kind::Leave && !refusal.retriable {
            self.over(); // it is no member any more
            return News::Left;
        }
        if ask.kind == Kind::Join {
            self.wants_join = true;
        }
        match refusal.code {
            ErrorCode::NotLeader => {
                let to = match refusal.detail {
                    Some(ErrorDetail::Leader(address)) => Some(address),
                    _ => None,
                };
                let is_new = to.is_some() && to != self.coordinator;
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
            Kind::Heartbeat => {}
        }
        self.wait(now_ms, 0);
        News::None
    }

    /// Requests that are given up by now.
    pub(crate) fn tick(&mut self, now_ms: u64) -> News {
        let overdue = self.under_way.iter().find(|ask| ask.until_ms <= now_ms);
        match overdue.map(|ask| ask.number) {
            Some(number) => self.is_lost(number, now_ms),
            None => News::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::{BrokerId, ErrorReply, QueueId, TopicId, TopicName};

    use super::*;

    const SESSION_MS: u64 = 9_000;

    fn joined(member: u64) -> JoinGroupReply {
        JoinGroupReply {
            group_id: GroupId(3),
            member: MemberId(member),
            generation: Generation(0),
            session_ms: 9_000,
            heartbeat_ms: 3_000,
            settings: GroupSettings::default(),
        }
    }

    fn beat(generation: u64, assigned: Option<Vec<AssignedQueue>>) -> GroupHeartbeatReply {
        GroupHeartbeatReply { generation: Generation(generation), assigned, settings: None }
    }

    fn queue(number: u32) -> AssignedQueue {
        let (topic, topic_id) = (TopicName::try_from("t").unwrap(), TopicId(1));
        AssignedQueue { topic, topic_id, queue: QueueId(number), generation: Generation(1) }
    }

    fn refusal(code: ErrorCode) -> Refusal {
        ErrorReply::new(code, "x").into()
    }

    fn heartbeat(ask: &MemberAsk) -> (u64, &[QueuePlace], u32) {
        match &ask.what {
            MemberWord::Heartbeat { known, holding, wait_ms, .. } => (known.0, holding, *wait_ms),
            other => panic!("{other:?}"),
        }
    }

    /// A member since `now_ms`.
    fn member(now_ms: u64) -> Membership {
        let mut member = Membership::new(1);
        let ask = member.poll(1, &[], now_ms).unwrap();
        assert_eq!((ask.what, ask.to), (MemberWord::Join, None));
        assert_eq!(member.poll(2, &[], now_ms), None, "one join at a time");
        assert_eq!(member.is_member(1, joined(7)), News::None);
        member
    }

    #[test]
    fn the_lease_counts_from_the_sending_of_what_was_answered() {
        let mut member = member(100);
        assert_eq!(member.safe_until_ms(), 100 + SESSION_MS * 2 / 3);
        let ask = member.poll(2, &[], 200).unwrap();
        assert_eq!(heartbeat(&ask), (0, &[][..], 2_000));
        assert_eq!(member.poll(3, &[], 2_100), None, "one heartbeat at a time");
        assert_eq!(
            member.is_heard(2, beat(1, Some(vec![queue(0)]))),
            News::Assigned(vec![queue(0)])
        );
        assert_eq!(member.safe_until_ms(), 200 + SESSION_MS * 2 / 3);
        assert_eq!(heartbeat(&member.poll(3, &[], 2_200).unwrap()).0, 1, "it follows that one");
        assert_eq!(member.is_heard(3, beat(1, None)), News::None);
        assert_eq!(member.is_heard(3, beat(9, Some(Vec::new()))), News::None, "not asked");
    }

    #[test]
    fn what_it_let_go_of_is_told_at_once() {
        let mut member = member(0);
        let place = QueuePlace { topic_id: TopicId(1), queue: QueueId(4) };
        let first = member.poll(2, &[place], 0).unwrap();
        assert_eq!(heartbeat(&first).1, [place]);
        assert_eq!(member.poll(3, &[], 1), None);
        member.tell();
        let second = member.poll(3, &[], 1).unwrap();
        assert_eq!(heartbeat(&second).1, [], "beside the one that waits");
        // The older answer may come later; what it says of an older assignment does not count.
        assert_eq!(member.is_heard(3, beat(5, Some(Vec::new()))), News::Assigned(Vec::new()));
        assert_eq!(member.is_heard(2, beat(4, Some(vec![queue(0)]))), News::None);
    }

    #[test]
    fn it_follows_the_coordinator_and_asks_anybody_when_that_is_of_no_use() {
        let mut member = Membership::new(1);
        member.poll(1, &[], 0).unwrap();
        let address = BrokerAddress { id: BrokerId(2), host: "h".into(), port: 1 };
        let detail = ErrorDetail::Leader(address.clone());
        let elsewhere = ErrorReply::new(ErrorCode::NotLeader, "x").with_detail(detail);
        assert_eq!(member.is_refused(1, elsewhere.clone().into(), 0), News::None);
        assert_eq!(member.poll(2, &[], 0).unwrap().to, Some(address), "at once");
        assert_eq!(member.is_refused(2, elsewhere.into(), 0), News::None);
        assert_eq!(member.poll(3, &[], 0), None, "the same again: after a while");
        member.poll(3, &[], 1_000).unwrap();
        assert_eq!(member.is_refused(3, refusal(ErrorCode::Unavailable), 1_000), News::None);
        assert_eq!(member.poll(4, &[], 3_000).unwrap().to, None);
    }

    #[test]
    fn a_member_that_is_not_known_any_more_has_lost_all_and_joins_again() {
        let mut member = member(0);
        member.poll(2, &[], 10).unwrap();
        assert_eq!(member.is_refused(2, refusal(ErrorCode::UnknownMember), 20), News::Lost);
        assert_eq!((member.safe_until_ms(), member.joined()), (0, None));
        assert_eq!(member.poll(3, &[], 20).unwrap().what, MemberWord::Join);
        assert_eq!(member.is_member(3, joined(8)), News::None);
        member.join_again();
        assert_eq!(member.poll(4, &[], 30).unwrap().what, MemberWord::Join);
        assert_eq!(member.is_member(4, joined(9)), News::Lost, "as another one");
    }

    #[test]
    fn a_lost_connection_shortens_the_lease_and_silence_counts_as_one() {
        let mut member = member(0);
        member.poll(2, &[], 1_000).unwrap();
        assert_eq!(member.is_lost(2, 1_500), News::None);
        assert_eq!(member.safe_until_ms(), 1_500 + ORPHAN_MS * 2 / 3);
        let ask = member.poll(3, &[], 3_000).unwrap();
        assert_eq!(ask.deadline_ms, 3_000 + 2_000 + SESSION_MS / ANSWER_SLACK_PART);
        assert_eq!(member.tick(ask.deadline_ms - 1), News::None);
        assert_eq!(member.under_way.len(), 1);
        member.tick(ask.deadline_ms);
        assert_eq!(member.under_way.len(), 0, "another one is sent");
    }

    #[test]
    fn a_refusal_for_good_ends_a_first_join_and_leaves_a_member_what_it_was() {
        let mut refused = Membership::new(1);
        refused.poll(1, &[], 0).unwrap();
        let no = refusal(ErrorCode::InvalidSettings);
        assert_eq!(refused.is_refused(1, no.clone(), 0), News::Refused(no.clone()));
        assert!(refused.is_over() && refused.poll(2, &[], 9_000).is_none());
        let mut member = member(0);
        member.join_again();
        member.poll(2, &[], 0).unwrap();
        assert_eq!(member.is_refused(2, no.clone(), 0), News::Refused(no));
        assert!(!member.is_over());
        assert_eq!(heartbeat(&member.poll(3, &[], 5_000).unwrap()).0, 0);
    }

    #[test]
    fn leaving_ends_it_whatever_the_answer() {
        for answered in [true, false] {
            let mut member = member(0);
            member.leave();
            let ask = member.poll(2, &[], 0).unwrap();
            assert!(matches!(ask.what, MemberWord::Leave { .. }));
            assert_eq!(member.poll(3, &[], 0), None);
            let news = if answered { member.has_left(2) } else { member.is_lost(2, 5) };
            assert_eq!((news, member.is_over()), (News::Left, true));
        }
        let mut nobody = Membership::new(1);
        nobody.leave();
        assert!(nobody.is_over());
    }
}
