//! An actor of the program's own receives the messages of a topic. It is sent no more than it may
//! have in hand, and each message it drops makes room for another.
//!
//! `cargo run -p grus-client --example receiver -- greetings 127.0.0.1:6086 10`, the last one being
//! after how many messages to end.
//!
//! * Owns: how many messages are left to print.
//! * Lives on: the program's own arbiter.
//! * Inbox: `Delivery` and what else the reader sends, bounded by what it may have in hand.
//! * Talks to: the program's main function, once.
//! * Stops: with the program.
//! * If it panics: the program ends; this is an example.

use std::error::Error;

use actix::{Actor, Context, Handler};
use grus_client::{Client, ClientConfig, DeliverTo, Delivery, ReadFailed, ReaderConfig, StartAt};
use tokio::sync::oneshot;

struct Printer {
    left: usize,
    done: Option<oneshot::Sender<()>>,
}

impl Actor for Printer {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Printer {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Context<Self>) {
        if self.left == 0 {
            return;
        }
        let body = String::from_utf8_lossy(delivery.body());
        println!("{}/{}: {body}", delivery.queue, delivery.offset);
        self.left -= 1;
        if self.left == 0
            && let Some(done) = self.done.take()
        {
            let _ = done.send(());
        }
    } // the delivery is dropped here: its place is free for the next one
}

impl Handler<ReadFailed> for Printer {
    type Result = ();

    fn handle(&mut self, ReadFailed(error): ReadFailed, _: &mut Context<Self>) {
        eprintln!("{error}");
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());
    let left: usize = arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let (done, is_done) = oneshot::channel();
    let printer = Printer { left, done: Some(done) }.start();
    let mut to = DeliverTo::new(printer.clone().recipient()).failures_to(printer.recipient());
    to.messages_max = 16;
    let delivery = client.deliver_to(ReaderConfig::new(&topic, StartAt::First)?, to)?;
    is_done.await?;
    delivery.close().await;
    client.close().await;
    Ok(())
}
