//! How clients, producers and readers are set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grus_protocol::batch::Compression;
use grus_protocol::names::NameError;
use grus_protocol::{Offset, ProducerName, QueueId, TimestampMs, TopicName};

use crate::error::ClientError;
use crate::interceptor::Interceptors;
use crate::message::Message;
use crate::producer::IN_FLIGHT_BATCHES_MAX;

/// Where a broker listens unless it is told otherwise.
pub const BOOTSTRAP_DEFAULT: &str = "127.0.0.1:6086";

/// How a [`Client`](crate::Client) finds and treats its broker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Addresses to try in turn, as `host:port`. Default: `127.0.0.1:6086`.
    pub bootstrap: Vec<String>,
    /// The client's name for people: logs, listings. Default: `grus-client`.
    pub client_id: String,
    /// How long [`Client::connect`](crate::Client::connect) waits for a broker; `None`: for ever.
    /// Default: `None`.
    pub connect_wait_max: Option<Duration>,
    /// How long a request for topics or offsets may take, with all its repetitions. Default: 10 s.
    pub request_timeout: Duration,
    /// How long a connection may take to be opened. Default: 5 s.
    pub open_timeout: Duration,
    /// A connection on which nothing came for so long is asked for a sign of life; after as long
    /// again it counts as lost. Default: 5 s.
    pub silence_max: Duration,
    /// The longest wait between two attempts to connect. Default: 1 s.
    pub reconnect_wait_max: Duration,
    /// What sees every message before and after. Default: nothing.
    pub interceptors: Interceptors,
}

impl ClientConfig {
    /// The defaults, with these bootstrap addresses.
    pub fn new<A: Into<String>>(bootstrap: impl IntoIterator<Item = A>) -> Self {
        let bootstrap = bootstrap.into_iter().map(Into::into).collect();
        Self { bootstrap, ..Self::default() }
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        if self.bootstrap.is_empty() {
            return Err(invalid("bootstrap", "names no address"));
        }
        for address in &self.bootstrap {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return Err(invalid("bootstrap", &format!("{address:?} is not host:port")));
            }
        }
        if self.client_id.len() > 255 {
            return Err(invalid("client_id", "is longer than 255 bytes"));
        }
        positive("request_timeout", self.request_timeout)?;
        positive("open_timeout", self.open_timeout)?;
        positive("silence_max", self.silence_max)?;
        positive("reconnect_wait_max", self.reconnect_wait_max)
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec![BOOTSTRAP_DEFAULT.to_owned()],
            client_id: "grus-client".to_owned(),
            connect_wait_max: None,
            request_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(5),
            silence_max: Duration::from_secs(5),
            reconnect_wait_max: Duration::from_secs(1),
            interceptors: Interceptors::default(),
        }
    }
}

/// Which queue a message goes to that names none and has no key.
///
/// A message that names its queue goes there and nowhere else. One with an order key, a key or a
/// dedup key goes to the queue of the key's hash, unless the choice is the program's own function,
/// which is asked for it as well. Where the choice is free, queues that nobody leads at the moment
/// are passed over.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum QueueChoice {
    /// One queue until its batch is complete, then the next one.
    #[default]
    Sticky,
    /// Each message to the next queue.
    RoundRobin,
    /// Each message to any queue.
    Random,
    /// By the hash of the message's key, or of its id if it has none.
    KeyHash,
    /// The queue with the fewest bytes of this producer that are not acknowledged yet; among
    /// equals in turn. A queue whose broker is slow or away gets less. What consumers have yet to
    /// read does not count: a queue keeps it however long it is.
    LeastBacklog,
    /// What a function of the program's own says, see [`QueueChoice::own`].
    Own(QueueSelector),
}

impl QueueChoice {
    /// Has a function choose, out of the message and the number of queues. It is called on the
    /// client's thread and must return at once. A queue that does not exist fails the message with
    /// [`SendError::UnknownQueue`](crate::SendError::UnknownQueue). If it panics, the message goes
    /// where it would go without it. Of a batch, it sees the first message.
    ///
    /// ```
    /// use grus_client::{Message, ProducerConfig, QueueChoice, QueueId};
    ///
    /// let mut config = ProducerConfig::new("orders")?;
    /// config.queue_choice = QueueChoice::own(|message: &Message, queues| {
    ///     QueueId(u32::try_from(message.body().len()).unwrap_or(0) % queues)
    /// });
    /// # Ok::<(), grus_client::protocol::names::NameError>(())
    /// ```
    pub fn own(select: impl Fn(&Message, u32) -> QueueId + Send + Sync + 'static) -> Self {
        Self::Own(QueueSelector(Arc::new(select)))
    }
}

/// A function that chooses queues.
#[derive(Clone)]
pub struct QueueSelector(Arc<Select>);

type Select = dyn Fn(&Message, u32) -> QueueId + Send + Sync;

impl QueueSelector {
    pub(crate) fn select(&self, message: &Message, queues: u32) -> QueueId {
        (self.0)(message, queues)
    }
}

impl fmt::Debug for QueueSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("QueueSelector")
    }
}

/// How a [`Producer`](crate::Producer) sends.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// The topic.
    pub topic: TopicName,
    /// The producer's name, if it has one: after a restart of the program, the producer of the
    /// same name shuts out its earlier life, which gets
    /// [`SendError::Fenced`](crate::SendError::Fenced) for whatever it sends from then on. So of
    /// all producers of a name (and topic) the newest is the only one that stores, whichever brokers
    /// come to lead the topic's queues. Default: none.
    pub name: Option<ProducerName>,
    /// Whether a topic that does not exist is made, if the broker's policy allows it. Default:
    /// yes.
    pub auto_create: bool,
    /// Which queue a message goes to that does not say. Default: sticky.
    pub queue_choice: QueueChoice,
    /// How long an attempt may stay unanswered. Default: 3 s.
    pub send_timeout: Duration,
    /// How often a batch is sent again after an attempt that was not answered in time. Default:
    /// 2. A message fails at the latest `send_timeout * (retries + 1)` after it was taken; within
    /// that time, refusals that ask for patience and lost connections are overcome, however many.
    pub retries: u32,
    /// How long a message may wait for others to fill its batch. Default: 0, which still lets a
    /// batch grow while an earlier one of its queue is under way. Kept to within 20 ms.
    pub linger: Duration,
    /// A batch with so many bytes is complete. Default: 256 KiB.
    pub batch_bytes_max: u32,
    /// How batches are compressed, where the broker of the queue agrees to it (see [`Compression`]).
    /// A batch that would not become shorter is sent as it is; so is one whose queue has moved to a
    /// broker that does not read the compression, also when it was compressed already. Default:
    /// not at all.
    pub compression: Compression,
    /// Most bytes of messages taken and not yet answered. Default: 64 MiB.
    pub pending_bytes_max: u32,
    /// Batches of a queue under way at once, 1 to 5. Default: 5. Order is kept with any.
    pub in_flight_batches_max: usize,
}

impl ProducerConfig {
    /// The defaults for a topic.
    ///
    /// # Errors
    /// When the topic's name breaks the rule of names.
    pub fn new(topic: &str) -> Result<Self, NameError> {
        Ok(Self {
            topic: TopicName::try_from(topic)?,
            name: None,
            auto_create: true,
            queue_choice: QueueChoice::Sticky,
            send_timeout: Duration::from_secs(3),
            retries: 2,
            linger: Duration::ZERO,
            batch_bytes_max: 256 * 1024,
            compression: Compression::None,
            pending_bytes_max: 64 * 1024 * 1024,
            in_flight_batches_max: IN_FLIGHT_BATCHES_MAX,
        })
    }

    /// The defaults for a topic, for a producer that is the only one of its name.
    ///
    /// # Errors
    /// When one of the names breaks the rule of names.
    pub fn named(topic: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self { name: Some(ProducerName::try_from(name)?), ..Self::new(topic)? })
    }

    /// The time after which a message fails at the latest.
    pub fn window(&self) -> Duration {
        self.send_timeout * (self.retries.saturating_add(1))
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        positive("send_timeout", self.send_timeout)?;
        if self.retries > 1_000 {
            return Err(invalid("retries", "is above 1000"));
        }
        if self.batch_bytes_max < 1024 {
            return Err(invalid("batch_bytes_max", "is below 1 KiB"));
        }
        if self.pending_bytes_max < self.batch_bytes_max {
            return Err(invalid("pending_bytes_max", "is below batch_bytes_max"));
        }
        if !(1..=IN_FLIGHT_BATCHES_MAX).contains(&self.in_flight_batches_max) {
            return Err(invalid("in_flight_batches_max", "is not 1 to 5"));
        }
        Ok(())
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The first message there is.
    First,
    /// Behind the last message there is when the reader starts.
    Last,
    /// This offset, in every queue.
    Offset(Offset),
    /// The first message stored at this time or later; behind the last one if there is none.
    Time(TimestampMs),
}

/// Which queues of its topic a reader reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Queues {
    /// All, also those that are added later.
    #[default]
    All,
    /// These.
    Only(Vec<QueueId>),
}

/// What a reader does about a topic that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingTopic {
    /// Fails with [`ReadError::Topic`](crate::ReadError::Topic).
    #[default]
    Error,
    /// Waits until somebody makes it.
    Wait,
}

/// What a reader does when its next offset is not there (any more): retention has removed it, or its
/// topic is temporary, and began anew with another leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Fails with [`ReadError::OffsetOutOfRange`](crate::ReadError::OffsetOutOfRange).
    #[default]
    Error,
    /// Goes on at the nearest offset there is: the first one if the wanted one was removed.
    Nearest,
}

/// How the messages of a [`Reader`](crate::Reader) come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadMode {
    /// The reader asks for them, ahead of the program; the broker holds the question while there
    /// are none (long poll).
    Poll,
    /// The broker sends them as they come, as long as the reader has given it credit. A broker
    /// that is too old for it is asked, as by `Poll`.
    #[default]
    Push,
}

/// How a [`Reader`](crate::Reader) reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReaderConfig {
    /// The topic.
    pub topic: TopicName,
    /// Which of its queues. Default: all.
    pub queues: Queues,
    /// Where to begin.
    pub start: StartAt,
    /// What to do about a topic that does not exist. Default: fail.
    pub missing_topic: MissingTopic,
    /// What to do when the next offset is not there. Default: fail.
    pub out_of_range: OutOfRange,
    /// How messages come. Default: push.
    pub mode: ReadMode,
    /// How long the broker holds a request when there is nothing to read, in mode `Poll`.
    /// Default: 15 s.
    pub poll_wait: Duration,
    /// Messages of one queue that may be on the way or read ahead, in mode `Push`; a batch
    /// comes whole. Default: 65,536.
    pub push_messages_max: u32,
    /// Bytes asked for at once, of one queue, in mode `Poll`. Default: 1 MiB.
    pub fetch_bytes_max: u32,
    /// Bytes read ahead, all queues together. Default: 16 MiB. A topic of more queues than fit
    /// is asked for less of each, but not for less than 4 KiB; a batch comes whole, however large. In
    /// mode `Push` it is the credit of bytes, divided among the queues. Batches count as they are
    /// stored: a compressed one is decompressed when the program takes it.
    pub buffer_bytes_max: u32,
}

impl ReaderConfig {
    /// The defaults for a topic, beginning at `start`.
    ///
    /// # Errors
    /// When the topic's name breaks the rule of names.
    pub fn new(topic: &str, start: StartAt) -> Result<Self, NameError> {
        Ok(Self {
            topic: TopicName::try_from(topic)?,
            queues: Queues::All,
            start,
            missing_topic: MissingTopic::Error,
            out_of_range: OutOfRange::Error,
            mode: ReadMode::Push,
            poll_wait: Duration::from_secs(15),
            push_messages_max: 65_536,
            fetch_bytes_max: 1024 * 1024,
            buffer_bytes_max: 16 * 1024 * 1024,
        })
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        if matches!(&self.queues, Queues::Only(queues) if queues.is_empty()) {
            return Err(invalid("queues", "names no queue"));
        }
        if self.push_messages_max == 0 {
            return Err(invalid("push_messages_max", "is 0"));
        }
        if self.fetch_bytes_max < 1024 {
            return Err(invalid("fetch_bytes_max", "is below 1 KiB"));
        }
        if self.buffer_bytes_max < self.fetch_bytes_max {
            return Err(invalid("buffer_bytes_max", "is below fetch_bytes_max"));
        }
        Ok(())
    }
}

/// A duration in whole milliseconds, rounded up.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX / 4)
}

pub(crate) fn positive(field: &'static str, duration: Duration) -> Result<(), ClientError> {
    if duration.is_zero() { Err(invalid(field, "is zero")) } else { Ok(()) }
}

pub(crate) fn invalid(field: &'static str, problem: &str) -> ClientError {
    ClientError::Config { field, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense() {
        ClientConfig::default().check().unwrap();
        let producer = ProducerConfig::new("orders").unwrap();
        producer.check().unwrap();
        assert_eq!(producer.window(), Duration::from_secs(9));
        ReaderConfig::new("orders", StartAt::First).unwrap().check().unwrap();
        assert!(ProducerConfig::new("../x").is_err());
    }

    #[test]
    fn addresses_need_a_port() {
        for (address, good) in
            [("localhost:6086", true), ("[::1]:6086", true), ("host", false), ("host:0", false)]
        {
            assert_eq!(ClientConfig::new([address]).check().is_ok(), good, "{address}");
        }
        assert!(ClientConfig::new(Vec::<String>::new()).check().is_err());
    }
}
