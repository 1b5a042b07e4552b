//! Members of groups as processes that die or stand still in the middle of their work.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use grus_client::{Client, Consumer};
use grus_tests::broker::Home;
use grus_tests::process::Process;
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;

use crate::create;
use crate::groups::{config, consumer, lag, number, send, within};
use crate::program::{block_on, connect};

/// A process that is a member, and what it has said so far.
struct Member {
    process: Process,
    got: Vec<u32>,
    acked: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    /// Answers for what it got, of either kind.
    answers: usize,
    has_lost: bool,
}

impl Member {
    fn start(home: &Home, session: Duration) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grus-member"));
        command.args([home.listen.to_string(), session.as_millis().to_string()]);
        Self {
            process: Process::start("member", command),
            got: Vec::new(),
            acked: BTreeSet::new(),
            refused: BTreeSet::new(),
            answers: 0,
            has_lost: false,
        }
    }

    /// Hears its next line; false: it has ended.
    fn hear(&mut self) -> bool {
        let Some(line) = self.process.next_line(PATIENCE) else {
            assert!(self.process.ended().is_some(), "nothing more comes of it");
            return false;
        };
        let line = String::from_utf8(line).expect("text");
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let number = || rest.parse::<u32>().expect("a number");
        match word {
            "got" => self.got.push(number()),
            "acked" => drop(self.acked.insert(number())),
            "refused" => drop(self.refused.insert(number())),
            "lost" => self.has_lost = true,
            _ => {}
        }
        self.answers += usize::from(matches!(word, "acked" | "refused"));
        true
    }

    fn hear_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.hear(), "it lives");
        }
    }

    /// What it has and has not been answered for.
    fn has(&self) -> BTreeSet<u32> {
        self.got.iter().copied().filter(|it| !self.acked.contains(it)).collect()
    }
}

/// Handles what comes until nothing is left; what was acknowledged, as the broker has said.
async fn handle_all(consumer: &mut Consumer, client: &Client) -> BTreeSet<u32> {
    let mut acked = BTreeSet::new();
    while lag(client).await > 0 {
        let some = consumer.next_batch(256, Duration::from_millis(100)).await.expect("it goes on");
        let answers = some.into_iter().map(async |handed| {
            let number = number(&handed);
            handed.ack().await.is_ok().then_some(number)
        });
        for number in within(join_all(answers)).await.into_iter().flatten() {
            assert!(acked.insert(number), "{number} is acknowledged once");
        }
    }
    acked
}

/// S22.
#[test]
fn only_what_the_broker_had_not_answered_for_comes_again_when_a_member_is_killed() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    block_on(async {
        let client = connect(&home).await;
        send(&client, 4, 0..2_000).await;
        let mut killed = Member::start(&home, Duration::from_secs(10));
        killed.hear_until(|member| member.acked.len() >= 500);
        killed.process.signal(Signal::KILL);
        while killed.hear() {}
        let has = killed.has();
        assert!(has.iter().any(|number| number.is_multiple_of(7)), "it kept some in its hands");

        let (mut consumer, _) = consumer(&client, config());
        let again = handle_all(&mut consumer, &client).await;
        let acked_again: Vec<_> = again.intersection(&killed.acked).collect();
        assert!(acked_again.is_empty(), "the broker had answered for these: {acked_again:?}");
        // Its answers that were under way may have come to the broker or not; of what it kept, none was.
        let kept = has.iter().filter(|number| number.is_multiple_of(7));
        assert!(kept.clone().all(|number| again.contains(number)), "what it kept comes again");
        let seen = again.len() + killed.acked.union(&has).filter(|it| !again.contains(it)).count();
        assert_eq!(seen, 2_000, "nothing is lost");
        consumer.stop().await;
        client.close().await;
    });
}

/// S18.
#[test]
fn a_member_that_stands_still_is_replaced_and_what_it_says_when_it_goes_on_counts_for_nothing() {
    let session = Duration::from_secs(3);
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    block_on(async {
        let client = connect(&home).await;
        let mut config = config();
        config.options.session_ms = Some(u32::try_from(session.as_millis()).expect("it fits"));
        let (mut other, own) = consumer(&client, config);
        within(own.until(|queues| queues.len() == 4)).await;
        let mut stopped = Member::start(&home, session);
        within(own.until(|queues| queues.len() == 2)).await;
        send(&client, 4, 0..400).await;
        stopped.hear_until(|member| member.acked.len() >= 100);

        let (strain, watch) = (Strain::watch(), Watch::start());
        stopped.process.signal(Signal::STOP);
        within(own.until(|queues| queues.len() == 4)).await;
        let (took, allowed) = (watch.elapsed(), strain.allowed());
        assert!(took < session + Duration::from_secs(2) + allowed, "they are ours after {took:?}");
        let by_other = handle_all(&mut other, &client).await;

        stopped.process.signal(Signal::CONT);
        let mut input = stopped.process.take_input();
        stopped.hear_until(|member| member.has_lost);
        input.write_all(b"go on\n").expect("it reads");
        stopped.hear_until(|member| member.answers == member.got.len());
        assert!(!stopped.refused.is_empty(), "it had some, and the broker took them from it");
        let both: Vec<_> = by_other.intersection(&stopped.acked).collect();
        assert!(both.is_empty(), "two were told that they have handled {both:?}");
        assert_eq!(by_other.union(&stopped.acked).count(), 400, "nothing is lost");
        within(own.until(|queues| queues.len() == 2)).await; // it is a member again
        stopped.process.kill();
        other.stop().await;
        client.close().await;
    });
}
