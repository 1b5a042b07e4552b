//! What scheduled messages cost, and how late they are, on a broker that is a process of its own.
//!
//! `cargo bench -p grus-tests --bench scheduled -- PART [OPTIONS]`. Each part starts brokers in new
//! folders with one topic of one queue, prints what it measured, and removes them.
//!
//! | part | options and defaults | what it measures |
//! |---|---|---|
//! | `lateness` | `--rate 10000 --seconds 20 --size 100 --batch 1` | so many messages due each second, evenly: from a message's due time until a reader has it |
//! | `burst` | `--messages 100000 --size 100 --batch 1` | all of them due within one second: time until a reader has the last |
//! | `beside` | `--messages 1000000 --size 100 --batch 1 --seconds 10` | round trips of a sender and reader alone, then while that many overdue messages go out after a kill -9, then alone again |
//! | `memory` | `--messages 10000000 --size 1KiB --batch 1 --lead 86400` | scheduled over 30 days from there on: anonymous memory, bytes of checkpoints against those of the log, restart after kill -9 and after an orderly end |
//! | `rolling` | `--messages 1000000 --size 1KiB --batch 10 --retention 1GiB --periods 10 --rate 100MB` | that many wait while the rest of the log turns over so often at that rate: bytes carried on, bytes written |
//! | `produce` | `--size 1KiB --batch 1000 --seconds 3 --rounds 5` | `grus bench produce` with `--delay 1d` against without, in turn |
//!
//! All of them take `--durability persisted|replicated` (persisted). `--lead` (a number of seconds)
//! is how long before they are due messages are begun to be scheduled: more than that takes, or it says so.
//! Not a test: a busy machine changes its numbers.

use grus_tests::broker::Home;

mod beside;
mod fill;
mod memory;
mod options;
mod produce;
mod punctual;
mod rolling;

use options::Options;

/// The topic of each part.
const TOPIC: &str = "later";

fn main() {
    let options = Options::of_command_line();
    match options.part() {
        "lateness" => punctual::lateness(&options),
        "burst" => punctual::burst(&options),
        "beside" => beside::run(&options),
        "memory" => memory::run(&options),
        "rolling" => rolling::run(&options),
        "produce" => produce::run(&options),
        other => {
            eprintln!("no part {other:?}: lateness, burst, beside, memory, rolling or produce");
            std::process::exit(1);
        }
    }
}

/// Creates a topic of one queue.
fn create(home: &Home, options: &Options, topic: &str, more: &[&str]) {
    let durability = options.text("durability", "persisted");
    let base = ["topic", "create", topic, "--queues", "1", "--durability", &durability];
    home.grus(&[&base, more].concat()).ok();
}
