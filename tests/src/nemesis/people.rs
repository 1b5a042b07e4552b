//! Those who use the cluster meanwhile, each a task: two producers, two members of a group, two readers; and the one
//! who reads everything at the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use grus_client::{
    Client, Consumer, ConsumerConfig, Handed, Message, Outcome, PendingReceipt, Producer,
    ProducerConfig, ReadMode, Reader, ReaderConfig, StartAt,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::field::Field;
use super::schedule::{Blow, Fault};
use super::{QUEUES, TOPIC};
use crate::cluster::ends;
use crate::history::{Act, Event, Kind, Scribe};
use crate::random::Random;
use crate::watch::PATIENCE;

/// Keys of the messages.
const KEYS: u64 = 24;
/// Messages of a producer without an answer, at most.
const UNDER_WAY_MAX: usize = 4_000;
/// Between two looks of a producer at what it is to send.
const BEAT_MS: u64 = 50;
/// What follows the value in a body.
const PADDING: usize = 1_000;
/// Of so many messages a member fails one, when it comes for the first time.
const FAILING: u64 = 50;

/// Where queues end, once that is known.
type Ends = watch::Receiver<Option<Vec<u64>>>;

/// All of it; what went wrong beside what the history shows.
pub async fn live(field: Field, blows: Vec<Blow>, seed: u64, scribe: Scribe) -> Vec<String> {
    let clients = [field.cluster.client().await, field.cluster.client_of_brokers().await];
    let pace = Arc::clone(&field.pace);
    let (no_more, stop) = watch::channel(false);
    let (at_end, goal) = watch::channel(None);
    let (home, stop_group) = watch::channel(false);
    let (mut sending, mut reading, mut working) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for (number, client) in clients.iter().enumerate() {
        let producer = producer(client);
        let random = Random::of(seed.wrapping_mul(31).wrapping_add(number as u64));
        let name = format!("producer-{number}");
        let pace = Arc::clone(&pace);
        sending.spawn(produce(producer, name, random, pace, scribe.clone(), stop.clone()));
        let mode = if number == 0 { ReadMode::Push } else { ReadMode::Poll };
        let who = format!("reader-{number}");
        reading.spawn(read(reader(client, mode), who, Act::Read, scribe.clone(), goal.clone()));
        let who = format!("member-{number}");
        working.spawn(work(member(client), who, scribe.clone(), stop_group.clone()));
    }
    // A retry has the time at which it is due from the clock of who led when it was asked for.
    let had_clocks = blows.iter().any(|blow| matches!(blow.fault, Fault::Clock(_)));
    let (over, is_over) = oneshot::channel();
    thread::spawn(move || {
        let mut field = field;
        let troubles = field.suffer(&blows, &mut Random::of(seed.wrapping_add(1)));
        let _ = over.send((field, troubles)); // the run was given up
    });
    let Ok((mut field, mut troubles)) = is_over.await else {
        return vec!["the nemesis fell, see above".to_owned()];
    };
    println!("all faults are over");
    let _ = no_more.send(true);
    await_all(sending, "the producers get their receipts", &mut troubles).await;
    let ends = ends(&field.cluster, TOPIC);
    let _ = at_end.send(Some(ends.clone()));
    await_all(reading, "the readers come to the end", &mut troubles).await;
    println!("until the group comes to the end, at most {PATIENCE:?}");
    let mut is_settled = timeout(PATIENCE, settled(&clients[0])).await.is_ok();
    if !is_settled && had_clocks {
        println!("until it has what was put off while a clock stood ahead, at most {PATIENCE:?}");
        troubles.extend(field.move_clocks_ahead());
        is_settled = timeout(PATIENCE, settled(&clients[0])).await.is_ok();
    }
    if !is_settled {
        troubles.push(format!("the group does not come to the end ({ends:?})"));
    }
    let _ = home.send(true);
    await_all(working, "the members stop", &mut troubles).await;
    println!("until the brokers agree"); // it has a bound of its own, and panics behind it
    field.cluster.await_agreement(); // nobody sends or answers any more
    let mut last = JoinSet::new();
    let reader = reader(&clients[0], ReadMode::Poll);
    last.spawn(read(reader, "last".to_owned(), Act::Scan, scribe, goal));
    await_all(last, "everything can be read", &mut troubles).await;
    let mut closing = JoinSet::new();
    for client in clients {
        closing.spawn(client.close());
    }
    await_all(closing, "the clients close", &mut troubles).await;
    troubles
}

/// Waits for all of them, and says what for: a run that is stopped from outside shows then what it stood at.
async fn await_all(mut tasks: JoinSet<()>, what: &str, troubles: &mut Vec<String>) {
    println!("until {what}, at most {PATIENCE:?}");
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.expect("it does not panic");
        }
    };
    if timeout(PATIENCE, all).await.is_err() {
        troubles.push(format!("after {PATIENCE:?} it is not so that {what}"));
    }
}

fn producer(client: &Client) -> Producer {
    let mut config = ProducerConfig::new(TOPIC).expect("a name");
    config.retries = 9;
    client.producer(config).expect("a producer")
}

fn reader(client: &Client, mode: ReadMode) -> Reader {
    let mut config = ReaderConfig::new(TOPIC, StartAt::First).expect("a name");
    config.mode = mode;
    client.reader(config).expect("a reader")
}

fn member(client: &Client) -> Consumer {
    let config = ConsumerConfig::new("g").expect("a name");
    let mut config = config.subscribe(TOPIC, "*").expect("a topic");
    config.options.ladder_ms = Some(vec![100]);
    client.consumer(config).expect("a consumer")
}

async fn produce(
    producer: Producer,
    who: String,
    mut random: Random,
    pace: Arc<AtomicU64>,
    scribe: Scribe,
    mut stop: watch::Receiver<bool>,
) {
    let mut beat = interval(Duration::from_millis(BEAT_MS));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = JoinSet::new();
    let mut sent = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = beat.tick() => {}
        }
        for _ in 0..pace.load(Relaxed) * BEAT_MS / 1_000 {
            if waiting.len() >= UNDER_WAY_MAX {
                break;
            }
            let (value, key) = (format!("{who}/{sent}"), format!("key-{}", random.below(KEYS)));
            sent += 1;
            let body = format!("{value} {}", "x".repeat(PADDING));
            let message = Message::new(body).order_key(key.clone());
            scribe.tell(Event::new(&who, Kind::Invoke, Act::Send).of(&value).keyed(&key));
            match producer.enqueue(message).await {
                Ok(pending) => {
                    _ = waiting.spawn(receipt(pending, who.clone(), value, scribe.clone()));
                }
                Err(error) => {
                    let fail = Event::new(&who, Kind::Fail, Act::Send);
                    scribe.tell(fail.of(&value).note(error.to_string()));
                }
            }
        }
        while waiting.try_join_next().is_some() {}
    }
    while waiting.join_next().await.is_some() {}
}

async fn receipt(pending: PendingReceipt, who: String, value: String, scribe: Scribe) {
    let told = match pending.await {
        Ok(receipt) => {
            let (queue, offset) = (u64::from(receipt.queue.0), receipt.offset.0);
            Event::new(&who, Kind::Ok, Act::Send).at(queue, offset)
        }
        Err(error) => {
            let kind = if error.maybe_stored() { Kind::Info } else { Kind::Fail };
            Event::new(&who, kind, Act::Send).note(error.to_string())
        }
    };
    scribe.tell(told.of(&value));
}

/// The value of a message, out of its body.
fn value_of(body: &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == b' ').unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

/// Reads on until each queue is read to its end, once that is known.
async fn read(mut reader: Reader, who: String, act: Act, scribe: Scribe, mut ends: Ends) {
    let mut next = vec![0; QUEUES as usize];
    let mut is_told = false;
    loop {
        let is_there = |next: &[u64]| {
            let ends = ends.borrow();
            ends.as_ref().is_some_and(|ends| next.iter().zip(ends).all(|(next, end)| next >= end))
        };
        if is_there(&next) {
            return reader.close().await;
        }
        let batch = tokio::select! {
            batch = reader.next_batch() => batch,
            _ = ends.changed(), if !is_told => {
                is_told = true;
                continue;
            }
        };
        match batch {
            Ok(messages) => {
                for message in messages {
                    let (queue, offset) = (message.queue.0, message.offset.0);
                    next[queue as usize] = offset + 1;
                    let event = Event::new(&who, Kind::Ok, act).of(&value_of(message.body()));
                    scribe.tell(event.at(u64::from(queue), offset));
                }
            }
            Err(error) => scribe.tell(Event::new(&who, Kind::Info, act).note(error.to_string())),
        }
    }
}

/// Takes what the group has for it, until it may go.
async fn work(mut member: Consumer, who: String, scribe: Scribe, mut stop: watch::Receiver<bool>) {
    let (mut answers, mut failed) = (JoinSet::new(), HashSet::new());
    loop {
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            next = member.next() => next,
        };
        let handed = match next {
            Ok(handed) => handed,
            Err(error) => {
                scribe.tell(Event::new(&who, Kind::Info, Act::Take).note(error.to_string()));
                break;
            }
        };
        let (queue, offset) = (u64::from(handed.queue.0), handed.offset.0);
        let value = value_of(handed.body());
        scribe.tell(Event::new(&who, Kind::Ok, Act::Take).of(&value).at(queue, offset));
        if offset % FAILING == 0 && failed.insert((queue, offset)) {
            handed.answer(Outcome::Nack("not today".to_owned()));
        } else {
            answers.spawn(answer(handed, who.clone(), value, scribe.clone()));
        }
        while answers.try_join_next().is_some() {}
    }
    member.stop().await;
    while answers.join_next().await.is_some() {}
}

async fn answer(handed: Handed, who: String, value: String, scribe: Scribe) {
    scribe.tell(Event::new(&who, Kind::Invoke, Act::Ack).of(&value));
    let (kind, note) = match handed.ack().await {
        Ok(()) => (Kind::Ok, None),
        Err(error) => (Kind::Info, Some(error.to_string())),
    };
    let told = Event::new(&who, kind, Act::Ack).of(&value);
    scribe.tell(Event { note, ..told });
}

/// Until the group is done with all that there is.
async fn settled(client: &Client) {
    let group = "g".try_into().expect("a name");
    let mut beat = interval(Duration::from_millis(200));
    loop {
        beat.tick().await;
        let Ok(progress) = client.group_progress(&group).await else { continue };
        let is_whole = progress.items.len() == QUEUES as usize;
        if is_whole && progress.items.iter().all(|queue| queue.lag == 0) {
            return;
        }
    }
}
