//! `grus consume`: prints messages until it is told to end.

use std::future::pending;
use std::io::{self, Stdout, stdout};
use std::os::fd::AsFd;
use std::time::Duration;

use grus_client::{Client, Delivered, Queues, Reader, ReaderConfig, StartAt};
use grus_protocol::ids::{Offset, QueueId, TimestampMs};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::args::{Common, ConsumeArgs, From};
use crate::failure::Failure;
use crate::message::Read;
use crate::output::Output;
use crate::{consume_group, session};

/// Runs the command.
///
/// # Errors
/// Told: no broker, no such topic or queue, an offset that is not there.
pub async fn run(common: &Common, args: &ConsumeArgs) -> Result<(), Failure> {
    if let Some(group) = &args.group {
        return consume_group::run(common, args, group).await;
    }
    session::show_warnings();
    let patient = args.idle_exit.is_none() && common.timeout.is_none();
    let wait_max = (!patient).then(|| common.timeout());
    let client = session::connect(common, wait_max).await?;
    let reader = reader(&client, args).await?;
    let mut output = Output::standard();
    print(reader, &mut output, common.json, args).await?;
    output.flush()?;
    client.close().await;
    Ok(())
}

/// Prints until `--max`, `--idle-exit`, Ctrl-C, or the reader of standard output leaves.
async fn print(
    mut reader: Reader,
    output: &mut Output<Stdout>,
    json: bool,
    args: &ConsumeArgs,
) -> Result<(), Failure> {
    let mut left = args.max.unwrap_or(u64::MAX);
    let closed = output_closed();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(closed, interrupted);
    while left > 0 {
        let some = tokio::select! {
            some = reader.next_batch() => some.map_err(|error| Failure::because(&args.topic, error))?,
            () = idle(args.idle_exit) => return Ok(()),
            () = &mut closed => return Err(Failure::OutputClosed),
            _ = &mut interrupted => return Ok(()),
        };
        for message in some {
            if left == 0 {
                break;
            }
            left -= 1;
            let message = read(&message);
            output
                .add(|out| if json { message.write_json(out) } else { message.write_plain(out) })?;
        }
        output.flush()?;
    }
    Ok(())
}

pub(crate) async fn idle(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => pending().await,
    }
}

/// Returns when the reader of standard output has left; never, when it is a file.
pub(crate) async fn output_closed() {
    if watch_output().await.is_err() {
        pending::<()>().await; // a file is never closed from the other side
    }
}

/// Waits for the pipe's error event (poll(2): POLLERR on the writing end when the reading end closes). A
/// second descriptor is watched and the pipe stays blocking, as the writes want it.
async fn watch_output() -> io::Result<()> {
    let pipe = stdout().as_fd().try_clone_to_owned()?;
    Sender::from_owned_fd_unchecked(pipe)?.ready(Interest::ERROR).await?;
    Ok(())
}

async fn reader(client: &Client, args: &ConsumeArgs) -> Result<Reader, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::because(&args.topic, error);
    // Created here too, where the broker allows it: a reader may come before the first sender.
    client.queue_count(&args.topic).await.map_err(|error| failed(&error))?;
    let start = match args.from {
        Some(From::First) => StartAt::First,
        Some(From::Last) | None => StartAt::Last,
        Some(From::Offset(offset)) => StartAt::Offset(Offset(offset)),
        Some(From::Time(ms)) => StartAt::Time(TimestampMs(ms)),
    };
    let mut config = ReaderConfig::new(&args.topic, start).map_err(|error| failed(&error))?;
    config.mode = args.mode.mode();
    config.queues = match args.queue {
        Some(queue) => Queues::Only(vec![QueueId(queue)]),
        None => Queues::All,
    };
    client.reader(config).map_err(|error| failed(&error))
}

pub(crate) fn read(message: &Delivered) -> Read<'_> {
    Read {
        topic: message.topic.as_str(),
        queue: message.queue.0,
        offset: message.offset.0,
        id: message.id().to_string(),
        keys: message.keys().collect(),
        tag: message.tag(),
        headers: message.headers().collect(),
        born_ms: message.born().0,
        stored_ms: message.stored.0,
        body: message.body(),
    }
}
