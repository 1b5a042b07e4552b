//! What becomes of the others when one message of a batch is refused, or their queue is gone; and
//! how a named producer changes its identity.

use grus_protocol::{
    BatchLimits, BrokerId, Durability, ErrorCode, ErrorDetail, ErrorReply, MessageId, NewRecord,
    Offset, ProducerEpoch, ProducerId, QueueId, RecordBatch, TimestampMs, TopicId,
};

use super::choice::Pick;
use super::lane::Identity;
use super::outcome::Stored;
use super::parts::{Ids, Load, Need, Sending};
use super::state::ProducerState;
use crate::config::ProducerConfig;
use crate::error::{Refusal, SendError};
use crate::guard::Guard;
use crate::route::{LinkId, Route};

const LINK: LinkId = LinkId(0);
const BROKER: BrokerId = BrokerId(5);

type State = ProducerState<u128, ()>;

fn state(config: &ProducerConfig) -> State {
    ProducerState::new(config, BatchLimits::PRODUCE, 1, &Guard::default(), 0)
}

fn route(topic: u64, queues: usize) -> Route {
    Route { topic_id: TopicId(topic), links: vec![Some(LINK); queues].into() }
}

fn identity(number: u64, epoch: u32) -> Identity {
    Identity { producer: ProducerId(number), epoch: ProducerEpoch(epoch) }
}

fn take(state: &mut State, pick: Pick, numbers: impl IntoIterator<Item = u128>) {
    for number in numbers {
        let id = MessageId(uuid::Uuid::from_u128(number));
        let record = NewRecord::new(id, TimestampMs(5), "body");
        state.take(pick, Load::One(record), Ids::One(id), number, 0);
    }
}

/// A producer with a route and a connection that has sent one message, so that the next ones wait
/// and are merged.
fn busy(queues: usize) -> (State, Sending) {
    let mut state = state(&ProducerConfig::new("t").unwrap());
    state.link_up(LINK);
    take(&mut state, Pick::Given(QueueId(0)), [1]);
    answer_needs(&mut state, &route(1, queues), 1);
    let first = state.poll_send(0).unwrap();
    (state, first)
}

fn answer_needs(state: &mut State, route: &Route, number: u64) {
    loop {
        while state.poll_send(0).is_some_and(|_| panic!("nothing may leave yet")) {}
        match state.poll_need(0) {
            Some(Need::Route) => state.route(Ok(route.clone()), 0),
            Some(Need::Identity { source, .. }) => {
                return state.identity(source, Ok((identity(number, 0), 0)), 0);
            }
            None => panic!("it asks for an identity"),
        }
    }
}

fn records(sending: &Sending) -> Vec<u128> {
    let batch = RecordBatch::check(sending.bytes.clone(), &BatchLimits::PRODUCE).unwrap();
    batch.views().map(|record| record.unwrap().id().0.as_u128()).collect()
}

fn stored(state: &mut State, sending: &Sending) {
    let stored = Stored {
        base_offset: Offset(0),
        at: TimestampMs(0),
        durability: Durability::Persisted,
        duplicate: false,
        timer: None,
        delays_from: None,
    };
    state.stored(sending.queue, sending.serial, stored);
}

fn refuse(state: &mut State, sending: &Sending, code: ErrorCode, index: Option<u32>) {
    let mut reply = ErrorReply::new(code, "");
    reply.detail = index.map(|record_index| ErrorDetail::Record { record_index });
    state.refused(sending.queue, (sending.serial, sending.attempt), Refusal::from(reply), 0);
}

fn ended(state: &mut State) -> Vec<(u128, bool)> {
    let ended = std::iter::from_fn(|| state.poll_ended());
    let each = ended.flat_map(|ended| {
        let is_ok = ended.result.is_ok();
        ended.members.into_iter().map(move |member| (member.port, is_ok))
    });
    each.collect()
}

/// All that leaves until nothing does, with a fresh identity where one is asked for.
fn the_rest(state: &mut State) -> Vec<Vec<u128>> {
    let mut left = Vec::new();
    for number in 100.. {
        while let Some(sending) = state.poll_send(0) {
            left.push(records(&sending));
            stored(state, &sending);
        }
        match state.poll_need(0) {
            Some(Need::Identity { source, .. }) => {
                state.identity(source, Ok((identity(number, 0), 0)), 0);
            }
            Some(Need::Route) => {}
            None => break,
        }
    }
    left
}

#[test]
fn the_others_of_a_merged_batch_go_again_without_the_one_that_is_refused() {
    let (mut state, first) = busy(1);
    take(&mut state, Pick::Any, 2..=5);
    stored(&mut state, &first);
    let merged = state.poll_send(0).unwrap();
    assert_eq!(records(&merged), [2, 3, 4, 5]);
    take(&mut state, Pick::Any, 6..=7);
    refuse(&mut state, &merged, ErrorCode::InvalidRecord, Some(1));
    assert_eq!(ended(&mut state), [(1, true), (3, false)]);
    assert_eq!(the_rest(&mut state), [vec![2, 4, 5], vec![6, 7]], "in their order");
    assert_eq!(ended(&mut state), [2, 4, 5, 6, 7].map(|number| (number, true)));
}

#[test]
fn when_nobody_says_which_one_is_refused_it_is_found_by_halves() {
    let (mut state, first) = busy(1);
    take(&mut state, Pick::Any, 2..=9);
    stored(&mut state, &first);
    let mut order = Vec::new();
    for number in 50..80 {
        while let Some(sending) = state.poll_send(0) {
            let ids = records(&sending);
            if ids.contains(&7) {
                refuse(&mut state, &sending, ErrorCode::BatchTooLarge, None);
            } else {
                order.extend(ids);
                stored(&mut state, &sending);
            }
        }
        if let Some(Need::Identity { source, .. }) = state.poll_need(0) {
            state.identity(source, Ok((identity(number, 0), 0)), 0);
        }
    }
    assert_eq!(order, [2, 3, 4, 5, 6, 8, 9]);
    let failed: Vec<_> = ended(&mut state).into_iter().filter(|(_, is_ok)| !is_ok).collect();
    assert_eq!(failed, [(7, false)]);
}

#[test]
fn a_refusal_that_is_about_no_record_is_for_all() {
    let (mut state, first) = busy(1);
    take(&mut state, Pick::Any, 2..=4);
    stored(&mut state, &first);
    let merged = state.poll_send(0).unwrap();
    refuse(&mut state, &merged, ErrorCode::Unauthorized, None);
    assert_eq!(ended(&mut state), [(1, true), (2, false), (3, false), (4, false)]);
}

#[test]
fn what_was_for_a_queue_that_is_gone_goes_to_another_unless_it_was_given_one() {
    let (mut state, first) = busy(4);
    take(&mut state, Pick::Given(QueueId(3)), [2]);
    take(&mut state, Pick::Key(u64::MAX), 3..=5); // queue 3 of 4, 1 of 2
    let under_way = state.poll_send(0).unwrap();
    assert_eq!((under_way.queue, records(&under_way)), (QueueId(3), vec![2, 3, 4, 5]));
    refuse(&mut state, &first, ErrorCode::StaleTopic, None);
    refuse(&mut state, &under_way, ErrorCode::UnknownQueue, None);
    assert_eq!(state.poll_need(0), Some(Need::Route));
    state.route(Ok(route(2, 2)), 0);
    let unknown = state.poll_ended().unwrap();
    assert_eq!(
        unknown.result.unwrap_err(),
        SendError::UnknownQueue { queue: QueueId(3), queues: 2 }
    );
    assert_eq!(unknown.members[0].port, 2);
    let mut rest = the_rest(&mut state);
    rest.sort();
    assert_eq!(rest, [vec![1], vec![3, 4, 5]]);
    let mut all = ended(&mut state);
    all.sort_unstable();
    assert_eq!(all, [1, 3, 4, 5].map(|number| (number, true)));
}

/// A named producer to which a broker has answered that knows names by itself alone.
fn named_by_broker() -> State {
    let mut state = state(&ProducerConfig::named("t", "billing").unwrap());
    assert_eq!(state.poll_need(0), Some(Need::Route));
    assert_eq!(state.poll_need(0), Some(Need::Identity { source: None, over: None }));
    state.identity(None, Ok((identity(3, 0), 0)), 0);
    state
}

#[test]
fn a_named_producer_asks_before_it_has_anything_to_send() {
    let mut state = named_by_broker();
    state.route(Ok(route(1, 1)), 0);
    assert_eq!(state.poll_need(0), None, "not before it is connected");
    state.leads_to(LINK, BROKER);
    state.link_up(LINK);
    let need = Need::Identity { source: Some(BROKER), over: Some(LINK) };
    assert_eq!(state.poll_need(0), Some(need));
}

#[test]
fn one_that_each_broker_names_takes_another_epoch_only_when_nothing_of_it_is_under_way() {
    let mut state = named_by_broker();
    state.leads_to(LINK, BROKER);
    state.link_up(LINK);
    state.route(Ok(route(1, 2)), 0);
    take(&mut state, Pick::Given(QueueId(0)), [1]);
    take(&mut state, Pick::Given(QueueId(1)), [2]);
    let source = Some(BROKER);
    let need = Need::Identity { source, over: Some(LINK) };
    while state.poll_send(0).is_some() {}
    assert_eq!(state.poll_need(0), Some(need));
    state.identity(source, Ok((identity(7, 1), 0)), 0);
    let (one, two) = (state.poll_send(0).unwrap(), state.poll_send(0).unwrap());
    take(&mut state, Pick::Given(QueueId(0)), [3]);
    refuse(&mut state, &one, ErrorCode::RecordNotAllowed, None);
    assert!(state.poll_send(0).is_none(), "what is behind needs another epoch");
    assert_eq!(state.poll_need(0), None, "which would shut out the other queue's batch");
    take(&mut state, Pick::Given(QueueId(1)), [4]);
    assert!(state.poll_send(0).is_none(), "nothing new leaves meanwhile");
    stored(&mut state, &two);
    state.tick(0);
    assert!(state.poll_send(0).is_none());
    assert_eq!(state.poll_need(0), Some(need));
    assert!(state.poll_send(0).is_none());
    state.identity(source, Ok((identity(7, 2), 0)), 0);
    let epochs: Vec<_> = std::iter::from_fn(|| state.poll_send(0))
        .map(|sending| {
            let batch = RecordBatch::from_log(sending.bytes.clone()).unwrap();
            (sending.queue.0, batch.producer_epoch().0, batch.first_sequence().0)
        })
        .collect();
    assert_eq!(epochs, [(0, 2, 0), (1, 2, 0)]);
}

#[test]
fn one_that_each_broker_names_is_the_same_to_it_over_whichever_connection() {
    let mut state = named_by_broker();
    state.leads_to(LINK, BROKER);
    state.link_up(LINK);
    state.route(Ok(route(1, 1)), 0);
    let source = Some(BROKER);
    assert_eq!(state.poll_need(0), Some(Need::Identity { source, over: Some(LINK) }));
    state.identity(source, Ok((identity(7, 1), 0)), 0);
    take(&mut state, Pick::Any, [1]);
    let first = state.poll_send(0).unwrap();

    // That connection leads elsewhere from now on, and another one to this broker.
    let (other, another) = (LinkId(1), BrokerId(6));
    state.link_down(LINK);
    state.leads_to(LINK, another);
    state.link_up(LINK);
    state.leads_to(other, BROKER);
    state.link_up(other);
    while state.poll_send(0).is_some() {}
    assert_eq!(state.poll_need(0), Some(Need::Route), "and no epoch, which would shut it out");
    state.route(Ok(Route { topic_id: TopicId(1), links: vec![Some(other)].into() }), 0);
    assert_eq!(state.poll_need(0), None);
    let again = state.poll_send(0).unwrap();
    assert_eq!((again.link, &again.bytes), (other, &first.bytes), "under the sequence it had");
    stored(&mut state, &again);
    take(&mut state, Pick::Any, [2]);
    let next = RecordBatch::from_log(state.poll_send(0).unwrap().bytes).unwrap();
    assert_eq!((next.producer_epoch(), next.first_sequence().0), (ProducerEpoch(1), 1));
    assert_eq!(ended(&mut state), [(1, true)]);

    // A queue that moves to another broker is sent to under the name it has there.
    let both = Route { topic_id: TopicId(1), links: vec![Some(other), Some(LINK)].into() };
    state.route(Ok(both), 0);
    let need = Need::Identity { source: Some(another), over: Some(LINK) };
    assert_eq!(state.poll_need(0), Some(need));
    state.identity(Some(another), Ok((identity(9, 1), 0)), 0);
    take(&mut state, Pick::Given(QueueId(1)), [3]);
    let there = state.poll_send(0).unwrap();
    let batch = RecordBatch::from_log(there.bytes.clone()).unwrap();
    assert_eq!((there.link, batch.producer_id()), (LINK, ProducerId(9)));
}
