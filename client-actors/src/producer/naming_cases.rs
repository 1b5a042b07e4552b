//! A producer whose name all brokers know: its life, whom it tells of it, and what it goes on as.

use grus_protocol::message::NameScope;
use grus_protocol::{
    BatchLimits, BrokerId, Durability, ErrorCode, ErrorReply, MessageId, NewRecord, Offset,
    ProducerEpoch, ProducerId, QueueId, RecordBatch, TimestampMs, TopicId,
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
const OTHER_LINK: LinkId = LinkId(1);
const OTHER: BrokerId = BrokerId(6);
/// The first epoch of its life.
const LIFE: u32 = 3 * 256;
/// How it asks for a life, and how it tells a broker of it.
const A_LIFE: Need = Need::Identity { source: None, over: None };
const TELL: Need = Need::Identity { source: Some(BROKER), over: Some(LINK) };
const TELL_OTHER: Need = Need::Identity { source: Some(OTHER), over: Some(OTHER_LINK) };

type State = ProducerState<u128, ()>;

fn route(links: &[Option<LinkId>]) -> Route {
    Route { topic_id: TopicId(1), links: links.into() }
}

fn life() -> Identity {
    Identity { producer: ProducerId(7), epoch: ProducerEpoch(LIFE) }
}

/// A producer that has its life, and is connected to both brokers.
fn living(links: &[Option<LinkId>]) -> State {
    let config = ProducerConfig::named("t", "billing").unwrap();
    let mut state = State::new(&config, BatchLimits::PRODUCE, 1, &Guard::default(), 0);
    for (link, broker) in [(LINK, BROKER), (OTHER_LINK, OTHER)] {
        state.leads_to(link, broker);
        state.link_up(link);
    }
    assert_eq!(state.poll_need(0), Some(Need::Route));
    assert_eq!(state.poll_need(0), Some(A_LIFE), "before it has anything to send");
    assert_eq!(state.question(None).0.scope, NameScope::Life);
    state.route(Ok(route(links)), 0);
    state.identity(None, Ok((life(), 256)), 0);
    state
}

/// One of which the broker of all its queues knows.
fn announced(queues: usize) -> State {
    let mut state = living(&vec![Some(LINK); queues]);
    assert_eq!(state.poll_need(0), Some(TELL));
    state.identity(Some(BROKER), Ok((life(), 256)), 0);
    state
}

fn take(state: &mut State, queue: u32, number: u128) {
    let id = MessageId(uuid::Uuid::from_u128(number));
    let record = NewRecord::new(id, TimestampMs(5), "body");
    state.take(Pick::Given(QueueId(queue)), Load::One(record), Ids::One(id), number, 0);
}

fn stored(state: &mut State, sending: &Sending) {
    let (base_offset, at) = (Offset(0), TimestampMs(0));
    let durability = Durability::Persisted;
    let stored =
        Stored { base_offset, at, durability, duplicate: false, timer: None, delays_from: None };
    state.stored(sending.queue, sending.serial, stored);
}

fn refusal(code: ErrorCode) -> Refusal {
    ErrorReply::new(code, "").into()
}

fn refuse(state: &mut State, sending: &Sending, code: ErrorCode) {
    state.refused(sending.queue, (sending.serial, sending.attempt), refusal(code), 0);
}

/// The epoch and the first sequence of a batch.
fn stamp(sending: &Sending) -> (u32, u64) {
    let batch = RecordBatch::from_log(sending.bytes.clone()).unwrap();
    assert_eq!(batch.producer_id(), ProducerId(7));
    (batch.producer_epoch().0, batch.first_sequence().0)
}

fn failed(state: &mut State) -> Vec<(u128, SendError)> {
    let ended = std::iter::from_fn(|| state.poll_ended());
    let errors = ended.filter_map(|ended| Some((ended.members[0].port, ended.result.err()?)));
    errors.collect()
}

#[test]
fn nothing_is_sent_to_a_broker_that_does_not_refuse_earlier_lives_yet() {
    let mut state = living(&[Some(LINK)]);
    take(&mut state, 0, 1);
    assert!(state.poll_send(0).is_none());
    assert_eq!(state.poll_need(0), Some(TELL));
    let told = state.question(Some(BROKER)).0;
    let (id, epoch) = (told.producer_id, told.producer_epoch);
    assert_eq!((told.scope, id, epoch.0), (NameScope::Announce, ProducerId(7), LIFE));
    assert!(state.poll_send(0).is_none(), "it has not answered");
    state.identity(Some(BROKER), Err(refusal(ErrorCode::Unavailable)), 0);
    assert!(state.poll_send(0).is_none());
    assert_eq!(state.poll_need(1_000), Some(TELL), "it is told again");
    state.identity(Some(BROKER), Ok((life(), 256)), 1_000);
    assert_eq!(stamp(&state.poll_send(1_000).unwrap()), (LIFE, 0));
}

/// An earlier life that did ask would get the next epoch, and shut out the one that lives.
#[test]
fn when_another_broker_leads_its_queue_it_goes_on_as_it_is_and_asks_for_nothing() {
    let mut state = announced(1);
    take(&mut state, 0, 1);
    let first = state.poll_send(0).unwrap();
    stored(&mut state, &first);
    take(&mut state, 0, 2);
    let second = state.poll_send(0).unwrap();
    state.link_down(LINK);
    state.route(Ok(route(&[Some(OTHER_LINK)])), 0);
    assert_eq!(state.poll_need(0), None);
    let again = state.poll_send(0).unwrap();
    assert_eq!((again.link, &again.bytes), (OTHER_LINK, &second.bytes), "known as the same");
    stored(&mut state, &again);
    assert_eq!(failed(&mut state), []);

    // A later life is at work there.
    take(&mut state, 0, 3);
    let ghost = state.poll_send(0).unwrap();
    refuse(&mut state, &ghost, ErrorCode::ProducerFenced);
    take(&mut state, 0, 4);
    let failed = failed(&mut state);
    let is_fenced = |one: &(u128, SendError)| matches!(one.1, SendError::Fenced(_));
    assert!(failed.len() == 2 && failed.iter().all(is_fenced), "{failed:?}");
    assert_eq!(state.poll_need(1_000_000), None);
}

/// Whoever was told may have led the queue no more by then, and has told it to other shards alone.
#[test]
fn a_queue_that_stored_nothing_of_its_life_yet_has_whoever_leads_it_next_told() {
    let mut state = announced(2);
    take(&mut state, 0, 1);
    take(&mut state, 1, 2);
    let (one, two) = (state.poll_send(0).unwrap(), state.poll_send(0).unwrap());
    stored(&mut state, &two);
    refuse(&mut state, &one, ErrorCode::NotLeader);
    assert!(state.poll_send(1_000).is_none(), "its shard may not have heard of this life");
    assert_eq!(state.poll_need(1_000), Some(Need::Route));
    assert_eq!(state.poll_need(1_000), Some(TELL));
    state.identity(Some(BROKER), Ok((life(), 256)), 1_000);
    let moved = [Some(OTHER_LINK), Some(OTHER_LINK)];
    state.route(Ok(route(&moved)), 1_000);
    take(&mut state, 1, 3);
    let next = state.poll_send(1_000).unwrap();
    assert_eq!((next.queue, stamp(&next)), (QueueId(1), (LIFE, 1)), "it knows this life");
    assert!(state.poll_send(1_000).is_none(), "what the other one did is of no account here");
    assert_eq!(state.poll_need(1_000), Some(TELL_OTHER));
    take(&mut state, 0, 4);
    // The answer of the one that led it is late, and changes nothing.
    state.identity(Some(BROKER), Ok((life(), 256)), 1_000);
    assert!(state.poll_send(1_000).is_none());
    state.identity(Some(OTHER), Ok((life(), 256)), 1_000);
    let again = state.poll_send(1_000).unwrap();
    assert_eq!((again.link, &again.bytes), (OTHER_LINK, &one.bytes));
    stored(&mut state, &again);
    let behind = state.poll_send(1_000).unwrap();
    assert_eq!((behind.queue, stamp(&behind)), (QueueId(0), (LIFE, 1)), "in order");
}

#[test]
fn a_queue_that_was_led_by_nobody_has_its_broker_told_once_it_has_one() {
    let mut state = living(&[Some(LINK), None]);
    assert_eq!(state.poll_need(0), Some(TELL));
    state.identity(Some(BROKER), Ok((life(), 256)), 0);
    take(&mut state, 1, 1);
    assert!(state.poll_send(0).is_none());
    state.route(Ok(route(&[Some(LINK), Some(LINK)])), 0);
    assert!(state.poll_send(0).is_none(), "its shard may not have heard of this life");
    assert_eq!(state.poll_need(0), Some(TELL));
    state.identity(Some(BROKER), Ok((life(), 256)), 0);
    assert_eq!(stamp(&state.poll_send(0).unwrap()), (LIFE, 0));
}

#[test]
fn a_queue_that_cannot_go_on_takes_the_next_epoch_of_the_life_and_holds_up_no_other() {
    let mut state = announced(2);
    take(&mut state, 0, 1);
    take(&mut state, 1, 2);
    let (one, two) = (state.poll_send(0).unwrap(), state.poll_send(0).unwrap());
    assert_eq!((stamp(&one), stamp(&two)), ((LIFE, 0), (LIFE, 0)));
    refuse(&mut state, &one, ErrorCode::RecordNotAllowed);
    take(&mut state, 0, 3);
    let next = state.poll_send(0).unwrap();
    assert_eq!((next.queue, stamp(&next)), (QueueId(0), (LIFE + 1, 0)));
    stored(&mut state, &two);
    take(&mut state, 1, 4);
    assert_eq!(stamp(&state.poll_send(0).unwrap()), (LIFE, 1));
    assert_eq!(state.poll_need(0), None);
}

#[test]
fn one_whose_life_is_over_when_it_tells_of_it_sends_nothing_more() {
    let mut state = living(&[Some(LINK)]);
    take(&mut state, 0, 1);
    assert_eq!(state.poll_need(0), Some(TELL));
    state.identity(Some(BROKER), Err(refusal(ErrorCode::ProducerFenced)), 0);
    take(&mut state, 0, 2);
    let failed = failed(&mut state);
    assert!(failed.iter().all(|(_, error)| matches!(error, SendError::Fenced(_))), "{failed:?}");
    assert_eq!((failed.len(), state.poll_need(1_000_000)), (2, None));
}
