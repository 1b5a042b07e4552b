//! A whole broker on a real data folder, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::path::Path;
use std::time::Duration;

use client::{Client, batch};
use grus_broker::config::BrokerConfig;
use grus_broker::topic_queue::QueueAsk;
use grus_broker::{Broker, StartError};
use grus_mailbox::{Clock, FatalPort, Process};
use grus_protocol::batch::Compression;
use grus_protocol::ids::{Durability, Offset, QueueId, TimestampMs, TopicId};
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, DeleteTopic, DeleteTopicReply,
    DescribeTopic, DescribeTopicReply, Fetch, FetchReply, Hello, HelloReply, InitProducer,
    InitProducerReply, ListAt, ListOffsets, ListOffsetsReply, ListTopics, ListTopicsReply,
    Metadata, MetadataReply, Produce, ProduceReply, TopicSettings,
};
use grus_protocol::{
    BatchBuilder, BatchLimits, ErrorCode, MessageId, NewRecord, RecordBatch, TopicName,
};

/// Longest that a stop may take here, a fifth of it or more for each stage: long for a machine that is busy with
/// other tests, and shorter than a hold.
const UNHURRIED: Duration = Duration::from_mins(2);
/// How long a fetch is held that finds nothing, in milliseconds.
const HOLD_MS: u32 = 60_000;

fn config(folder: &Path) -> BrokerConfig {
    let mut config = BrokerConfig {
        data: folder.join("data"),
        listen_address: "127.0.0.1:0".into(),
        http_address: "127.0.0.1:0".into(),
        core_arbiters: 1,
        shutdown_timeout: UNHURRIED,
        ..BrokerConfig::default()
    };
    config.log.segment_bytes = 4 << 20;
    config.log.first_segment_bytes = 4 << 20;
    config
}

fn process() -> Process {
    Process::new(Clock::system(), FatalPort::new(|fatal| panic!("{fatal}")))
}

async fn start(folder: &Path) -> Broker {
    Broker::start(config(folder), process()).await.unwrap()
}

async fn client(broker: &Broker) -> Client {
    Client::greeted(broker.addresses().listen).await
}

fn name(text: &str) -> TopicName {
    TopicName::try_from(text).unwrap()
}

fn produce(topic: &str, queue: u32) -> Produce {
    let topic = name(topic);
    Produce { topic, topic_id: TopicId::UNKNOWN, queue: QueueId(queue), timeout_ms: 0 }
}

fn fetch(topic: &str, queue: u32, offset: u64, wait_ms: u32) -> Fetch {
    Fetch { wait_ms, ..Fetch::new(name(topic), QueueId(queue), Offset(offset), 1 << 20) }
}

/// The bodies of a fetch from `offset` on.
async fn bodies(client: &mut Client, topic: &str, queue: u32, offset: u64) -> Vec<Vec<u8>> {
    let (reply, body) = client.call_for_body(&fetch(topic, queue, offset, 0)).await.unwrap();
    let mut at = 0;
    let mut bodies = Vec::new();
    for batch in &reply.batches {
        let bytes = body.slice(at..at + batch.length as usize);
        at += batch.length as usize;
        let checked = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        bodies.extend(checked.records().map(|record| record.unwrap().body().to_vec()));
    }
    bodies
}

#[actix::test]
async fn a_message_goes_in_and_comes_out_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let ask = Metadata { topics: vec![name("orders")], auto_create: true };
    let metadata: MetadataReply = client.call(&ask).await.unwrap();
    assert_eq!(metadata.topics[0].error, None);
    assert_eq!(metadata.topics[0].queues.len(), 4, "the default");
    assert_eq!(metadata.brokers[0].port, broker.addresses().listen.port());

    let (sent, queue) = (batch(&[b"one", b"", b"three\r\n\0\xff"]), 2);
    let receipt: ProduceReply = client.call_with(&produce("orders", queue), &sent).await.unwrap();
    assert_eq!((receipt.base_offset, receipt.durability), (Offset(0), Durability::Persisted));
    let receipt: ProduceReply = client.call_with(&produce("orders", queue), &sent).await.unwrap();
    assert_eq!(receipt.base_offset, Offset(3));
    let expected = [&b"one"[..], b"", b"three\r\n\0\xff"].repeat(2);
    assert_eq!(bodies(&mut client, "orders", queue, 0).await, expected);
    drop(client);

    for report in broker.stop().await {
        assert_eq!(report.overdue, Vec::<String>::new(), "{report:?}");
    }
    let broker = start(folder.path()).await;
    let mut client = self::client(&broker).await;
    assert_eq!(bodies(&mut client, "orders", queue, 0).await, expected);
    let receipt: ProduceReply = client.call_with(&produce("orders", queue), &sent).await.unwrap();
    assert_eq!(receipt.base_offset, Offset(6));
    broker.stop().await;
}

#[actix::test]
async fn a_compressed_batch_is_kept_as_it_came_and_shown_to_those_who_agreed_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let mut plain_only = Client::stranger(broker.addresses().listen).await;
    let hello = Hello { compressions: Compression::None.bit(), ..Hello::new("old", "old") };
    let agreed: HelloReply = plain_only.call(&hello).await.unwrap();
    assert_eq!(agreed.compressions, Compression::None.bit());

    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    let body = vec![b'z'; 10_000];
    let id = MessageId::from_parts(TimestampMs(1), &[1; 10]);
    builder.push(&NewRecord::new(id, TimestampMs(1), body.clone())).unwrap();
    builder.compress(Compression::Zstd);
    let compressed = builder.finish();
    assert!(compressed.len() < 500);
    client.call_with(&produce("t", 0), &batch(&[b"plain"])).await.unwrap();
    client.call_with(&produce("t", 0), &compressed).await.unwrap();
    let refused = plain_only.call_with(&produce("t", 0), &compressed).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnsupportedCompression);

    let (reply, bytes) = client.call_for_body(&fetch("t", 0, 0, 0)).await.unwrap();
    assert_eq!(bytes.slice(reply.batches[0].length as usize..), compressed, "as it came");
    let (reply, _) = plain_only.call_for_body(&fetch("t", 0, 0, 0)).await.unwrap();
    assert_eq!((reply.batches.len(), reply.end_offset), (1, Offset(2)), "up to what it can read");
    let refused = plain_only.call_for_body(&fetch("t", 0, 1, 0)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnsupportedCompression);
    let bytes = RecordBatch::from_log(compressed).unwrap();
    let short = BatchLimits { batch_bytes_max: 9_999, ..BatchLimits::FORMAT };
    assert!(bytes.decompressed(&short).is_err());
    assert_eq!(bytes.decompressed(&BatchLimits::PRODUCE).unwrap().len_bytes() / 10_000, 1);
    broker.stop().await;
}

#[actix::test]
async fn topics_are_made_described_changed_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let settings =
        TopicSettings { queues: 2, durability: Durability::Replicated, ..TopicSettings::default() };
    let create = CreateTopic { name: name("t"), settings: settings.clone(), if_not_exists: false };
    let made: CreateTopicReply = client.call(&create).await.unwrap();
    let on_this_one = TopicSettings { replicas: 1, ..settings.clone() };
    assert_eq!((made.created, &made.settings), (true, &on_this_one));
    assert_eq!(client.call(&create).await.unwrap_err().code, ErrorCode::TopicExists);
    let again: CreateTopicReply =
        client.call(&CreateTopic { if_not_exists: true, ..create.clone() }).await.unwrap();
    assert_eq!((again.created, again.id), (false, made.id));

    let sent: ProduceReply = client.call_with(&produce("t", 1), &batch(&[b"x"])).await.unwrap();
    assert_eq!(sent.durability, Durability::Replicated);
    let described: DescribeTopicReply =
        client.call(&DescribeTopic { name: name("t") }).await.unwrap();
    assert_eq!((described.id, described.queues.len()), (made.id, 2));
    assert_eq!(described.queues[1].end_offset, Offset(1));
    assert!(described.queues[1].last_stored.0 > 0);

    let missing = client.call_with(&produce("t", 2), &batch(&[b"x"])).await;
    assert_eq!(missing.unwrap_err().code, ErrorCode::UnknownQueue);
    let alter = AlterTopic {
        name: name("t"),
        topic_id: made.id,
        queues: Some(3),
        retention_ms: None,
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    };
    let altered: AlterTopicReply = client.call(&alter).await.unwrap();
    assert_eq!(altered.settings.queues, 3);
    let _: ProduceReply = client.call_with(&produce("t", 2), &batch(&[b"x"])).await.unwrap();
    assert_eq!(bodies(&mut client, "t", 1, 0).await, [b"x"], "what was there is there");

    let list = ListTopics { after: None, topics_max: 0, include_system: false };
    let listed: ListTopicsReply = client.call(&list).await.unwrap();
    assert_eq!(listed.topics.len(), 1);
    let delete = DeleteTopic { name: name("t"), topic_id: TopicId::UNKNOWN };
    let deleted: DeleteTopicReply = client.call(&delete).await.unwrap();
    assert_eq!(deleted.id, made.id);
    let gone = client.call(&fetch("t", 1, 0, 0)).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::UnknownTopic);
    let remade: CreateTopicReply = client.call(&create).await.unwrap();
    assert_ne!(remade.id, made.id);
    assert_eq!(bodies(&mut client, "t", 1, 0).await, Vec::<Vec<u8>>::new(), "a new life");
    broker.stop().await;
}

#[actix::test]
async fn names_and_policies_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.topic.auto_create = false;
    let broker = Broker::start(config, process()).await.unwrap();
    let mut client = client(&broker).await;
    let refused = client.call_with(&produce("t", 0), &batch(&[b"x"])).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownTopic);
    let ask = Metadata { topics: vec![name("t")], auto_create: true };
    let metadata: MetadataReply = client.call(&ask).await.unwrap();
    assert_eq!(metadata.topics[0].error.as_ref().unwrap().code, ErrorCode::UnknownTopic);
    let system = CreateTopic {
        name: TopicName::system("DLQ", "g").unwrap(),
        settings: TopicSettings::default(),
        if_not_exists: false,
    };
    assert_eq!(client.call(&system).await.unwrap_err().code, ErrorCode::InvalidName);
    let settings = TopicSettings { queues: 5_000, ..TopicSettings::default() };
    let wide = CreateTopic { name: name("wide"), settings, if_not_exists: false };
    assert_eq!(client.call(&wide).await.unwrap_err().code, ErrorCode::InvalidSettings);
    broker.stop().await;
}

#[actix::test]
async fn a_reader_waits_for_news_and_asks_for_places() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut reader = client(&broker).await;
    let mut writer = client(&broker).await;
    let empty: FetchReply = {
        let _: ProduceReply =
            writer.call_with(&produce("t", 0), &batch(&[b"first"])).await.unwrap();
        reader.call(&fetch("t", 0, 1, 0)).await.unwrap()
    };
    assert_eq!((empty.batches.len(), empty.end_offset), (0, Offset(1)), "no message yet");

    let waiting = tokio::task::spawn_local(async move {
        let reply: FetchReply = reader.call(&fetch("t", 0, 1, HOLD_MS)).await.unwrap();
        reply
    });
    let _: ProduceReply = writer.call_with(&produce("t", 0), &batch(&[b"second"])).await.unwrap();
    let news = waiting.await.unwrap();
    assert_eq!(news.batches[0].base_offset, Offset(1));

    for (at, offset) in [(ListAt::First, 0), (ListAt::Last, 2)] {
        let (topic, queue) = (name("t"), QueueId(0));
        let ask = ListOffsets { topic, topic_id: TopicId::UNKNOWN, queue, at };
        let listed: ListOffsetsReply = writer.call(&ask).await.unwrap();
        assert_eq!(listed.offset, Offset(offset));
    }
    let beyond = writer.call(&fetch("t", 0, 9, 0)).await.unwrap_err();
    assert_eq!(beyond.code, ErrorCode::OffsetOutOfRange);
    broker.stop().await;
}

#[actix::test]
async fn a_stop_tells_those_who_wait_and_is_done_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut reader = client(&broker).await;
    let _: ProduceReply = reader.call_with(&produce("t", 0), &batch(&[b"x"])).await.unwrap();
    reader.ask(9, &fetch("t", 0, 1, HOLD_MS)).await;
    let mut stuck = client(&broker).await; // never reads what it asks for
    for n in 0..200 {
        stuck.ask(n, &fetch("t", 0, 0, 0)).await;
    }
    // Neither the end of the hold nor the one who does not read is waited for: it would be given up.
    for report in broker.stop().await {
        assert_eq!(report.overdue, Vec::<String>::new(), "{report:?}");
    }
    let answer = reader.frame().await.expect("an answer before the end");
    assert_eq!(answer.head.correlation, 9);
    assert!(reader.frame().await.is_none());
}

#[actix::test]
async fn a_queue_that_panics_serves_again_and_its_neighbours_notice_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    for queue in [0, 1] {
        let _: ProduceReply =
            client.call_with(&produce("t", queue), &batch(&[b"x"])).await.unwrap();
    }
    for round in 1..=3_u64 {
        let topic = broker.routes().get(&name("t")).cloned().unwrap();
        let queue = topic.queue(topic.id, QueueId(0)).unwrap();
        queue.ask.try_put(QueueAsk::Panic).unwrap();
        let neighbour: ProduceReply =
            client.call_with(&produce("t", 1), &batch(&[b"y"])).await.unwrap();
        assert_eq!(neighbour.base_offset, Offset(round));
        let again = loop {
            match client.call_with(&produce("t", 0), &batch(&[b"z"])).await {
                Ok(receipt) => break receipt,
                Err(error) => assert!(error.retriable, "{error:?}"),
            }
        };
        assert_eq!(again.base_offset, Offset(round), "nothing lost, nothing twice");
        assert_eq!(broker.process().census.restarts_total(), round);
    }
    assert_eq!(bodies(&mut client, "t", 0, 0).await, [&b"x"[..], b"z", b"z", b"z"]);
    broker.stop().await;
}

#[actix::test]
async fn producers_get_identities_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let one: InitProducerReply = client.call(&InitProducer::of_the_broker(None)).await.unwrap();
    let two: InitProducerReply = client.call(&InitProducer::of_the_broker(None)).await.unwrap();
    assert_ne!(one.producer_id, two.producer_id);
    broker.stop().await;
    let broker = start(folder.path()).await;
    let mut client = self::client(&broker).await;
    let three: InitProducerReply = client.call(&InitProducer::of_the_broker(None)).await.unwrap();
    assert!(three.producer_id != one.producer_id && three.producer_id != two.producer_id);
    broker.stop().await;
}

#[actix::test]
async fn a_taken_port_and_a_taken_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let taken = broker.addresses().listen;
    let other = tempfile::tempdir().unwrap();
    let mut second = config(other.path());
    second.listen_address = taken.to_string();
    let error = Broker::start(second, process()).await.err().unwrap();
    assert!(matches!(error, StartError::Port { .. }));
    assert!(error.to_string().contains(&taken.port().to_string()), "{error}");

    let error = Broker::start(config(folder.path()), process()).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&broker.data().display().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    broker.stop().await;
}

#[actix::test]
async fn two_brokers_live_in_one_process_and_leave_no_actor_behind() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (start(one.path()).await, start(two.path()).await);
    let mut client = client(&first).await;
    let _: ProduceReply = client.call_with(&produce("t", 0), &batch(&[b"x"])).await.unwrap();
    let mut other = self::client(&second).await;
    let list = ListTopics { after: None, topics_max: 0, include_system: false };
    let listed: ListTopicsReply = other.call(&list).await.unwrap();
    assert!(listed.topics.is_empty(), "they share nothing");
    let census = first.process().census.clone();
    assert!(!census.is_empty());
    first.stop().await;
    assert!(census.is_empty(), "{:?}", census.snapshot());
    second.stop().await;
}
