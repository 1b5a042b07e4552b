//! Consumes as a member of the group `greeters`. Started several times, the members share the
//! messages; one that says `fail` comes again, and is a dead letter after the third time
//! (`grus dlq list greeters`).
//!
//! `cargo run -p grus-client --example consumer -- greetings 127.0.0.1:6086 10`, the last one being
//! after how many messages to end.

mod arguments;

use std::cell::Cell;
use std::error::Error;

use grus_client::{Client, ClientConfig, ConsumerConfig, Outcome};
use tokio::sync::Notify;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut config = ConsumerConfig::new("greeters")?
        .subscribe(&topic, "*")?
        .on_event(|event| eprintln!("{event:?}"));
    config.concurrency_max = 1; // so that each queue is handled in order
    config.options.max_deliveries = Some(3);
    config.options.ladder_ms = Some(vec![500]);
    let mut consumer = client.consumer(config)?;

    let (stop, left, enough) = (consumer.stopper(), Cell::new(count), Notify::new());
    let work = consumer.run(async |message| {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        println!("{}/{}: {body}", message.queue, message.offset);
        left.set(left.get().saturating_sub(1));
        if left.get() == 0 {
            enough.notify_one();
        }
        if body == "fail" { Outcome::Nack("it says so".to_owned()) } else { Outcome::Ack }
    });
    let end = async {
        tokio::select! {
            () = enough.notified() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.stop().await; // what is in work is finished first
    };
    tokio::join!(work, end).0?;
    client.close().await;
    Ok(())
}
