//! A producer named `billing` of topic `t`, with the brokers at `ADDRESS ..`. Each line of standard input is
//! a message to send; then it says what became of it: `stored`, `fenced` or `failed`, and the line. It
//! lives until that ends, or it is killed.

use std::io::BufRead;

use grus_client::{Client, ClientConfig, Message, ProducerConfig, SendError};
use tokio::sync::mpsc::unbounded_channel;

fn main() {
    let bootstrap: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::start(ClientConfig::new(bootstrap)).expect("a client");
        let mut config = ProducerConfig::named("t", "billing").expect("names");
        config.retries = 40; // outlives an election on a busy machine
        let producer = client.producer(config).expect("a producer");
        let (said, mut says) = unbounded_channel();
        std::thread::spawn(move || {
            let lines = std::io::stdin().lock().lines();
            lines.map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        while let Some(line) = says.recv().await {
            match producer.send(Message::new(line.clone())).await {
                Ok(_) => println!("stored {line}"),
                Err(SendError::Fenced(_)) => println!("fenced {line}"),
                Err(error) => println!("failed {line}: {error}"),
            }
        }
    });
}
