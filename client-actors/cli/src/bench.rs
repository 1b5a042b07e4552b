//! `grus bench`: what this machine can do, and what Grus does on it.

#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::{Common, ModeArg};
use crate::failure::Failure;
use crate::units;

pub mod body;
pub mod limits;
mod load;
mod memory;
pub mod pace;
mod sound;
mod stopwatch;
pub mod suite;

use load::Load;
use suite::SuiteArgs;

/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 1 << 20;

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
    /// Measure everything several times on a broker of its own, against what is asked of it
    Suite(SuiteArgs),
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
    /// Messages a second, over all connections; a batch is timed from when it was due, not from
    /// when it was sent [default: as fast as receipts come]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub rate: Option<u64>,
    /// Deliver every message so long after the broker took it; `bench produce` alone
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub delay: Option<Duration>,
}

impl LoadArgs {
    fn load(&self, common: &Common) -> Result<Load, Failure> {
        if self.batch == 0 || self.in_flight == 0 || self.connections == 0 {
            let why = "--batch, --in-flight and --connections are at least 1";
            return Err(Failure::Told(why.to_owned()));
        }
        let body_bytes = usize::try_from(self.size).unwrap_or(usize::MAX);
        if !(body::BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&body_bytes) {
            let (min, max) = (body::BODY_BYTES_MIN, BODY_BYTES_MAX);
            return Err(Failure::Told(format!("--size is {min} to {max} bytes")));
        }
        Ok(Load {
            bootstrap: common.bootstrap.clone(),
            connect_wait_max: common.timeout(),
            topic: self.topic.clone(),
            body_bytes,
            batch: self.batch,
            in_flight: self.in_flight,
            connections: self.connections,
            time: self.time,
            rate: self.rate,
            delay: self.delay,
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
        BenchCommand::Consume { load, .. } | BenchCommand::Latency(load) if load.rate.is_some() => {
            return Err(Failure::Told("--rate is of bench produce alone".to_owned()));
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
        BenchCommand::Suite(args) => suite::run(args).await?,
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
        "in_flight": load.in_flight, "connections": load.connections, "rate": load.rate,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn refused(line: &str) -> Option<String> {
        let Ok(Cli { common, command: Command::Bench(command) }) =
            Cli::try_parse_from(format!("grus bench {line}").split(' '))
        else {
            panic!("{line} does not parse");
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // Refused before a broker is looked for.
        runtime.block_on(run(&command, &common)).err().and_then(|failure| failure.line(false))
    }

    #[test]
    fn what_cannot_be_measured_is_refused_by_name() {
        for (line, named) in [
            ("produce t --size 5", "--size"),
            ("produce t --size 2MiB", "--size"),
            ("produce t --batch 0", "--batch"),
            ("latency t --rate 5", "--rate"),
            ("consume t --messages 5 --rate 5", "--rate"),
            ("suite --warm-memory 1000TiB", "--warm-memory"),
            ("produce t --bootstrap 127.0.0.1:1 --timeout 100ms", "127.0.0.1:1"),
        ] {
            assert!(refused(line).is_some_and(|told| told.contains(named)), "{line}");
        }
    }
}
