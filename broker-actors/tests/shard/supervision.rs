//! A queue actor that panics: its producers see a short wait, its neighbours nothing.

use futures_util::future::{Either, select};
use grus_broker::error::QueueError;
use grus_broker::topic_queue::QueueAsk;
use grus_log::SimDisk;
use grus_mailbox::Dropped;

use crate::bench::{Bench, Queue, batch, sim_bench, topic};

#[actix::test]
async fn a_panic_under_load_loses_no_receipt_and_the_queue_serves_on() {
    let bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    let (queue, neighbour) = (bench.queue(1, 0), bench.queue(1, 1));
    let parked = queue.fetch(0, 0, 60_000).await;
    let parked_beside = neighbour.fetch(0, 0, 60_000).await;
    let mut answers = Vec::new();
    for round in 0..3_u8 {
        for number in 0..100_u8 {
            answers.push(queue.send(batch(&[&[round, number]])).await);
            neighbour.send(batch(&[&[round, number]])).await.await.unwrap().unwrap();
        }
        queue.ask.put(QueueAsk::Panic).await.unwrap();
    }
    let mut offsets = Vec::new();
    for answer in answers {
        offsets.push(answer.await.expect("the port travels with the batch").unwrap().base_offset.0);
    }
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    assert_eq!(queue.bodies().await.len(), 300);
    assert_eq!(neighbour.bodies().await.len(), 300);
    // The first batch came before the first panic, so it may have answered the parked fetch.
    assert!(matches!(parked.await, Ok(Ok(_)) | Err(Dropped)));
    assert_eq!(parked_beside.await.unwrap().unwrap().batches.len(), 1);

    let restarts = |name: &str| {
        let actors = bench.places.process().census.snapshot();
        let actor = actors.into_iter().find(|actor| actor.name == name).unwrap();
        (actor.kind, actor.restarts)
    };
    assert_eq!(restarts("topic-1/0"), ("TopicQueue", 3));
    assert_eq!(restarts("topic-1/1"), ("TopicQueue", 0));
    bench.stop().await;
}

#[actix::test]
async fn fetches_parked_at_a_panic_lose_their_port_and_later_ones_wait_as_before() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let lost = queue.fetch(0, 0, 60_000).await;
    queue.ask.put(QueueAsk::Panic).await.unwrap();
    assert_eq!(lost.await, Err(Dropped));
    let parked = queue.fetch(0, 0, 60_000).await;
    queue.produce(batch(&[b"a"])).await.unwrap();
    assert_eq!(parked.await.unwrap().unwrap().batches.len(), 1);
    bench.stop().await;
}

#[actix::test]
async fn while_a_queue_is_held_down_after_panics_its_neighbour_answers_everything() {
    // A machine that is busy with other tests may look away for as long as the queue is down: that shows
    // nothing, and is tried again. One that waited for the queue would do so each time.
    for _ in 0..20 {
        let bench = sim_bench().await;
        let is_answered = neighbour_is_answered_meanwhile(&bench).await;
        bench.stop().await;
        if is_answered {
            return;
        }
    }
    panic!("the neighbour waits for the queue that is down");
}

async fn neighbour_is_answered_meanwhile(bench: &Bench<SimDisk>) -> bool {
    bench.open(topic(1, 2)).await.unwrap();
    let (queue, neighbour) = (bench.queue(1, 0), bench.queue(1, 1));
    // Each panic keeps it down for longer than the last; the eighth is the last it is allowed.
    for _ in 0..8 {
        queue.ask.put(QueueAsk::Panic).await.unwrap();
    }
    let held = queue.send(batch(&[b"held"])).await;
    let all_beside = async {
        for number in 0..20_u8 {
            neighbour.produce(batch(&[&[number]])).await.unwrap();
            assert_eq!(neighbour.bodies().await.len(), usize::from(number) + 1);
        }
    };
    match select(std::pin::pin!(all_beside), held).await {
        Either::Left(((), held)) => {
            let offset = held.await.unwrap().unwrap().base_offset;
            assert_eq!(offset.0, 0, "it is rebuilt, and serves");
            true
        }
        Either::Right((held, _)) => {
            assert_eq!(held.unwrap().unwrap().base_offset.0, 0, "it is rebuilt, and serves");
            false
        }
    }
}

#[actix::test]
async fn a_batch_under_way_when_the_log_fails_is_told_that_its_outcome_is_unknown() {
    let mut bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    queue.produce(batch(&[b"before"])).await.unwrap();
    bench.disk.fail_sync_in(1);
    let told = queue.produce(batch(&[b"under way"])).await.unwrap_err();
    assert_eq!(told, QueueError::OutcomeUnknown, "it is in the log, perhaps for good");
    assert!(told.code().outcome_unknown() && !told.code().is_retriable());
    assert!(bench.fatals.recv().await.is_some(), "the process ends");
    bench.abandon().await;
}
