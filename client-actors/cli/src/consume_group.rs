//! `grus consume --group`: prints the messages of a group's member, and answers for them.

use std::collections::VecDeque;
use std::io::Stdout;
use std::time::Duration;

use clap::ValueEnum;
use grus_client::{AckMode, Client, Consumer, ConsumerConfig, Handed, ListAt, Outcome};
use grus_protocol::ids::TimestampMs;
use grus_protocol::message::GroupModel;

use crate::args::{Common, ConsumeArgs, From};
use crate::consume::{idle, output_closed, read};
use crate::failure::Failure;
use crate::input;
use crate::lines::Line;
use crate::output::Output;
use crate::{session, units};

/// When a group's message counts as handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AckArg {
    /// Before it is printed: it is printed once at most
    Before,
    /// Once it is printed: it is printed once at least
    After,
    /// When a line of standard input says so: ack, nack REASON, retry TIME REASON or dead REASON
    Manual,
}

/// How a group shares its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelArg {
    /// Each queue belongs to one member at a time
    Cluster,
    /// Each member has all messages, and keeps how far it has come in a file of its own
    Broadcast,
}

/// Most bytes of a line that says what becomes of a message.
const WORD_BYTES_MAX: usize = 4_096;
/// Most messages that are printed and answered for together.
const BATCH_MESSAGES: usize = 256;

/// Runs the command.
///
/// # Errors
/// Told: no broker, or why the group refused.
pub async fn run(common: &Common, args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    session::show_warnings();
    let patient = args.idle_exit.is_none() && common.timeout.is_none();
    let wait_max = (!patient).then(|| common.timeout());
    let client = session::connect(common, wait_max).await?;
    let consumer = consumer(&client, args, group, wait_max)?;
    let mut output = Output::standard();
    let printed = print(consumer, &mut output, common.json, args).await;
    output.flush()?;
    client.close().await;
    printed
}

fn consumer(
    client: &Client,
    args: &ConsumeArgs,
    group: &str,
    join_wait_max: Option<Duration>,
) -> Result<Consumer, Failure> {
    let config = ConsumerConfig::new(group).map_err(|error| Failure::because(group, error))?;
    let failed = |error| Failure::because(&args.topic, error);
    let tags = args.tags.as_deref().unwrap_or("*");
    let mut config = config.subscribe(&args.topic, tags).map_err(failed)?;
    config.ack_mode = match args.ack {
        AckArg::Before => AckMode::Before,
        AckArg::After => AckMode::AfterHandler,
        AckArg::Manual => AckMode::Manual,
    };
    config.options.model = args.model.map(|model| match model {
        ModelArg::Cluster => GroupModel::Cluster,
        ModelArg::Broadcast => GroupModel::Broadcast,
    });
    config.instance.clone_from(&args.member);
    config.join_wait_max = join_wait_max;
    match args.model {
        Some(ModelArg::Broadcast) => {
            config.progress_file = Some(args.progress.clone().unwrap_or_else(|| {
                let member = args.member.as_ref().map(|member| format!("-{member}"));
                format!("grus-{group}{}.progress", member.unwrap_or_default()).into()
            }));
        }
        _ if args.progress.is_some() => {
            let text = "--progress is for members of broadcast groups alone";
            return Err(Failure::because(group, text));
        }
        _ => {}
    }
    config.options.start = match args.from {
        None => None,
        Some(From::First) => Some(ListAt::First),
        Some(From::Last) => Some(ListAt::Last),
        Some(From::Time(ms)) => Some(ListAt::Time(TimestampMs(ms))),
        Some(From::Offset(_)) => {
            let text = "a group begins at first, last or a time; `grus group reset` moves it";
            return Err(Failure::because(group, text));
        }
    };
    client.consumer(config).map_err(failed)
}

/// Prints until `--max`, `--idle-exit`, Ctrl-C, or the reader of standard output leaves; then what
/// is in hand is given back, and the group left.
async fn print(
    mut consumer: Consumer,
    output: &mut Output<Stdout>,
    json: bool,
    args: &ConsumeArgs,
) -> Result<(), Failure> {
    let mut left = args.max.unwrap_or(u64::MAX);
    let mut words = Words::of(args.ack)?;
    let closed = output_closed();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(closed, interrupted);
    let mut result = Ok(());
    let mut is_interrupted = false;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(match args.ack {
            AckArg::Manual => 1,
            AckArg::Before | AckArg::After => BATCH_MESSAGES,
        });
        let some = tokio::select! {
            some = consumer.next_batch(most, Duration::MAX) => match some {
                Ok(some) => some,
                Err(error) => {
                    result = Err(Failure::because(&args.topic, error));
                    break;
                }
            },
            // Nothing can come before it is a member: it says so itself if that lasts too long.
            () = idle(args.idle_exit) => if consumer.has_joined() { break } else { continue },
            () = &mut closed => { result = Err(Failure::OutputClosed); break }
            _ = &mut interrupted => break,
        };
        left -= left.min(some.len() as u64);
        if let Err(failure) = show(&some, output, json) {
            // Whoever has the queue next has them at once: they have not failed.
            some.into_iter().for_each(Handed::give_back);
            result = Err(failure);
            break;
        }
        tokio::select! {
            biased; // what is printed is answered for, if that has to wait for nothing
            answered = answer(some, &mut words) => result = answered,
            _ = &mut interrupted => is_interrupted = true,
        }
        if is_interrupted || result.is_err() {
            break;
        }
    }
    let stop = async {
        if args.ack == AckArg::Before && !matches!(result, Err(Failure::OutputClosed)) {
            end_printing(consumer, output, json).await
        } else {
            consumer.stop().await;
            Ok(())
        }
    };
    let ended = tokio::select! {
        ended = stop => ended,
        // Nobody has to wait for a broker that is not there: said once more, it ends at once.
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    result.and(ended)
}

/// Stops, and prints what was acknowledged meanwhile: it comes to nobody else.
async fn end_printing(
    mut consumer: Consumer,
    output: &mut Output<Stdout>,
    json: bool,
) -> Result<(), Failure> {
    let stopper = consumer.stopper();
    let print = async {
        while let Ok(some) = consumer.next_batch(BATCH_MESSAGES, Duration::MAX).await {
            show(&some, output, json)?;
        }
        Ok(())
    };
    futures_util::future::join(stopper.stop(), print).await.1
}

fn show(some: &[Handed], output: &mut Output<Stdout>, json: bool) -> Result<(), Failure> {
    for handed in some {
        let message = read(handed);
        output.add(|out| if json { message.write_json(out) } else { message.write_plain(out) })?;
    }
    output.flush()
}

/// Answers for messages that are printed. One whose answer does not come, because standard input has
/// ended or Ctrl-C came first, has failed, and comes again.
async fn answer(some: Vec<Handed>, words: &mut Words) -> Result<(), Failure> {
    if words.input.is_none() {
        Handed::answer_all(some.into_iter().map(|handed| (handed, Outcome::Ack)));
        return Ok(());
    }
    for handed in some {
        let outcome = words.next().await?;
        handed.answer(outcome);
    }
    Ok(())
}

/// The lines of standard input, where they are wanted.
struct Words {
    input: Option<input::Lines>,
    lines: VecDeque<Line>,
}

impl Words {
    fn of(ack: AckArg) -> Result<Self, Failure> {
        let input = match ack {
            AckArg::Manual => Some(input::lines(None, WORD_BYTES_MAX)?),
            AckArg::Before | AckArg::After => None,
        };
        Ok(Self { input, lines: VecDeque::new() })
    }

    /// What becomes of the next message.
    async fn next(&mut self) -> Result<Outcome, Failure> {
        let Some(input) = &mut self.input else { return Ok(Outcome::Ack) };
        while self.lines.is_empty() {
            let more = input.recv().await;
            let more = more.ok_or_else(|| Failure::Told("standard input has ended".to_owned()))?;
            self.lines.extend(more?);
        }
        let line = self.lines.pop_front().expect("there is one");
        outcome(&String::from_utf8_lossy(&line.body)).map_err(Failure::Told)
    }
}

/// What a line of standard input says about a message.
fn outcome(word: &str) -> Result<Outcome, String> {
    let (word, rest) = word.trim().split_once(' ').unwrap_or((word.trim(), ""));
    let reason = rest.trim().to_owned();
    match word {
        "" | "ack" => Ok(Outcome::Ack),
        "nack" => Ok(Outcome::Nack(reason)),
        "dead" => Ok(Outcome::DeadLetter(reason)),
        "retry" => {
            let (wait, reason) = reason.split_once(' ').unwrap_or((&reason, ""));
            Ok(Outcome::RetryAfter(units::duration(wait)?, reason.trim().to_owned()))
        }
        other => Err(format!("`{other}`: ack, nack REASON, retry TIME REASON or dead REASON")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_becomes_of_a_message() {
        assert_eq!(outcome(""), Ok(Outcome::Ack));
        assert_eq!(outcome(" ack "), Ok(Outcome::Ack));
        assert_eq!(outcome("nack no stock"), Ok(Outcome::Nack("no stock".into())));
        assert_eq!(outcome("dead"), Ok(Outcome::DeadLetter(String::new())));
        let retry = Outcome::RetryAfter(Duration::from_secs(5), "later".into());
        assert_eq!(outcome("retry 5s later"), Ok(retry));
        assert!(outcome("retry soon").is_err() && outcome("yes").is_err());
    }
}
