//! How long it takes to find a message: by id and by key, those that are there and those that are not.
//!
//! `cargo run --release -p grus-client --example find_speed -- fill T ADDRESS MESSAGES BYTES SAMPLE`
//! sends messages, each with a key of its own, and writes every so-manieth id and key to the file
//! SAMPLE; `... -- look T ADDRESS SAMPLE` looks them up one by one and prints p50, p99 and the longest.

use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grus_client::{
    Client, ClientConfig, FindBy, Message, MessageId, PendingBatch, ProducerConfig, TopicId,
    TopicName,
};

/// Messages of a batch.
const BATCH: usize = 1_000;
/// Batches awaited at once.
const PENDING_MAX: usize = 32;
/// Look-ups of each kind.
const LOOKS: usize = 1_000;

type Anything = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", topic, address, messages, bytes, sample] => {
            let client = Client::connect(ClientConfig::new([address])).await?;
            fill(&client, topic, messages.parse()?, bytes.parse()?, sample).await?;
            client.close().await;
        }
        ["look", topic, address, sample] => {
            let client = Client::connect(ClientConfig::new([address])).await?;
            look(&client, topic, sample).await?;
            client.close().await;
        }
        _ => return Err("fill T ADDRESS MESSAGES BYTES SAMPLE, or look T ADDRESS SAMPLE".into()),
    }
    Ok(())
}

/// A body that does not compress.
fn body(number: usize, bytes: usize) -> Bytes {
    let mut state = number as u64 + 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&state.to_be_bytes());
    }
    out.truncate(bytes);
    out.into()
}

async fn fill(
    client: &Client,
    topic: &str,
    messages: usize,
    bytes: usize,
    sample: &str,
) -> Result<(), Anything> {
    let producer = client.producer(ProducerConfig::new(topic)?)?;
    let every = (messages / LOOKS).max(1);
    let mut text = String::new();
    let mut pending: Vec<(usize, PendingBatch)> = Vec::new();
    let begun = now();
    for start in (0..messages).step_by(BATCH) {
        let numbers = start..messages.min(start + BATCH);
        let batch: Vec<Message> =
            numbers.map(|n| Message::new(body(n, bytes)).key(format!("key-{n}"))).collect();
        pending.push((start, producer.enqueue_batch(batch).await?));
        if pending.len() == PENDING_MAX {
            let (start, first) = pending.remove(0);
            note(&mut text, start, every, &first.await?.ids)?;
        }
    }
    for (start, last) in pending {
        note(&mut text, start, every, &last.await?.ids)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{messages} messages of {bytes} B in {seconds:.1} s");
    std::fs::write(sample, text)?;
    Ok(())
}

fn note(
    text: &mut String,
    start: usize,
    every: usize,
    ids: &[MessageId],
) -> Result<(), std::fmt::Error> {
    for (number, id) in (start..).zip(ids).filter(|(number, _)| number % every == every / 2) {
        writeln!(text, "{id} key-{number}")?;
    }
    Ok(())
}

async fn look(client: &Client, topic: &str, sample: &str) -> Result<(), Anything> {
    let text = std::fs::read_to_string(sample)?;
    let topic = TopicName::try_from(topic)?;
    let mut lines: Vec<(MessageId, &str)> = Vec::new();
    for line in text.lines().take(LOOKS) {
        let (id, key) = line.split_once(' ').ok_or("a line without a key")?;
        lines.push((id.parse()?, key));
    }
    // In no order: neighbours would find each other's pages.
    lines.sort_by_key(|(id, _)| id.as_bytes()[15] ^ id.as_bytes()[8] ^ id.as_bytes()[7]);
    // Of the same time as one that is there, so that no segment can be passed over by its times.
    let stranger = |id: &MessageId| {
        let mut bytes = *id.as_bytes();
        bytes[15] ^= 0x55;
        bytes[12] ^= 0xaa;
        FindBy::Id(MessageId::from_bytes(bytes))
    };
    let by_key = |key: String| FindBy::Key {
        topic: topic.clone(),
        topic_id: TopicId::UNKNOWN,
        key: key.into_bytes(),
    };
    let hits: Vec<FindBy> = lines.iter().map(|(id, _)| FindBy::Id(*id)).collect();
    let misses = lines.iter().map(|(id, _)| stranger(id)).collect();
    let keys = lines.iter().map(|(_, key)| by_key((*key).to_owned())).collect();
    let no_keys = lines.iter().map(|(_, key)| by_key(format!("{key}-nobody"))).collect();
    measure(client, "id, there", hits, 1).await?;
    measure(client, "id, not there", misses, 0).await?;
    measure(client, "key, there", keys, 1).await?;
    measure(client, "key, not there", no_keys, 0).await
}

async fn measure(
    client: &Client,
    what: &str,
    looks: Vec<FindBy>,
    expected: usize,
) -> Result<(), Anything> {
    let mut took: Vec<Duration> = Vec::new();
    let mut scanned = 0;
    for by in looks {
        let begun = now();
        let found = client.find_messages(by.clone(), 10).await?;
        took.push(begun.elapsed());
        scanned += found.scanned_bytes + found.unsearched_bytes;
        if found.messages.len() != expected {
            return Err(format!("{by:?}: {} found", found.messages.len()).into());
        }
    }
    took.sort_unstable();
    let first = took.len();
    let at = |part: usize| took[(first * part / 100).min(first - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:<15} {first} look-ups: p50 {:.3} ms, p99 {:.3} ms, longest {:.3} ms; {scanned} B read without a table",
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
