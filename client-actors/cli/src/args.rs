//! What may be written on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use grus_client::{Compression, ReadMode};

use grus_protocol::ids::MessageId;
use grus_protocol::names::InstanceName;

use crate::bench::BenchCommand;
use crate::cluster::ClusterCommand;
use crate::consume_group::{AckArg, ModelArg};
use crate::delay::DelayCommand;
use crate::dlq::DlqCommand;
use crate::group::GroupCommand;
use crate::schedule::ScheduleCommand;
use crate::units;

/// The one binary of Grus, a message broker: its tools, and the broker itself.
#[derive(Debug, Parser)]
#[command(name = "grus", version, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Brokers, or a registry, to begin with: ADDR[,ADDR...]
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:6086",
        env = "GRUS_BOOTSTRAP",
        value_name = "ADDR"
    )]
    pub bootstrap: Vec<String>,
    /// Write JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for a broker, and for each message to be stored; consume without it waits
    /// for ever [default: 10s]
    #[arg(long, global = true, value_parser = units::limit, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

impl Common {
    /// [`Common::timeout`] or its default.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(10))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker in the foreground
    Broker(DaemonArgs),
    /// Run a registry in the foreground: for several brokers
    Registry(DaemonArgs),
    /// Create, list, describe, alter or delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Send a message a line
    Produce(ProduceArgs),
    /// Print messages, one a line
    Consume(ConsumeArgs),
    /// List, describe, reset or delete consumer groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// List, show, send back, export or remove a group's dead letters
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Find single messages by id, key, offset or time
    #[command(subcommand)]
    Message(MessageCommand),
    /// List, show or take back what is scheduled
    #[command(subcommand)]
    Delay(DelayCommand),
    /// See the brokers and their shards, and move leaders
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// See who is connected
    #[command(subcommand)]
    Client(ClientCommand),
    /// Create, list, pause, resume or delete schedules of recurring messages
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Measure this machine, and a broker on it
    #[command(subcommand)]
    Bench(BenchCommand),
    /// See it work: send a file through a broker that is killed half way, compare what comes out
    Quickstart(QuickstartArgs),
}

/// `grus broker` and `grus registry`
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the data
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Where clients (and brokers, of a registry) connect
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where HTTP is served (a broker's page and API, a registry's health and metrics), or off
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Print every setting in force and where it came from, and end
    #[arg(long)]
    pub print_config: bool,
}

/// When a receipt leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// On disk at a majority of replicas
    Persisted,
    /// In memory at a majority of replicas, on disk soon
    Replicated,
}

/// What a topic takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Messages with and without a due time
    Durable,
    /// Messages with a due time alone
    Delay,
    /// Messages that are kept in memory alone, gone with the broker that leads their queue
    Temporary,
}

/// `grus topic`
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    Create {
        /// Name: letters, digits, `_`, `.`, `-`, at most 200
        name: String,
        /// Number of queues [default: the broker's]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        queues: Option<u32>,
        /// When a receipt leaves [default: persisted]
        #[arg(long, value_enum)]
        durability: Option<DurabilityArg>,
        /// What it takes
        #[arg(long, value_enum, default_value_t = KindArg::Durable)]
        kind: KindArg,
        /// On how many brokers each queue is: with 3, any one of them may die [default: the registry's, 3
        /// or as many as there are brokers]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        replicas: Option<u32>,
        /// What is kept
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// List the topics
    List,
    /// Show a topic's settings and queues
    Describe {
        /// Name of the topic
        name: String,
    },
    /// Change a topic: more queues, other retention
    Alter {
        /// Name of the topic
        name: String,
        /// New number of queues; it only grows
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        queues: Option<u32>,
        /// What is kept
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// Delete a topic and its messages
    Delete {
        /// Name of the topic
        name: String,
    },
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy, Args)]
pub struct RetentionArgs {
    /// How long messages are kept, such as 7d; 0s for ever
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub retention: Option<Duration>,
    /// How many bytes a queue keeps, such as 10GiB; 0 without bound
    #[arg(long, value_parser = units::bytes, value_name = "SIZE")]
    pub retention_bytes: Option<u64>,
    /// How long a dedup key is remembered, such as 10m; 0s: messages with one are refused
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub dedup_window: Option<Duration>,
    /// What becomes of messages whose time to live is over
    #[arg(long, value_enum)]
    pub expired: Option<crate::topic::ExpiredArg>,
    /// How many messages a queue keeps; 0 without bound
    #[arg(long, value_name = "N")]
    pub retention_messages: Option<u64>,
    /// What becomes of a message that finds its queue at its cap by bytes or messages
    #[arg(long, value_enum)]
    pub when_full: Option<crate::topic::WhenFullArg>,
}

/// `grus produce`
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// Topic; created when the broker allows it
    pub topic: String,
    /// File to read instead of standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Key of every message; it also picks the queue
    #[arg(long)]
    pub key: Option<String>,
    /// Tag of every message
    #[arg(long)]
    pub tag: Option<String>,
    /// Header of every message, may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header, action = ArgAction::Append)]
    pub headers: Vec<(String, String)>,
    /// Queue of every message [default: one for the whole run, so that lines keep their order]
    #[arg(long, value_name = "N", conflicts_with = "key")]
    pub queue: Option<u32>,
    /// Go round the queues instead of keeping to one
    #[arg(long, conflicts_with_all = ["key", "queue"])]
    pub spread: bool,
    /// Deliver every message so long after the broker took it
    #[arg(long, value_parser = units::duration, value_name = "TIME", conflicts_with = "at")]
    pub delay: Option<Duration>,
    /// Deliver every message at this time, RFC3339
    #[arg(long, value_parser = units::time_ms, value_name = "TIME")]
    pub at: Option<u64>,
    /// Deliver no message that has been in its queue for so long
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub ttl: Option<Duration>,
    /// How batches are compressed: none, lz4 or zstd
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub compression: Compression,
}

/// `grus consume`
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// Topic; with --group also a pattern, as in `orders.*`
    pub topic: String,
    /// As a member of this group: its members share the messages, and each answers for its own
    #[arg(long, value_name = "NAME", conflicts_with_all = ["queue", "mode"])]
    pub group: Option<String>,
    /// Of the group's messages, only those with one of these tags: `a || b`
    #[arg(long, value_name = "TAGS", requires = "group")]
    pub tags: Option<String>,
    /// When a group's message counts as handled
    #[arg(long, value_enum, requires = "group", default_value_t = AckArg::After)]
    pub ack: AckArg,
    /// How a new group shares its messages [default: cluster]
    #[arg(long, value_enum, requires = "group")]
    pub model: Option<ModelArg>,
    /// The file in which a member of a broadcast group keeps how far it has come [default:
    /// grus-GROUP.progress, or grus-GROUP-MEMBER.progress, in this folder]
    #[arg(long, value_name = "FILE", requires = "model")]
    pub progress: Option<PathBuf>,
    /// Stable name of this member in the group
    #[arg(long, value_name = "NAME", requires = "group")]
    pub member: Option<InstanceName>,
    /// Where to begin: first, last, offset:N or time:RFC3339 [default: last]; a group goes on where
    /// it was, and begins at the first message
    #[arg(long, value_parser = from, value_name = "WHERE")]
    pub from: Option<From>,
    /// This queue alone [default: all]
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// End after N messages
    #[arg(long, value_name = "N")]
    pub max: Option<u64>,
    /// End when no message has come for so long
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub idle_exit: Option<Duration>,
    /// How messages come
    #[arg(long, value_enum, default_value_t = ModeArg::Push)]
    pub mode: ModeArg,
}

/// How messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// The broker sends them as they come
    Push,
    /// The broker is asked for them, and holds the question while there are none
    Pull,
}

impl ModeArg {
    /// As the client library has it.
    pub fn mode(self) -> ReadMode {
        match self {
            Self::Push => ReadMode::Push,
            Self::Pull => ReadMode::Poll,
        }
    }
}

/// `grus message`
#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Show all of a message: by ID, or by a topic with a key, an offset or a time
    Show(ShowArgs),
}

/// `grus client`
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// List connections, with their producers and readers
    List(ClientListArgs),
}

/// `grus client list`
#[derive(Debug, Args)]
pub struct ClientListArgs {
    /// Also those that have been silent for the broker's session timeout
    #[arg(long)]
    pub all: bool,
}

/// `grus message show`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("by").required(true).args(["id", "key", "offset", "time"]))]
pub struct ShowArgs {
    /// The message's id
    #[arg(conflicts_with_all = ["topic", "queue"], value_parser = message_id)]
    pub id: Option<MessageId>,
    /// Topic
    #[arg(long)]
    pub topic: Option<String>,
    /// One of the message's keys
    #[arg(long, requires = "topic", conflicts_with = "queue")]
    pub key: Option<String>,
    /// Queue within the topic
    #[arg(long, value_name = "N", requires = "topic")]
    pub queue: Option<u32>,
    /// Offset within the queue
    #[arg(long, value_name = "O", requires = "topic", requires = "queue")]
    pub offset: Option<u64>,
    /// The first message stored at or after this time, RFC3339; of each queue unless one is named
    #[arg(long, value_name = "TIME", requires = "topic", value_parser = units::time_ms)]
    pub time: Option<u64>,
    /// Show at most so many, the newest of them [default: 32; one with --time]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max: Option<u32>,
}

fn message_id(text: &str) -> Result<MessageId, String> {
    text.parse().map_err(|_| format!("`{text}` is not a message id"))
}

/// `grus quickstart`
#[derive(Debug, Args)]
pub struct QuickstartArgs {
    /// File to send, a message a line [default: a built-in text]
    pub file: Option<PathBuf>,
    /// Folder for the broker's data; a new one is made in it [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Keep the data, to look at it afterwards
    #[arg(long)]
    pub keep: bool,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest message kept.
    First,
    /// What is stored from now on.
    Last,
    /// An offset.
    Offset(u64),
    /// The first message stored at or after this time, in milliseconds since 1970.
    Time(u64),
}

pub(crate) fn from(text: &str) -> Result<From, String> {
    match text.split_once(':') {
        None if text == "first" => Ok(From::First),
        None if text == "last" => Ok(From::Last),
        Some(("offset", number)) => {
            number.parse().map(From::Offset).map_err(|_| format!("`{number}` is not an offset"))
        }
        Some(("time", time)) => units::time_ms(time).map(From::Time),
        _ => Err("expected first, last, offset:N or time:RFC3339".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests;
