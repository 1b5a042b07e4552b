//! Sends the lines of standard input, many at a time, and says where each one is.
//!
//! `cargo run -p grus-client --example produce -- greetings 127.0.0.1:6086 < FILE`

use std::error::Error;
use std::io::{BufRead, stdin};

use grus_client::{Client, ClientConfig, Message, PendingReceipt, ProducerConfig};
use tokio::sync::mpsc;

/// Receipts awaited at once.
const PENDING_MAX: usize = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());

    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;

    let (pending, mut receipts) = mpsc::channel::<PendingReceipt>(PENDING_MAX);
    let printer = tokio::spawn(async move {
        while let Some(receipt) = receipts.recv().await {
            match receipt.await {
                Ok(at) => println!("{} queue {} offset {}", at.id, at.queue, at.offset),
                Err(error) => eprintln!("not stored: {error}"),
            }
        }
    });
    for line in stdin().lock().lines() {
        pending.send(producer.enqueue(Message::new(line?)).await?).await?;
    }
    drop(pending);
    printer.await?;
    client.close().await;
    Ok(())
}
