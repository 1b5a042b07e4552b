//! Acknowledgements one by one.

use grus_client::{Message, ProducerConfig, QueueId};
use grus_tests::broker::Home;
use grus_tests::calm::Waits;
use grus_tests::watch::Watch;

use crate::options::Options;
use crate::spread::Spread;
use crate::{TOPIC, block_on, connect, create, member, seconds};

pub(crate) fn run(options: &Options) {
    let (messages, rounds) = (options.number("messages", 2_000), options.number("rounds", 5));
    for durability in ["persisted", "replicated"] {
        let home = Home::new();
        let _broker = home.start();
        create(&home, durability, TOPIC, 1);
        let (mut rate, mut p50, mut p99) =
            (Spread::default(), Spread::default(), Spread::default());
        block_on(async {
            let client = connect(&home).await;
            let config = ProducerConfig::new(TOPIC).expect("a name");
            let producer = client.producer(config).expect("a producer");
            let mut consumer = client.consumer(member("g", TOPIC)).expect("a consumer");
            for _ in 0..rounds {
                let all = (0..messages).map(|_| Message::new(vec![7; 100]).queue(QueueId(0)));
                producer.send_batch(all.collect()).await.expect("they are stored");
                let mut waits = Waits::default();
                let mut watch = None;
                for _ in 0..messages {
                    let handed = consumer.next().await.expect("a message");
                    watch.get_or_insert_with(Watch::start);
                    let asked = Watch::start();
                    handed.ack().await.expect("it counts");
                    waits.push(asked.elapsed());
                }
                #[expect(clippy::cast_precision_loss, reason = "figures for a person")]
                {
                    let took = watch.map_or(1.0, |watch| seconds(watch.elapsed()));
                    rate.push(messages as f64 / took);
                    p50.push(waits.at(500) as f64);
                    p99.push(waits.at(990) as f64);
                }
            }
            consumer.stop().await;
            client.close().await;
        });
        println!("{durability}: {rate} acks a second one by one, p50 {p50} us, p99 {p99} us");
    }
}
