//! A consumer of a group against the fake broker.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use fake::{FakeBroker, PATIENCE};
use futures_util::StreamExt;
use grus_client::{
    AckMode, Client, ClientConfig, ConsumeError, Consumer, ConsumerConfig, ConsumerEvent,
    ErrorCode, GroupDelivery, Handed, Message, Offset, Outcome, ProducerConfig, QueueId,
};

async fn client(broker: &FakeBroker) -> Client {
    Client::connect(ClientConfig::new([broker.address()])).await.unwrap()
}

fn config() -> ConsumerConfig {
    ConsumerConfig::new("billing").unwrap().subscribe("orders", "*").unwrap()
}

/// A broker with a topic of two queues, both the group's member's, and a client.
async fn start() -> (FakeBroker, Client) {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 2);
    broker.state().assign(&[0, 1]);
    let client = client(&broker).await;
    (broker, client)
}

/// Sends `numbers`, three a batch, to the queues in turn.
async fn send(client: &Client, numbers: std::ops::Range<u32>) {
    let producer = client.producer(ProducerConfig::new("orders").unwrap()).unwrap();
    let all: Vec<_> = numbers.collect();
    for (index, three) in all.chunks(3).enumerate() {
        let queue = QueueId(u32::try_from(index % 2).unwrap());
        let message = |number: &u32| Message::new(number.to_string()).queue(queue);
        producer.send_batch(three.iter().map(message).collect()).await.unwrap();
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

fn number(body: &[u8]) -> u32 {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}

fn settled(broker: &FakeBroker) -> usize {
    broker.state().group.queues.values().map(|queue| queue.settled.len()).sum()
}

#[tokio::test]
async fn a_handler_has_each_message_once_and_what_it_returns_is_told() {
    let (broker, client) = start().await;
    send(&client, 0..60).await;
    let mut consumer = client.consumer(config()).unwrap();
    let (stop, seen) = (consumer.stopper(), Mutex::new(Vec::new()));
    let begun = tokio::time::Instant::now();
    let work = consumer.run(async |message| {
        seen.lock().unwrap().push((number(message.body()), message.deliveries));
        match number(message.body()) {
            7 if message.deliveries < 2 => Outcome::Nack("not yet".into()),
            8 => Outcome::DeadLetter("never".into()),
            9 if message.deliveries == 0 => panic!("meant to"),
            _ => Outcome::Ack,
        }
    });
    let done = async {
        broker
            .until("all are settled", |state| {
                state.group.queues.values().map(|queue| queue.settled.len()).sum::<usize>() == 60
            })
            .await;
        stop.stop().await;
    };
    let (result, ()) = within(async { tokio::join!(work, done) }).await;
    assert_eq!(result, Ok(()));
    let seen = seen.into_inner().unwrap();
    let once: BTreeSet<_> = seen.iter().copied().collect();
    assert_eq!(once.len(), seen.len(), "no delivery twice");
    let of = |wanted| -> Vec<_> {
        seen.iter().filter(|(number, _)| *number == wanted).map(|(_, before)| *before).collect()
    };
    assert_eq!((of(7), of(8), of(9)), (vec![0, 1, 2], vec![0], vec![0, 1]));
    assert_eq!(seen.len(), 63);
    let state = broker.state();
    let dead: Vec<_> = state.group.queues.values().flat_map(|queue| queue.dead.values()).collect();
    assert_eq!(dead, ["never"]);
    let reasons: BTreeSet<_> =
        state.group.queues.values().flat_map(|queue| queue.reasons.iter().cloned()).collect();
    assert_eq!(reasons, ["not yet", "the handler panicked"].map(str::to_owned).into());
    // They go together, as many as there are in 50 ms, for each of two queues.
    let requests_max = 2 * (begun.elapsed().as_millis() / 50 + 3);
    let requests = u128::from(state.group.ack_requests);
    assert!(state.group.has_left && requests <= requests_max, "{requests}, {requests_max}");
}

#[tokio::test]
async fn a_message_of_a_queue_comes_in_order_and_one_dropped_unanswered_comes_again() {
    let (broker, client) = start().await;
    send(&client, 0..12).await;
    let mut consumer = client.consumer(config()).unwrap();
    let mut numbers: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
    let mut early = None;
    while numbers[0].len() + numbers[1].len() < 12 {
        let handed = within(consumer.next()).await.unwrap();
        if handed.deliveries > 0 {
            early = Some(handed); // before the other queue has come to its end
            continue;
        }
        numbers[handed.queue.0 as usize].push(number(handed.body()));
        if number(handed.body()) == 4 {
            drop(handed);
        } else {
            within(handed.ack()).await.unwrap();
        }
    }
    assert_eq!(numbers, [vec![0, 1, 2, 6, 7, 8], vec![3, 4, 5, 9, 10, 11]]);
    assert_eq!(settled(&broker), 11, "each ack has arrived before the next message");
    let again = match early {
        Some(again) => again,
        None => within(consumer.next()).await.unwrap(),
    };
    assert_eq!((number(again.body()), again.deliveries), (4, 1));
    again.ack().await.unwrap();
    within(consumer.stop()).await;
    assert!(broker.state().group.has_left);
}

#[tokio::test]
async fn before_mode_hands_out_what_the_broker_has_taken_as_done() {
    let (broker, client) = start().await;
    send(&client, 0..12).await;
    let mut config = config();
    config.ack_mode = AckMode::Before;
    let mut consumer = client.consumer(config).unwrap();
    for _ in 0..12 {
        let handed = within(consumer.next()).await.unwrap();
        let (queue, offset) = (handed.queue.0, handed.offset.0);
        assert!(broker.state().group.queues[&queue].settled.contains(&offset));
        drop(handed);
    }
    let more = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
    assert!(more.is_err(), "nothing comes twice");
}

#[tokio::test]
async fn before_mode_acks_no_more_than_is_asked_for() {
    let (broker, client) = start().await;
    broker.state().assign(&[0]); // of several queues, some acks may arrive before others
    send(&client, 0..60).await;
    let mut config = config();
    config.ack_mode = AckMode::Before;
    let mut consumer = client.consumer(config).unwrap();
    let mut had = 0;
    for _ in 0..5 {
        had += within(consumer.next_batch(4, Duration::MAX)).await.unwrap().len();
        assert_eq!(settled(&broker), had, "nothing is acked that is not handed out");
    }
    assert!((5..=20).contains(&had));
    within(consumer.stop()).await;
    assert_eq!(settled(&broker), had, "nor by stopping");
}

#[tokio::test]
async fn what_nobody_saw_is_handed_back_as_such_when_a_consumer_stops() {
    let (broker, client) = start().await;
    send(&client, 0..60).await;
    let mut consumer = client.consumer(config()).unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let handed = within(consumer.next()).await.unwrap();
        seen.insert((handed.queue.0, handed.offset.0));
        handed.ack().await.unwrap();
    }
    let given_back = within(consumer.next()).await.unwrap();
    given_back.give_back();
    within(consumer.stop()).await;
    let state = broker.state();
    // What was seen is answered for, so all else counts as not delivered. A queue of which nothing has
    // come yet has nothing to say.
    let told: Vec<_> = state.group.queues.values().filter_map(|queue| queue.unseen_from).collect();
    assert!(!told.is_empty() && told.iter().all(|from| *from == 0), "{told:?}");
    assert!(state.group.has_left);
}

#[tokio::test]
async fn a_refusal_is_told_however_late_the_program_asks() {
    let (broker, client) = start().await;
    broker.state().group.refuses_joins = Some(ErrorCode::InvalidSettings);
    let mut consumer = client.consumer(config()).unwrap();
    broker.until("it was refused", |state| state.group.refused_joins > 0).await;
    // The answer is on its way, or was dealt with: either way it is told, once.
    match within(consumer.next()).await {
        Err(ConsumeError::Refused(refusal)) => assert_eq!(refusal.code, ErrorCode::InvalidSettings),
        other => panic!("{other:?}"),
    }
    assert!(within(consumer.next()).await.is_err_and(|error| error == ConsumeError::Closed));
    let consumer = client.consumer(config()).unwrap();
    broker.until("it was refused, too", |state| state.group.refused_joins > 1).await;
    within(consumer.stop()).await; // though nobody took its refusal
}

#[tokio::test]
async fn one_that_cannot_join_in_time_says_what_it_waited_for() {
    let (broker, client) = start().await;
    broker.state().group.refuses_joins = Some(ErrorCode::Unavailable);
    let mut hasty = config();
    hasty.join_wait_max = Some(Duration::from_secs(2)); // it is refused meanwhile, whatever else goes on
    let mut hasty = client.consumer(hasty).unwrap();
    match within(hasty.next()).await {
        Err(ConsumeError::NotJoined(why)) => {
            assert!(why.contains("Unavailable") && why.ends_with("is connected"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(within(hasty.next()).await.is_err_and(|error| error == ConsumeError::Closed));
    assert!(!hasty.has_joined());
    // One that may wait says so meanwhile, and is a member as soon as it may be.
    let (waits, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let patient = config().on_event(move |event| {
        if let ConsumerEvent::Waiting(line) = event {
            waits.send(line.clone()).unwrap();
        }
    });
    let mut patient = client.consumer(patient).unwrap();
    let line = within(waiting.recv()).await.unwrap();
    assert!(line.starts_with("not a member of the group after") && line.contains("Unavailable"));
    broker.state().group.refuses_joins = None;
    send(&client, 0..1).await;
    assert_eq!(number(within(patient.next()).await.unwrap().body()), 0);
    assert!(patient.has_joined());
}

#[tokio::test]
async fn a_queue_that_is_taken_away_is_drained_first_and_then_let_go_of() {
    let (broker, client) = start().await;
    send(&client, 0..12).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let mut config = config().on_event(move |event| told.lock().unwrap().push(event.clone()));
    config.revoke_wait_max = Duration::from_mins(10); // it answers before, on any machine
    let mut consumer = client.consumer(config).unwrap();
    let mut held = Vec::new();
    let of_queue = |held: &[Handed], queue: u32| {
        held.iter().filter(|handed| handed.queue == QueueId(queue)).count()
    };
    while held.len() < 4 || of_queue(&held, 1) == 0 {
        held.push(within(consumer.next()).await.unwrap());
    }
    let left_of_queue_0 = 6 - of_queue(&held, 0);
    broker.state().assign(&[0]);
    broker.until("it says that it still holds queue 1", |state| state.group.holding == [1]).await;
    for handed in held {
        within(handed.ack()).await.unwrap();
    }
    let mut rest = Vec::new();
    while rest.len() < left_of_queue_0 {
        let handed = within(consumer.next()).await.unwrap();
        assert_eq!(handed.queue, QueueId(0), "nothing more of queue 1 is handed out");
        rest.push(number(handed.body()));
        within(handed.ack()).await.unwrap();
    }
    // What lay beside its last message of queue 1 goes back when it looks for more.
    tokio::select! {
        handed = consumer.next() => panic!("{:?} is handed out", handed.map(|one| one.queue)),
        () = broker.until("it has let go of queue 1", |state| state.group.holding.is_empty()) => {}
    }
    let events = events.lock().unwrap().clone();
    let queues = |event: &ConsumerEvent| match event {
        ConsumerEvent::Assigned(queues) => ("assigned", queues.len()),
        ConsumerEvent::Revoked(queues) => ("revoked", queues.len()),
        ConsumerEvent::Lost(queues) => ("lost", queues.len()),
        _ => unreachable!(),
    };
    assert_eq!(events.iter().map(queues).collect::<Vec<_>>(), [("assigned", 2), ("revoked", 1)]);
}

#[tokio::test]
async fn connections_that_break_and_brokers_that_restart_lose_nothing() {
    let (mut broker, client) = start().await;
    send(&client, 0..30).await;
    let mut consumer = client.consumer(config()).unwrap();
    let mut seen = BTreeSet::new();
    for round in 0..30_usize {
        let handed = within(consumer.next()).await.unwrap();
        seen.insert(number(handed.body()));
        if round % 10 == 4 {
            broker.kill().await;
            broker.resume().await;
        }
        handed.answer(Outcome::Ack);
    }
    while seen.len() < 30 {
        let handed = within(consumer.next()).await.unwrap();
        seen.insert(number(handed.body()));
        handed.answer(Outcome::Ack);
    }
    within(consumer.stop()).await;
    assert_eq!(settled(&broker), 30, "what was answered before the stop has arrived");
}

#[tokio::test]
async fn progress_that_is_reset_comes_again_and_old_answers_count_for_nothing() {
    let (broker, client) = start().await;
    broker.state().assign(&[0]);
    send(&client, 0..3).await;
    let mut consumer = client.consumer(config()).unwrap();
    let first = within(consumer.next()).await.unwrap();
    broker.state().reset(0);
    let again = within(async {
        loop {
            let handed = consumer.next().await.unwrap();
            if handed.offset == first.offset {
                break handed;
            }
            handed.answer(Outcome::Ack);
        }
    })
    .await;
    assert!(within(first.ack()).await.is_err(), "of before the reset");
    assert!(!broker.state().group.queues[&0].settled.contains(&0));
    within(again.ack()).await.unwrap();
    assert!(broker.state().group.queues[&0].settled.contains(&0));
}

#[tokio::test]
async fn a_member_that_is_forgotten_loses_its_queues_and_joins_again() {
    let (broker, client) = start().await;
    send(&client, 0..3).await;
    let mut consumer = client.consumer(config()).unwrap();
    let held = within(consumer.next()).await.unwrap();
    broker.state().group.refuses = Some(ErrorCode::UnknownMember);
    broker.state().group.member = 0;
    broker.state().assign(&[0, 1]);
    let again = within(async {
        loop {
            let handed = consumer.next().await.unwrap();
            if handed.offset == held.offset {
                break handed;
            }
            handed.answer(Outcome::Ack);
        }
    })
    .await;
    assert!(within(held.ack()).await.is_err(), "it was lost with its queue");
    within(again.ack()).await.unwrap();
    drop(consumer);
    broker.until("it has left", |state| state.group.has_left).await;
}

#[tokio::test]
async fn a_stream_ends_when_the_consumer_is_stopped_and_a_slow_handler_is_dropped() {
    let (broker, client) = start().await;
    send(&client, 0..6).await;
    let mut config = config();
    config.handler_timeout = Duration::from_millis(50);
    let mut consumer = client.consumer(config).unwrap();
    let stop = consumer.stopper();
    let slow = consumer.run(async |message| {
        if message.deliveries == 0 {
            std::future::pending::<()>().await;
        }
    });
    let done = async {
        broker
            .until("all are settled", |state| {
                state.group.queues.values().map(|queue| queue.settled.len()).sum::<usize>() == 6
            })
            .await;
        stop.stop().await;
    };
    within(async { tokio::join!(slow, done) }).await.0.unwrap();
    let failed: Vec<_> =
        broker.state().group.queues.values().map(|queue| queue.failed.len()).collect();
    assert_eq!(failed, [3, 3]);
    assert!(within(consumer.next()).await.is_err_and(|error| error == ConsumeError::Closed));
    assert!(within(StreamExt::next(&mut consumer)).await.is_none());
}

struct Clerk {
    seen: Arc<Mutex<Vec<u32>>>,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<GroupDelivery> for Clerk {
    type Result = ();

    fn handle(&mut self, delivery: GroupDelivery, _: &mut Context<Self>) {
        self.seen.lock().unwrap().push(number(delivery.body()));
        delivery.answer(Outcome::Ack);
    }
}

#[actix::test]
async fn an_actor_of_the_programs_own_has_them_and_answers() {
    let (broker, client) = start().await;
    send(&client, 0..30).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let clerk = Clerk { seen: Arc::clone(&seen) }.start();
    let consumer: Consumer = client.consumer(config()).unwrap();
    let delivery = consumer.deliver_to(clerk.recipient());
    broker
        .until("all are settled", |state| {
            state.group.queues.values().map(|queue| queue.settled.len()).sum::<usize>() == 30
        })
        .await;
    within(delivery.stop()).await.unwrap();
    let seen: BTreeSet<_> = seen.lock().unwrap().iter().copied().collect();
    assert_eq!(seen, (0..30).collect());
    assert!(broker.state().group.has_left);
    client.close().await;
}

#[tokio::test]
async fn all_dead_letters_are_those_that_are_there_when_it_is_asked() {
    let (broker, client) = start().await;
    broker.topic("%DLQ%billing", 1);
    broker.state().topics.get_mut("%DLQ%billing").unwrap().queues[0].end = Offset(25);
    let group = "billing".try_into().unwrap();
    let sent = within(client.redrive_dead_letters(&group, QueueId(0), &[])).await.unwrap();
    assert_eq!(sent, 25, "those that died again meanwhile stay");
    assert_eq!(broker.state().topics["%DLQ%billing"].queues[0].end, Offset(50));
}
