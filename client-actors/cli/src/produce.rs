//! `grus produce`: a message a line.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Stdout;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use grus_client::{
    Client, Message, PendingReceipt, Producer, ProducerConfig, QueueChoice, RecallHandle, Receipt,
};
use grus_protocol::ids::{BrokerId, QueueId, TimestampMs};
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::args::{Common, ProduceArgs};
use crate::failure::Failure;
use crate::input::{self, Lines};
use crate::lines::Line;
use crate::message::{line_end_header, push_json};
use crate::output::Output;
use crate::{session, units};

/// Most messages whose receipts are outstanding; the client bounds their bytes.
const OUTSTANDING_MAX: usize = 65_536;

/// Longest that one attempt of several may stay unanswered.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

/// What all messages of a run have in common.
struct Template {
    key: Option<String>,
    tag: Option<String>,
    headers: Vec<(String, String)>,
    queue: Option<QueueId>,
    delay: Option<Duration>,
    at: Option<TimestampMs>,
    ttl: Option<Duration>,
}

/// A message under way: its line's number, and its receipt to come.
type Outstanding = (u64, PendingReceipt);

/// The JSON object of a receipt.
#[derive(Serialize)]
struct ReceiptJson<'a> {
    line: u64,
    id: String,
    topic: &'a str,
    queue: u32,
    /// Unless it waits for its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// By which it is recalled while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    /// When it is due, unless that was said with an earlier receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    stored: String,
    durability: String,
    duplicate: bool,
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, a line too long, a message that was not stored in time.
pub async fn run(common: &Common, args: &ProduceArgs) -> Result<(), Failure> {
    session::show_warnings();
    let client = session::connect(common, Some(common.timeout())).await?;
    let template = template(&client, args).await?;
    let lines = input::lines(args.file.as_deref(), message_bytes_max(&client))?;
    let producer = client.producer(config(common, args)?);
    let producer = producer.map_err(|error| Failure::because(&args.topic, error))?;
    let (sender, outstanding) = channel(OUTSTANDING_MAX);
    let mut report = Report::new(common.json, &args.topic);
    // A receipt that does not come ends it at once; an input that ends early waits for its receipts.
    let sending = async { Ok(send(lines, &producer, &template, sender).await) };
    let (sent, ()) = tokio::try_join!(sending, report.take(outstanding))?;
    sent?;
    report.finish()?;
    client.close().await;
    Ok(())
}

fn config(common: &Common, args: &ProduceArgs) -> Result<ProducerConfig, Failure> {
    let topic = &args.topic;
    let mut config = ProducerConfig::new(topic).map_err(|error| Failure::because(topic, error))?;
    let attempts = common.timeout().as_secs().div_ceil(ATTEMPT_LIMIT.as_secs()).clamp(1, 1_000);
    let attempts = u32::try_from(attempts).expect("at most 1,000");
    config.retries = attempts - 1;
    config.send_timeout = common.timeout() / attempts;
    config.compression = args.compression;
    config.queue_choice = if args.spread { QueueChoice::RoundRobin } else { QueueChoice::Sticky };
    Ok(config)
}

/// Reads the lines and hands them to the client, as fast as it has room for them.
async fn send(
    mut lines: Lines,
    producer: &Producer,
    template: &Template,
    outstanding: Sender<Outstanding>,
) -> Result<(), Failure> {
    while let Some(some) = lines.recv().await {
        for line in some? {
            let number = line.number;
            let failed = |error| Failure::because(format!("line {number}"), error);
            let receipt = producer.enqueue(template.message(line)).await.map_err(failed)?;
            if outstanding.send((number, receipt)).await.is_err() {
                return Ok(()); // a receipt did not come: that is what is told
            }
        }
    }
    Ok(())
}

/// What is told about the receipts.
struct Report {
    json: bool,
    topic: String,
    output: Output<Stdout>,
    /// Whether somebody still reads what is printed. The messages go on without.
    heard: bool,
    messages: u64,
    /// Queue, first and last offset, while all receipts are of one queue.
    span: Option<(u32, u64, u64)>,
    queues: Vec<u32>,
    /// The first and the last message that waits for its time.
    scheduled: Option<(RecallHandle, RecallHandle)>,
    /// The earliest and the latest of their times.
    due: Option<(TimestampMs, TimestampMs)>,
}

impl Report {
    fn new(json: bool, topic: &str) -> Self {
        let output = Output::standard();
        let topic = topic.to_owned();
        Self {
            json,
            topic,
            output,
            heard: true,
            messages: 0,
            span: None,
            queues: Vec::new(),
            scheduled: None,
            due: None,
        }
    }

    /// Takes the receipts in the order of their lines.
    async fn take(&mut self, mut outstanding: Receiver<Outstanding>) -> Result<(), Failure> {
        loop {
            let at_hand = outstanding.try_recv().ok();
            let next = if at_hand.is_some() {
                at_hand
            } else {
                self.flush()?;
                outstanding.recv().await
            };
            let Some((line, mut receipt)) = next else { return self.flush() };
            let receipt = if let Some(receipt) = poll_once(&mut receipt).await {
                receipt
            } else {
                self.flush()?;
                receipt.await
            };
            match receipt {
                Ok(receipt) => self.receipt(line, &receipt)?,
                Err(error) => {
                    self.flush()?;
                    return Err(Failure::because(format!("line {line}"), error));
                }
            }
        }
    }

    fn receipt(&mut self, line: u64, receipt: &Receipt) -> Result<(), Failure> {
        let (queue, offset) = (receipt.queue.0, receipt.offset.0);
        self.messages += 1;
        if !self.queues.contains(&queue) {
            self.queues.push(queue);
        }
        if let Some(handle) = &receipt.scheduled {
            let first = self.scheduled.take().map_or_else(|| handle.clone(), |(first, _)| first);
            self.scheduled = Some((first, handle.clone()));
        }
        if let Some(due) = receipt.due {
            let (first, last) = self.due.unwrap_or((due, due));
            self.due = Some((first.min(due), last.max(due)));
        }
        let first = self.span.map_or(offset, |(_, first, _)| first);
        self.span = Some((queue, first, offset));
        if !self.json || !self.heard {
            return Ok(());
        }
        let object = ReceiptJson {
            line,
            id: receipt.id.to_string(),
            topic: &self.topic,
            queue,
            offset: receipt.scheduled.is_none().then_some(offset),
            handle: receipt.scheduled.as_ref().map(ToString::to_string),
            due: receipt.due.map(|due| units::rfc3339(due.0)),
            stored: units::rfc3339(receipt.stored.0),
            durability: receipt.durability.to_string(),
            duplicate: receipt.duplicate,
        };
        let added = self.output.add(|out| push_json(&object, out));
        self.hear(added)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.heard {
            return Ok(());
        }
        let flushed = self.output.flush();
        self.hear(flushed)
    }

    /// A reader of the receipts who leaves must not stop the messages.
    fn hear(&mut self, written: Result<(), Failure>) -> Result<(), Failure> {
        match written {
            Err(Failure::OutputClosed) => {
                self.heard = false;
                Ok(())
            }
            other => other,
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.json || !self.heard {
            return Ok(());
        }
        let noun = if self.messages == 1 { "message" } else { "messages" };
        let (topic, messages) = (&self.topic, format!("{} {noun}", units::grouped(self.messages)));
        let line = match (self.span, self.queues.len()) {
            (Some((queue, ..)), 1) if self.scheduled.is_some() => {
                let span = self.scheduled.as_ref().map(|(first, last)| {
                    if first == last {
                        format!("as {first}")
                    } else {
                        format!("as {first} to {last}")
                    }
                });
                let span = span.unwrap_or_default();
                let due = self.due.map(|(first, last)| match units::rfc3339(first.0) {
                    time if first == last => format!(", due at {time}"),
                    time => format!(", due from {time} to {}", units::rfc3339(last.0)),
                });
                let due = due.unwrap_or_default();
                format!("{messages} to {topic}: queue {queue}, scheduled {span}{due}")
            }
            (Some((queue, first, last)), 1) => {
                format!("{messages} to {topic}: queue {queue}, offsets {first} to {last}")
            }
            (_, queues) => format!("{messages} to {topic} in {queues} queues"),
        };
        let written = self.output.line(&line).and_then(|()| self.output.flush());
        self.hear(written)
    }
}

/// The receipt, if it is here already.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|context| match Pin::new(&mut *future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl Template {
    fn message(&self, line: Line) -> Message {
        let mark = line_end_header(&line);
        let mut message = Message::new(line.body);
        if let Some(key) = &self.key {
            message = message.key(key.clone());
        }
        if let Some(tag) = &self.tag {
            message = message.tag(tag.clone());
        }
        for (name, value) in &self.headers {
            message = message.header(name.clone(), value.clone());
        }
        if let Some((name, value)) = mark {
            message = message.header(name, value);
        }
        if let Some(delay) = self.delay {
            message = message.delay(delay);
        }
        if let Some(at) = self.at {
            message = message.deliver_at(at);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        match self.queue {
            Some(queue) => message.queue(queue),
            None => message,
        }
    }
}

fn message_bytes_max(client: &Client) -> usize {
    usize::try_from(client.limits().message_bytes_max).unwrap_or(usize::MAX)
}

/// One of the queues whose broker is there; any, when none is.
fn any_served(leaders: &[Option<BrokerId>]) -> u32 {
    let all = (0..).zip(leaders);
    let served: Vec<u32> =
        all.filter(|(_, leader)| leader.is_some()).map(|(queue, _)| queue).collect();
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    match served.len() {
        0 => any_below(count(leaders.len())),
        some => served[any_below(count(some)) as usize],
    }
}

async fn template(client: &Client, args: &ProduceArgs) -> Result<Template, Failure> {
    let topic = &args.topic;
    let leaders = client.queue_leaders(topic).await;
    let leaders = leaders.map_err(|error| Failure::because(topic, error))?;
    let queues = u32::try_from(leaders.len()).unwrap_or(u32::MAX);
    let queue = match args.queue {
        Some(queue) if queue >= queues => {
            let why = format!("no queue {queue}, it has {queues}");
            return Err(Failure::because(topic, why));
        }
        Some(queue) => Some(queue),
        None if args.spread || args.key.is_some() => None,
        None => Some(any_served(&leaders)),
    };
    Ok(Template {
        key: args.key.clone(),
        tag: args.tag.clone(),
        headers: args.headers.clone(),
        queue: queue.map(QueueId),
        delay: args.delay,
        at: args.at.map(TimestampMs),
        ttl: args.ttl,
    })
}

/// A number below `bound`, another one in each run.
fn any_below(bound: u32) -> u32 {
    let random = RandomState::new().build_hasher().finish();
    let below = random % u64::from(bound.max(1));
    u32::try_from(below).expect("below a u32")
}
