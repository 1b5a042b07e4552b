//! grus: the one binary. Tools, and the broker and registry daemons.
//!
//! * [`args`] is what may be written on the command line; [`failure`] how a command fails.
//! * [`lines`], [`message`], [`message_text`] and [`units`] are logic: plain values, no I/O.
//! * [`daemon`], [`topic`], [`produce`], [`consume`], [`consume_group`], [`group`],
//!   [`dlq`], [`delay`], [`schedule`], [`message_show`], [`client_list`] and [`quickstart`] are the commands.

pub mod args;
pub mod bench;
pub mod client_list;
pub mod cluster;
pub mod consume;
pub mod consume_group;
pub mod daemon;
pub mod delay;
pub mod dlq;
pub mod failure;
pub mod group;
pub mod input;
pub mod lines;
pub mod message;
pub mod message_show;
pub mod message_text;
pub mod output;
pub mod own_broker;
pub mod produce;
pub mod quickstart;
pub mod schedule;
pub mod session;
pub mod topic;
pub mod units;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

use crate::args::{Cli, ClientCommand, Command, Common, MessageCommand};
use crate::failure::Failure;
use crate::output::Output;

/// Runs the command line this process was started with.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => {
            let json = cli.common.json;
            ended(run(cli), json)
        }
        Err(error) if error.use_stderr() => {
            let json = std::env::args_os().any(|word| word == "--json");
            ended(Err(failure::usage(&error)), json)
        }
        Err(help) => {
            let _ = help.print(); // its reader may have left
            ExitCode::SUCCESS
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let common = cli.common;
    match cli.command {
        Command::Broker(args) => daemon::broker(args),
        Command::Registry(args) => daemon::registry(args),
        Command::Topic(command) => session::block_on(topic::run(&common, &command)),
        Command::Produce(args) => session::block_on(produce::run(&common, &args)),
        Command::Consume(args) => session::block_on(consume::run(&common, &args)),
        Command::Group(command) => session::block_on(group::run(&common, &command)),
        Command::Dlq(command) => session::block_on(dlq::run(&common, &command)),
        Command::Delay(command) => session::block_on(delay::run(&common, &command)),
        Command::Schedule(command) => session::block_on(schedule::run(&common, &command)),
        Command::Message(MessageCommand::Show(args)) => {
            session::block_on(message_show::run(&common, &args))
        }
        Command::Cluster(command) => session::block_on(cluster::run(&common, &command)),
        Command::Client(ClientCommand::List(args)) => {
            session::block_on(client_list::run(&common, &args))
        }
        Command::Bench(command) => session::block_on(measured(&common, &command)),
        Command::Quickstart(args) => session::block_on(quickstart::run(&common, &args)),
    }
}

async fn measured(common: &Common, command: &bench::BenchCommand) -> Result<(), Failure> {
    let Some(figures) = bench::run(command, common).await? else { return Ok(()) };
    let mut out = Output::standard();
    out.line(&match figures {
        Value::String(table) => table,
        figures if common.json => figures.to_string(),
        figures => format!("{figures:#}"),
    })?;
    out.flush()
}

fn ended(result: Result<(), Failure>, json: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line(json) {
                let _ = writeln!(std::io::stderr(), "{line}"); // nobody may be left to read it
            }
            ExitCode::from(failure.code())
        }
    }
}
