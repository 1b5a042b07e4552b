//! The Grus client: sends and reads messages, and manages topics.
//!
//! * [`Client`] finds a broker and keeps the connection; it has the calls about topics.
//! * [`Producer`] sends to a topic: idempotent, pipelined, in order. One by one, as a batch, by
//!   callback or one-way; compressed; by [a choice of queues](QueueChoice); once per
//!   [dedup key](Message::dedup_key); as the only one of [its name](ProducerConfig::name).
//! * Messages for later: [`Message::delay`], [`Message::deliver_at`]; what waits is
//!   [recalled](Client::recall), [listed](Client::list_scheduled), counted and shown.
//! * [`Interceptor`]s see what is sent, before and after.
//! * [`Reader`] reads a topic: from the first or last message, an offset or a time. It is pushed to,
//!   or asks by long polls ([`ReadMode`]); it is a `Stream`.
//! * [`Client::deliver_to`] brings what a reader reads to an actix actor of the program's own.
//! * [`Consumer`] is a member of a group, which shares the messages of topics among its members and
//!   keeps how far each queue is settled: by a handler, one by one, as a `Stream`, or by an actor.
//! * [`Puller`] reads by explicit questions: this queue, from this offset, so many.
//!
//! All of them go on by themselves when the broker is restarted, and wait for one that is not up
//! yet. They are actors on a thread of the client's own, and are used as plain async from any
//! tokio runtime that has its timer enabled, or inside an actix system.
//!
//! ```no_run
//! use grus_client::{Client, ClientConfig, Message, ProducerConfig, ReaderConfig, StartAt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::default()).await?;
//!
//! let producer = client.producer(ProducerConfig::new("greetings")?)?;
//! let receipt = producer.send(Message::new("hello")).await?;
//!
//! let mut reader = client.reader(ReaderConfig::new("greetings", StartAt::First)?)?;
//! let message = reader.next().await?;
//! assert_eq!(message.id(), receipt.id);
//! # Ok(())
//! # }
//! ```

mod admin;
mod backoff;
mod client;
mod clients;
mod config;
mod consume;
mod consumer;
mod courier;
mod deliver;
mod describe;
mod error;
#[cfg(any(test, feature = "fault-injection"))]
mod faults;
mod find;
mod follow;
mod groups;
mod guard;
mod hooks;
mod interceptor;
mod link;
#[cfg(test)]
mod link_silence;
mod message;
mod message_id;
mod producer;
mod progress_store;
mod pull;
mod read;
mod reader;
mod receipt;
mod route;
mod router;
mod runtime;
mod schedule;
mod scheduled;
mod send;
mod shards;
#[cfg(feature = "simulation")]
pub mod simulated;
mod socket;
mod watch;
#[cfg(test)]
mod watch_silence;

pub use admin::TopicChange;
pub use client::{Client, Limits};
pub use clients::{ConnectedClient, ConnectedClients};
pub use config::{
    BOOTSTRAP_DEFAULT, ClientConfig, MissingTopic, OutOfRange, ProducerConfig, QueueChoice,
    QueueSelector, Queues, ReadMode, ReaderConfig, StartAt,
};
pub use consume::{
    AckMode, AnswerError, ConsumeError, Consumed, Consumer, ConsumerConfig, ConsumerEvent,
    ConsumerStop, EventHandler, GroupDelivery, GroupDeliveryHandle, Handed, HandedBatch, Outcome,
    OwnQueue, QueueDivider,
};
pub use deliver::{DeliverTo, Delivery, DeliveryHandle, ReadFailed};
pub use describe::{QueueContents, QueueState, TopicDescription};
pub use error::{ClientError, ReadError, Refusal, SendError};
pub use find::{FindError, FoundMessage, FoundMessages, SentBy};
pub use groups::{DeadLetterMessage, DeadLettersPage, Gathered};
pub use grus_protocol as protocol;
pub use grus_protocol::batch::Compression;
pub use grus_protocol::message::{
    ClientDescription, ClientMember, ClientProducer, ClientReader, CreateTopicReply, DivideMember,
    DivideQueues, DivideTopic, ExpiredPolicy, FindBy, GroupOptions, GroupSubscription, ListAt,
    ListOffsetsReply, MessageFilter, REPLICAS_UNNAMED, SchedulePlace, ScheduleState,
    ScheduledPlace, Timer, TopicKind, TopicSettings, TopicSummary,
};
pub use grus_protocol::{
    BrokerId, Durability, ErrorCode, GroupName, InstanceName, MemberId, MessageId, Offset,
    ProducerName, QueueId, ScheduleName, TimestampMs, TopicId, TopicName,
};
pub use interceptor::{Interceptor, Interceptors, Received};
pub use message::Message;
pub use producer::{Flushed, UNSENT_MAX, Unsent};
pub use pull::{Position, Pulled, Puller};
pub use read::{Delivered, DeliveredBatch, Reader};
pub use receipt::{BatchReceipt, NotAHandle, RecallHandle, Receipt};
pub use schedule::{Cadence, NewSchedule, ScheduleId, SchedulesPage};
pub use scheduled::{ScheduledFilter, ScheduledMessage, ScheduledPage};
pub use send::{PendingBatch, PendingReceipt, Producer};
pub use shards::BrokerShards;
