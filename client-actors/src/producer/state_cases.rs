//! A whole producer, case by case: answers that are for nobody, choices among many batches, and a
//! compression that a broker does not take.

use grus_protocol::batch::Compression;
use grus_protocol::{
    BatchLimits, Durability, ErrorCode, ErrorReply, MessageId, NewRecord, Offset, ProducerEpoch,
    ProducerId, QueueId, RecordBatch, TimestampMs, TopicId,
};

use super::choice::Pick;
use super::lane::Identity;
use super::outcome::Stored;
use super::parts::{Ids, Load, Need, Sending};
use super::state::ProducerState;
use crate::config::{ProducerConfig, QueueChoice};
use crate::error::{Refusal, SendError};
use crate::guard::Guard;
use crate::route::{LinkId, Route};

const OLD: LinkId = LinkId(0);
const NEW: LinkId = LinkId(1);
const QUEUE: QueueId = QueueId(0);

type State = ProducerState<u128, ()>;

fn state(config: &ProducerConfig, lives: u32) -> State {
    ProducerState::new(config, BatchLimits::PRODUCE, 1, &Guard::default(), lives)
}

fn route(topic: u64, link: LinkId, queues: usize) -> Route {
    Route { topic_id: TopicId(topic), links: vec![Some(link); queues].into() }
}

fn take(state: &mut State, number: u128) {
    let id = MessageId(uuid::Uuid::from_u128(number));
    let record = NewRecord::new(id, TimestampMs(5), vec![b'x'; 2_000]);
    state.take(Pick::Any, Load::One(record), Ids::One(id), number, 0);
}

/// Answers all that it asks for, by this route and an identity of this number.
fn answer_needs(state: &mut State, route: &Route, number: u64) {
    for _ in 0..10 {
        match state.poll_need(0) {
            Some(Need::Route) => state.route(Ok(route.clone()), 0),
            Some(Need::Identity { source, .. }) => {
                let (producer, epoch) = (ProducerId(number), ProducerEpoch(0));
                state.identity(source, Ok((Identity { producer, epoch }, 0)), 0);
            }
            None => {}
        }
        if state.known_route().is_some() && number > 0 {
            state.link_up(route.links[0].unwrap());
        }
    }
}

/// Sends message `number` as the first one, under an identity of the same number.
fn first(state: &mut State, route: &Route, number: u64) -> Sending {
    take(state, u128::from(number));
    for _ in 0..3 {
        answer_needs(state, route, number);
        if let Some(sending) = state.poll_send(0) {
            return sending;
        }
    }
    panic!("it has all it needs");
}

fn receipt() -> Stored {
    let (base_offset, at) = (Offset(0), TimestampMs(0));
    let durability = Durability::Persisted;
    Stored { base_offset, at, durability, duplicate: false, timer: None, delays_from: None }
}

fn refusal(code: ErrorCode) -> Refusal {
    ErrorReply::new(code, "").into()
}

fn ended(state: &mut State) -> Vec<(u128, Result<(), SendError>)> {
    let mut all = Vec::new();
    while let Some(ended) = state.poll_ended() {
        let result = ended.result.map(|_| ());
        all.extend(ended.members.into_iter().map(|member| (member.port, result.clone())));
    }
    all
}

#[test]
fn an_answer_to_a_batch_of_a_life_before_is_for_nobody() {
    let config = ProducerConfig::new("t").unwrap();
    let (mut before, mut after) = (state(&config, 0), state(&config, 1));
    let lost = first(&mut before, &route(1, OLD, 1), 1);
    let sent = first(&mut after, &route(1, OLD, 1), 2);
    after.stored(lost.queue, lost.serial, receipt());
    after.refused(lost.queue, (lost.serial, lost.attempt), refusal(ErrorCode::InvalidRecord), 0);
    assert_eq!(ended(&mut after), [], "a receipt for another message");
    after.stored(sent.queue, sent.serial, receipt());
    assert_eq!(ended(&mut after), [(2, Ok(()))]);
}

#[test]
fn an_answer_to_a_batch_of_a_topic_that_is_gone_is_for_nobody() {
    let mut state = state(&ProducerConfig::new("t").unwrap(), 0);
    let lost = first(&mut state, &route(1, OLD, 1), 1);
    state.route(Err(refusal(ErrorCode::UnknownTopic)), 0);
    let failed = ended(&mut state);
    assert!(matches!(failed[..], [(1, Err(SendError::Timeout { maybe_stored: true, .. }))]));
    let sent = first(&mut state, &route(2, OLD, 1), 2);
    state.stored(lost.queue, lost.serial, receipt());
    assert_eq!(ended(&mut state), [], "the topic made anew does not have it");
    state.stored(sent.queue, sent.serial, receipt());
    assert_eq!(ended(&mut state), [(2, Ok(()))]);
}

/// With a look at every batch for every choice, this takes minutes.
#[test]
fn a_choice_by_backlog_does_not_look_at_the_batches_that_wait() {
    const MESSAGES: u128 = 60_000;
    let mut config = ProducerConfig::new("t").unwrap();
    config.queue_choice = QueueChoice::LeastBacklog;
    config.batch_bytes_max = 1_024; // each message is a batch
    let mut state = state(&config, 0);
    first(&mut state, &route(1, OLD, 4), 1);
    while state.poll_send(0).is_some() {}
    for number in 2..=MESSAGES {
        take(&mut state, number);
    }
    let backlogs: Vec<_> = state.lanes.iter().map(|entry| entry.lane.backlog_bytes()).collect();
    let (least, most) = (backlogs.iter().min().unwrap(), backlogs.iter().max().unwrap());
    assert!(most - least < 10_000 && *least > 100_000, "{backlogs:?}");
}

fn compression(sending: &Sending) -> Compression {
    let batch = RecordBatch::check(sending.bytes.clone(), &BatchLimits::PRODUCE).unwrap();
    batch.compression().unwrap()
}

fn sequences(sent: &[Sending]) -> Vec<u64> {
    let batch = |one: &Sending| RecordBatch::from_log(one.bytes.clone()).unwrap();
    sent.iter().map(|one| batch(one).first_sequence().0).collect()
}

fn all_sent(state: &mut State) -> Vec<Sending> {
    std::iter::from_fn(|| state.poll_send(0)).collect()
}

fn limits(compressions: u32) -> BatchLimits {
    BatchLimits { compressions, ..BatchLimits::PRODUCE }
}

/// A producer with five batches on their way to a broker that reads LZ4.
fn compressing() -> (State, Vec<Sending>) {
    let mut config = ProducerConfig::new("t").unwrap();
    (config.compression, config.batch_bytes_max) = (Compression::Lz4, 1_024);
    let mut state = state(&config, 0);
    state.set_limits(OLD, limits(Compression::None.bit() | Compression::Lz4.bit()));
    let mut sent = vec![first(&mut state, &route(1, OLD, 1), 1)];
    (2..=5).for_each(|number| take(&mut state, number));
    sent.extend(all_sent(&mut state));
    assert_eq!(sequences(&sent), [0, 1, 2, 3, 4]);
    assert!(sent.iter().all(|one| compression(one) == Compression::Lz4));
    (state, sent)
}

#[test]
fn a_queue_that_moves_to_a_broker_without_the_codec_goes_on_plain_under_the_same_sequences() {
    let (mut state, sent) = compressing();
    state.stored(QUEUE, sent[0].serial, receipt());
    // The newest connection is not the one that counts: each has what its own broker said.
    state.set_limits(NEW, limits(Compression::None.bit()));
    state.link_up(NEW);
    state.route(Ok(route(1, NEW, 1)), 0);
    take(&mut state, 6);
    let again = all_sent(&mut state);
    assert_eq!(sequences(&again), [1, 2, 3, 4, 5]);
    assert!(again.iter().all(|one| one.link == NEW && compression(one) == Compression::None));
    for one in &again {
        state.stored(QUEUE, one.serial, receipt());
    }
    let results: Vec<_> = (1..=6).map(|number| (number, Ok(()))).collect();
    assert_eq!(ended(&mut state), results);
    // And back again: what comes from here on is compressed.
    state.set_limits(OLD, limits(Compression::ALL_BITS));
    state.route(Ok(route(1, OLD, 1)), 0);
    take(&mut state, 7);
    assert_eq!(compression(&all_sent(&mut state)[0]), Compression::Lz4);
}

#[test]
fn a_broker_that_refuses_what_it_agreed_to_is_sent_all_of_it_plain_and_asked_no_third_time() {
    let (mut state, sent) = compressing();
    let refused = || refusal(ErrorCode::UnsupportedCompression);
    state.refused(QUEUE, (sent[0].serial, sent[0].attempt), refused(), 0);
    // Those behind it are refused for the gap, or for the same reason.
    state.refused(QUEUE, (sent[1].serial, sent[1].attempt), refusal(ErrorCode::OutOfSequence), 0);
    let again: Vec<_> = std::iter::from_fn(|| state.poll_send(1_000)).collect();
    assert_eq!(sequences(&again), [0, 1, 2, 3, 4]);
    assert!(again.iter().all(|one| compression(one) == Compression::None));
    assert_eq!(ended(&mut state), []);
    state.refused(QUEUE, (again[0].serial, again[0].attempt), refused(), 1_000);
    assert_eq!(ended(&mut state), [(1, Err(SendError::Refused(refused())))]);
}
