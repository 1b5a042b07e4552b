//! A member of a broadcast group, step by step.

use grus_protocol::error::ErrorDetail;
use grus_protocol::message::{
    AssignedQueue, GroupHeartbeatReply, GroupModel, GroupSettings, GroupSubscription,
    JoinGroupReply, ListAt, MessageFilter, OffsetRange, QueuePlace, SubscribeAt,
};
use grus_protocol::{
    BatchBuilder, BatchLimits, ErrorCode, ErrorReply, Generation, GroupId, GroupName, InstanceName,
    MemberId, MessageId, NewRecord, Offset, QueueId, RecordBatch, Term, TimestampMs, TopicId,
    TopicName,
};

use super::messages::NoMore;
use super::offsets::OffsetSet;
use super::progress_file::{OwnProgress, QueueDone};
use super::queue::HandItem;
use super::settling::Verdict;
use super::state::{ConsumerSettings, ConsumerState, QueueWord};
use crate::reader::cursor::{Content, Fetched};
use crate::route::{LinkId, Route};

const LINK: LinkId = LinkId(0);
/// The coordinator's clock at each join.
const JOINED: TimestampMs = TimestampMs(1_700_000_000_000);

fn group() -> GroupName {
    GroupName::try_from("g").unwrap()
}

fn topic() -> TopicName {
    TopicName::try_from("t").unwrap()
}

fn begun() -> OwnProgress {
    OwnProgress::new(group(), InstanceName::try_from("one").unwrap())
}

/// A member with one queue, whose messages have the tags `a` and `b` in turn.
struct Desk {
    state: ConsumerState<u32>,
    subscription: u64,
}

impl Desk {
    fn new(progress: OwnProgress, tags: &str, starts: SubscribeAt) -> Self {
        Self::that_acks(false, progress, tags, starts)
    }

    fn that_acks(
        acks_before: bool,
        progress: OwnProgress,
        tags: &str,
        starts: SubscribeAt,
    ) -> Self {
        let settings = ConsumerSettings {
            acks_before,
            queue_messages_max: 100,
            bytes_max: 1 << 20,
            revoke_ms_max: 3_000,
            join_ms_max: None,
        };
        let filter = MessageFilter::parse_tags(tags).unwrap();
        let subscription = GroupSubscription { topics: (&topic()).into(), filter };
        let state = ConsumerState::new(settings, vec![subscription], 7);
        let mut desk = Self { state: state.with_progress(Some(progress)), subscription: 0 };
        desk.state.link_up(LINK);
        let join = desk.state.poll_member(0).unwrap();
        desk.state.joined(join.number, joined(GroupModel::Broadcast), 0);
        let beat = desk.state.poll_member(0).unwrap();
        let queue = AssignedQueue {
            topic: topic(),
            topic_id: TopicId(1),
            queue: QueueId(0),
            generation: Generation::NONE,
        };
        let (generation, assigned) = (Generation(1), Some(vec![queue]));
        let reply = GroupHeartbeatReply { generation, assigned, settings: None, divide: None };
        desk.state.heard(beat.number, reply, 0);
        let route = Route { topic_id: TopicId(1), links: vec![Some(LINK)].into() };
        assert_eq!(desk.state.poll_route(0), Some(topic()));
        desk.state.route(&topic(), Ok(route), 0);
        desk.subscribe(starts);
        desk
    }

    /// It subscribes from there on, and the broker says so.
    fn subscribe(&mut self, at: SubscribeAt) {
        let ask = self.state.poll_ask(0).unwrap();
        assert!(matches!(ask.what, QueueWord::Subscribe { .. }), "nothing is claimed: {ask:?}");
        assert_eq!(self.state.start_of(0), at);
        let offset = match at {
            SubscribeAt::Offset(offset, _) => offset,
            _ => Offset(0),
        };
        self.state.subscribed((ask.slot, ask.number), offset);
        self.subscription = ask.number;
    }

    /// A batch of four messages comes.
    fn deliver(&mut self, base: u64, now_ms: u64) {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        for (number, tag) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
            let mut record =
                NewRecord::new(MessageId::from_bytes([number; 16]), TimestampMs(1), "x");
            record.tag = Some(tag.into());
            builder.push(&record).unwrap();
        }
        let batch = RecordBatch::from_log(builder.finish()).unwrap();
        let (base_offset, stored) = (Offset(base), TimestampMs(1));
        let content = Content::Batch(batch);
        let fetched = Fetched { base_offset, term: Term(1), stored, content };
        self.state.delivered_here(self.subscription, vec![fetched], now_ms);
    }

    fn take(&mut self, now_ms: u64) -> Vec<HandItem> {
        self.state.take(now_ms)
    }

    /// What the file has once it is written; who has heard of it.
    fn write(&mut self, now_ms: u64) -> (OwnProgress, Vec<u32>) {
        let text = self.state.poll_keep(now_ms).expect("something to write");
        assert_eq!(self.state.poll_keep(now_ms), None, "one write at a time");
        let heard = self.state.kept(true, now_ms);
        (OwnProgress::decode(text.as_bytes(), &group(), None).unwrap(), heard)
    }
}

fn joined(model: GroupModel) -> JoinGroupReply {
    JoinGroupReply {
        group_id: GroupId(9),
        member: MemberId(5),
        generation: Generation(1),
        session_ms: 10_000,
        heartbeat_ms: 3_000,
        settings: GroupSettings {
            model,
            ladder_ms: vec![100],
            max_deliveries: 2,
            ..GroupSettings::default()
        },
        time: JOINED,
    }
}

fn offsets(items: &[HandItem]) -> Vec<u64> {
    items.iter().flat_map(|item| &item.wanted).flat_map(OffsetRange::numbers).collect()
}

/// Floor, and ranges above it.
fn of(progress: &OwnProgress) -> (u64, Vec<(u64, u64)>) {
    let done = progress.queues.values().next().unwrap();
    (done.floor.0, done.above.ranges().map(|range| (range.from.0, range.to.0)).collect())
}

fn nack() -> Verdict {
    Verdict::Nack { retry_after_ms: None, reason: "x".into() }
}

#[test]
fn what_is_settled_is_heard_once_the_file_has_it_and_is_gone_on_from() {
    let mut desk = Desk::new(begun(), "*", SubscribeAt::First);
    desk.deliver(0, 0);
    let items = desk.take(0);
    assert_eq!(offsets(&items), [0, 1, 2, 3]);
    let item = items[0].number;
    desk.state.settle(0, (item, Offset(0)), Verdict::Ack, None, 0);
    desk.state.settle(0, (item, Offset(2)), Verdict::Ack, Some(7), 0);
    let text = desk.state.poll_keep(0).unwrap();
    assert_eq!(desk.state.kept(false, 0), Vec::<u32>::new(), "it was not written");
    assert_eq!(desk.state.poll_keep(0), None, "not again at once");
    let (progress, heard) = desk.write(1_000);
    assert_eq!((progress.encode(), heard), (text, vec![7]), "the same once more");
    assert_eq!(of(&progress), (1, vec![(2, 3)]));
    // Its connection is lost with 1 and 3 in the program's hands: those do not come again.
    desk.state.link_down(LINK);
    desk.state.link_up(LINK);
    desk.subscribe(SubscribeAt::Offset(Offset(4), Term::UNKNOWN));
    // One that starts with that file begins at the first that is open, and has no other again.
    let mut again = Desk::new(progress, "*", SubscribeAt::Offset(Offset(1), Term::UNKNOWN));
    again.deliver(0, 0);
    assert_eq!(offsets(&again.take(0)), [1, 3]);
}

#[test]
fn what_failed_comes_again_here_and_is_given_up_after_its_last_time() {
    let mut desk = Desk::new(begun(), "*", SubscribeAt::First);
    desk.deliver(0, 0);
    let items = desk.take(0);
    let item = items[0].number;
    for offset in [0, 2, 3] {
        desk.state.settle(0, (item, Offset(offset)), Verdict::Ack, None, 0);
    }
    desk.state.settle(0, (item, Offset(1)), nack(), Some(4), 0);
    assert_eq!(desk.state.take_heard(), [4], "nobody else has to know");
    assert_eq!(of(&desk.write(50).0), (1, vec![(2, 4)]), "it is not settled");
    desk.state.tick(99);
    assert_eq!(offsets(&desk.take(99)), []);
    desk.state.tick(100);
    let again = desk.take(100);
    assert_eq!((offsets(&again), again[0].deliveries(Offset(1))), (vec![1], 1));
    assert_eq!(again[0].batch.count(), 1, "itself alone");
    desk.state.settle(0, (again[0].number, Offset(1)), nack(), Some(5), 100);
    let (progress, heard) = desk.write(200);
    assert_eq!((of(&progress), heard), ((4, vec![]), vec![5]), "twice was enough");
}

#[test]
fn what_is_acked_before_it_is_handed_out_never_comes_again() {
    let mut desk = Desk::that_acks(true, begun(), "*", SubscribeAt::First);
    desk.deliver(0, 0);
    desk.state.ack_ahead(4, 0);
    assert_eq!(of(&desk.write(50).0), (4, vec![]));
    let items = desk.take(50);
    assert_eq!(offsets(&items), [0, 1, 2, 3]);
    for offset in 0..4 {
        desk.state.settle(0, (items[0].number, Offset(offset)), nack(), None, 60);
    }
    desk.state.tick(10_000);
    assert_eq!(offsets(&desk.take(10_000)), [], "no answer counts");
}

#[test]
fn places_of_topics_that_are_gone_are_kept_up_to_a_limit() {
    let mut progress = begun();
    for id in 10..5_010 {
        let place = QueuePlace { topic_id: TopicId(id), queue: QueueId(0) };
        let topic = TopicName::try_from(format!("day-{id}").as_str()).unwrap();
        let done = QueueDone { topic, floor: Offset(7), above: OffsetSet::default() };
        progress.queues.insert(place, done);
    }
    let mut desk = Desk::new(progress, "*", SubscribeAt::First);
    let (kept, _) = desk.write(50);
    assert_eq!(kept.queues.len(), 4_096 + 1, "its own is not one of them");
    let oldest = kept.queues.keys().map(|place| place.topic_id).find(|id| *id != TopicId(1));
    assert_eq!(oldest, Some(TopicId(5_010 - 4_096)));
}

#[test]
fn other_tags_are_passed_and_never_handed_out() {
    let mut desk = Desk::new(begun(), "b", SubscribeAt::First);
    desk.deliver(0, 0);
    assert_eq!(offsets(&desk.take(0)), [1, 3]);
    assert_eq!(of(&desk.write(50).0), (1, vec![(2, 3)]));
    let mut none = Desk::new(begun(), "c", SubscribeAt::First);
    none.deliver(0, 0);
    assert_eq!(offsets(&none.take(0)), []);
    assert_eq!(of(&none.write(50).0), (4, vec![]));
}

#[test]
fn a_place_that_is_gone_or_damaged_is_left_for_the_next_one() {
    let refused = |code, detail| ErrorReply::new(code, "x").with_detail(detail).into();
    let mut desk = Desk::new(begun(), "*", SubscribeAt::First);
    let (log_start, end_offset) = (Offset(10), Offset(20));
    let bounds = ErrorDetail::Bounds { log_start, end_offset };
    let gone = refused(ErrorCode::OffsetOutOfRange, bounds.clone());
    desk.state.ended(desk.subscription, &gone, 0);
    desk.subscribe(SubscribeAt::Offset(Offset(10), Term::UNKNOWN));
    let range = ErrorDetail::Range { from: Offset(8), to: Offset(14) };
    desk.state.ended(desk.subscription, &refused(ErrorCode::CorruptRange, range), 0);
    desk.subscribe(SubscribeAt::Offset(Offset(14), Term::UNKNOWN));
    let (mut progress, _) = desk.write(50);
    assert_eq!(of(&progress), (14, vec![]));
    // A crash has taken back what was settled: what comes in its place is new.
    progress.queues.values_mut().for_each(|done| done.floor = Offset(30));
    let mut ahead = Desk::new(progress, "*", SubscribeAt::Offset(Offset(30), Term::UNKNOWN));
    ahead.state.ended(ahead.subscription, &refused(ErrorCode::OffsetOutOfRange, bounds), 0);
    ahead.subscribe(SubscribeAt::Offset(Offset(20), Term::UNKNOWN));
    // What is in hand the log has lost: what lies there now is new, and comes.
    let mut lost = Desk::new(begun(), "*", SubscribeAt::First);
    lost.deliver(0, 0);
    assert_eq!(offsets(&lost.take(0)), [0, 1, 2, 3]);
    let none = ErrorDetail::Bounds { log_start: Offset(0), end_offset: Offset(0) };
    lost.state.ended(lost.subscription, &refused(ErrorCode::OffsetOutOfRange, none), 0);
    lost.subscribe(SubscribeAt::Offset(Offset(0), Term::UNKNOWN));
    lost.deliver(0, 0);
    assert_eq!(offsets(&lost.take(0)), [0, 1, 2, 3]);
}

#[test]
fn a_group_of_another_model_is_left_at_once() {
    let settings = ConsumerSettings {
        acks_before: false,
        queue_messages_max: 1,
        bytes_max: 1,
        revoke_ms_max: 1,
        join_ms_max: None,
    };
    for (progress, model) in [(Some(begun()), GroupModel::Cluster), (None, GroupModel::Broadcast)] {
        let state = ConsumerState::<u32>::new(settings.clone(), Vec::new(), 7);
        let mut state = state.with_progress(progress);
        let join = state.poll_member(0).unwrap();
        state.joined(join.number, joined(model), 0);
        let Some(NoMore::Refused(refusal)) = state.take_refusal() else { panic!("taken") };
        assert_eq!(refusal.code, ErrorCode::InvalidSettings);
        let leave = state.poll_member(0).unwrap();
        state.left(leave.number, 0);
        assert!(state.is_over(0));
    }
}

/// Where a member of a group that begins at the end begins the queues that it is assigned, one after the
/// other: queue 0 once more when it was refused.
fn begins(progress: OwnProgress) -> Vec<SubscribeAt> {
    let settings = ConsumerSettings {
        acks_before: false,
        queue_messages_max: 100,
        bytes_max: 1 << 20,
        revoke_ms_max: 3_000,
        join_ms_max: None,
    };
    let subscription = GroupSubscription { topics: (&topic()).into(), filter: MessageFilter::All };
    let state = ConsumerState::<u32>::new(settings, vec![subscription], 7);
    let mut state = state.with_progress(Some(progress));
    state.link_up(LINK);
    let join = state.poll_member(0).unwrap();
    let mut reply = joined(GroupModel::Broadcast);
    reply.settings.start = ListAt::Last;
    state.joined(join.number, reply, 0);
    let mut begins = Vec::new();
    for count in 1..=2 {
        let now_ms = u64::from(count) * 3_000;
        state.tick(now_ms);
        let beat = state.poll_member(now_ms).unwrap();
        let queues = (0..count).map(|queue| AssignedQueue {
            topic: topic(),
            topic_id: TopicId(1),
            queue: QueueId(queue),
            generation: Generation::NONE,
        });
        let (generation, assigned) = (Generation(count.into()), Some(queues.collect()));
        let reply = GroupHeartbeatReply { generation, assigned, settings: None, divide: None };
        state.heard(beat.number, reply, now_ms);
        if state.poll_route(now_ms).is_some() {
            let route = Route { topic_id: TopicId(1), links: [Some(LINK); 2].into() };
            state.route(&topic(), Ok(route), now_ms);
        }
        let ask = state.poll_ask(now_ms).unwrap();
        begins.push(state.start_of(ask.slot));
        if count == 1 {
            let busy = ErrorReply::new(ErrorCode::Overloaded, "x").into();
            state.refused((ask.slot, ask.number), &busy, now_ms);
            let ask = state.poll_ask(now_ms + 2_000).unwrap();
            begins.push(state.start_of(ask.slot));
            state.subscribed((ask.slot, ask.number), Offset(10));
        }
    }
    begins
}

#[test]
fn what_comes_later_to_a_member_that_began_at_the_end_is_read_from_when_it_began() {
    let since = |time: u64| SubscribeAt::Time(TimestampMs(time - 1_000));
    let own = since(JOINED.0);
    assert_eq!(begins(begun()), [SubscribeAt::Last, own, own]);
    // It was away: what was made meanwhile is its own, too.
    let before = TimestampMs(JOINED.0 - 3_600_000);
    let earlier = OwnProgress { since: Some(before), ..begun() };
    assert_eq!(begins(earlier), [since(before.0); 3]);
    // The first word of a broker is in the file.
    let mut desk = Desk::new(begun(), "*", SubscribeAt::First);
    assert_eq!(desk.write(0).0.since, Some(JOINED));
}
