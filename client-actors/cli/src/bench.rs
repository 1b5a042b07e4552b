//! `grus bench`: what this machine can do, and what Grus does on it.

#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::{Common, ModeArg};
use crate::failure::Failure;
use crate::units;

mod body;
pub mod limits;
mod load;
mod stopwatch;

use load::Load;

/// `grus bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send messages as fast as receipts come
    Produce(LoadArgs),
    /// Read a topic that `bench produce` filled, from its beginning, checking every body
    Consume {
        /// Messages to read, over all connections
        #[arg(long, value_name = "N")]
        messages: u64,
        /// How messages come
        #[arg(long, value_enum, default_value_t = ModeArg::Push)]
        mode: ModeArg,
        /// The load
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Send one message after the other, each after the receipt of the one before
    Latency(LoadArgs),
    /// Measure this machine: loopback TCP, a round trip, writing and syncing a file
    Limits {
        /// Folder for the file that is written and synced
        #[arg(long, value_name = "DIR", default_value = ".")]
        folder: PathBuf,
        /// How long to spend on each figure
        #[arg(long, value_parser = units::duration, default_value = "2s", value_name = "TIME")]
        time: Duration,
    },
    /// The second process of `bench limits`
    #[command(hide = true)]
    Peer,
}

/// What a load is made of.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Topic; it must exist
    pub topic: String,
    /// Bytes of a message's body, at least 12: they carry a sequence and a checksum
    #[arg(long, value_parser = units::bytes, default_value = "1KiB", value_name = "SIZE")]
    pub size: u64,
    /// Messages a batch
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub batch: usize,
    /// Batches on their way at once, per connection
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub in_flight: usize,
    /// Connections, each a client of its own
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub connections: usize,
    /// How long to go on
    #[arg(long, value_parser = units::duration, default_value = "10s", value_name = "TIME")]
    pub time: Duration,
}

impl LoadArgs {
    fn load(&self, common: &Common) -> Result<Load, Failure> {
        if self.batch == 0 || self.in_flight == 0 || self.connections == 0 {
            let why = "--batch, --in-flight and --connections are at least 1";
            return Err(Failure::Told(why.to_owned()));
        }
        Ok(Load {
            bootstrap: common.bootstrap.clone(),
            topic: self.topic.clone(),
            body_bytes: usize::try_from(self.size)
                .unwrap_or(usize::MAX)
                .clamp(body::BODY_BYTES_MIN, 1 << 20),
            batch: self.batch,
            in_flight: self.in_flight,
            connections: self.connections,
            time: self.time,
        })
    }
}

/// Runs one measurement and returns what to print: one JSON object.
///
/// # Errors
/// What kept it from being measured.
pub async fn run(command: &BenchCommand, common: &Common) -> Result<Option<Value>, Failure> {
    let value = match command {
        BenchCommand::Produce(args) => {
            let load = args.load(common)?;
            json!({ "produce": load::produce(&load).await?, "load": described(&load) })
        }
        BenchCommand::Consume { messages, mode, load } => {
            let load = load.load(common)?;
            json!({ "consume": load::consume(&load, *messages, mode.mode()).await?, "load": described(&load) })
        }
        BenchCommand::Latency(args) => {
            let load = args.load(common)?;
            let (messages, ms) = load::one_by_one(&load).await?;
            json!({ "latency": { "messages": messages, "ms": ms }, "load": described(&load) })
        }
        BenchCommand::Limits { folder, time } => {
            let limits = limits::measure(folder, *time)?;
            json!({ "limits": limits })
        }
        BenchCommand::Peer => {
            limits::serve_as_peer()?;
            return Ok(None);
        }
    };
    Ok(Some(value))
}

fn described(load: &Load) -> Value {
    json!({
        "topic": load.topic, "body_bytes": load.body_bytes, "batch": load.batch,
        "in_flight": load.in_flight, "connections": load.connections,
    })
}
