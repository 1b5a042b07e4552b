//! A member of group `g` of topic `t`, with the broker at `ADDRESS` and a session of `SESSION_MS`, that says
//! what it does: `got N` for each message that it is given, `acked N` once the broker has answered that it
//! knows, `refused N` when the answer counts for nothing; `assigned`, `lost`. Those that can be divided by
//! seven it keeps until a line comes on standard input. It lives until it is killed.

use std::io::BufRead;

use grus_client::{Client, ClientConfig, ConsumerConfig, ConsumerEvent, Handed};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

/// It keeps each of these in its hands.
const KEEPS: u32 = 7;

fn main() {
    let mut words = std::env::args().skip(1);
    let address = words.next().expect("ADDRESS SESSION_MS");
    let session_ms = words.next().and_then(|word| word.parse().ok()).expect("ADDRESS SESSION_MS");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::start(ClientConfig::new([address])).expect("a client");
        let config = ConsumerConfig::new("g").expect("a name").subscribe("t", "*");
        let mut config = config.expect("a topic").on_event(|event| match event {
            ConsumerEvent::Assigned(_) => println!("assigned"),
            ConsumerEvent::Lost(_) => println!("lost"),
            _ => {}
        });
        config.options.session_ms = Some(session_ms);
        let mut consumer = client.consumer(config).expect("a consumer");
        let (said, mut says) = unbounded_channel();
        std::thread::spawn(move || {
            let lines = std::io::stdin().lock().lines();
            lines.map_while(Result::ok).try_for_each(|_| said.send(()))
        });
        let (mut answers, mut keeps) = (JoinSet::new(), Vec::new());
        loop {
            tokio::select! {
                handed = consumer.next() => {
                    let handed = handed.expect("a message");
                    let number = number_of(&handed);
                    println!("got {number}");
                    if number.is_multiple_of(KEEPS) {
                        keeps.push(handed);
                    } else {
                        answers.spawn(acked(handed));
                    }
                }
                Some(answer) = answers.join_next() => println!("{}", answer.expect("an answer")),
                Some(()) = says.recv() => {
                    for handed in keeps.drain(..) {
                        answers.spawn(acked(handed));
                    }
                }
            }
        }
    });
}

fn number_of(handed: &Handed) -> u32 {
    std::str::from_utf8(handed.body()).expect("text").parse().expect("a number")
}

async fn acked(handed: Handed) -> String {
    let number = number_of(&handed);
    match handed.ack().await {
        Ok(()) => format!("acked {number}"),
        Err(_) => format!("refused {number}"),
    }
}
