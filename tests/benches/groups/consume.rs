//! What a group costs against reading without one.

use grus_client::{Client, Outcome, ReaderConfig, StartAt};
use grus_tests::broker::Home;
use grus_tests::watch::Watch;

use crate::options::Options;
use crate::spread::{Spread, judge};
use crate::{TOPIC, block_on, connect, create, fill, member, seconds};

/// Part of the reader's rate that a group has to reach.
const RATIO_MIN: f64 = 0.9;
/// Messages taken at once where they are taken as messages.
const BATCH: usize = 256;

/// How messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As they lie in stored batches.
    Stored,
    /// Each by itself.
    Singly,
}

pub(crate) fn run(options: &Options) {
    let (size, time) = (options.text("size", "1KiB"), options.text("fill", "3s"));
    let rounds = options.number("rounds", 5);
    let durability = options.text("durability", "persisted");
    let home = Home::new();
    let _broker = home.start();
    create(&home, &durability, TOPIC, 8);
    let messages = fill(&home, &size, &time);
    println!("{messages} messages of {size}, {durability}, 8 queues; thousand messages a second");
    block_on(async {
        for way in [Way::Stored, Way::Singly] {
            let (mut reader, mut group, mut ratio) =
                (Spread::default(), Spread::default(), Spread::default());
            for round in 0..rounds {
                let client = connect(&home).await;
                let read = read(&client, way, messages).await;
                let name = format!("g-{way:?}-{round}").to_lowercase();
                let consumed = consume(&client, way, &name, messages).await;
                client.close().await;
                reader.push(read / 1e3);
                group.push(consumed / 1e3);
                ratio.push(consumed / read);
            }
            println!("{way:?}: reader {reader}, group {group}, group / reader {ratio}");
            if way == Way::Stored {
                judge("a group within 10 % of the reader", ratio.median() >= RATIO_MIN);
            }
        }
    });
}

/// Messages a second, from the first that came on.
struct Rate {
    watch: Option<Watch>,
    count: u64,
    wanted: u64,
}

impl Rate {
    const fn new(wanted: u64) -> Self {
        Self { watch: None, count: 0, wanted }
    }

    /// So many came; whether there are more.
    fn goes_on(&mut self, some: usize) -> bool {
        match self.watch {
            None => (self.watch, self.wanted) = (Some(Watch::start()), self.wanted - some as u64),
            Some(_) => self.count += some as u64,
        }
        self.count < self.wanted
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
    fn per_second(&self) -> f64 {
        self.count as f64 / self.watch.map_or(1.0, |watch| seconds(watch.elapsed()))
    }
}

async fn read(client: &Client, way: Way, messages: u64) -> f64 {
    let config = ReaderConfig::new(TOPIC, StartAt::First).expect("a name");
    let mut reader = client.reader(config).expect("a reader");
    let (mut rate, mut bytes) = (Rate::new(messages), 0);
    loop {
        let some = match way {
            Way::Stored => {
                let batch = reader.next_stored_batch().await.expect("a batch");
                bytes += batch.views().map(|(_, record)| record.body().len()).sum::<usize>();
                batch.len()
            }
            Way::Singly => {
                bytes += reader.next().await.expect("a message").body().len();
                1
            }
        };
        if !rate.goes_on(some) {
            assert!(bytes > 0, "bodies were looked at");
            return rate.per_second();
        }
    }
}

async fn consume(client: &Client, way: Way, group: &str, messages: u64) -> f64 {
    let mut consumer = client.consumer(member(group, TOPIC)).expect("a consumer");
    let (mut rate, mut bytes) = (Rate::new(messages), 0);
    loop {
        let some = match way {
            Way::Stored => {
                let batch = consumer.next_stored_batch().await.expect("a batch");
                bytes += batch.views().map(|(_, record)| record.body().len()).sum::<usize>();
                let count = batch.len();
                batch.answer(Outcome::Ack);
                count
            }
            Way::Singly => {
                let some = consumer.next_batch(BATCH, std::time::Duration::MAX).await;
                let some = some.expect("messages");
                bytes += some.iter().map(|handed| handed.body().len()).sum::<usize>();
                let count = some.len();
                let done = some.into_iter().map(|handed| (handed, Outcome::Ack));
                grus_client::Handed::answer_all(done);
                count
            }
        };
        if !rate.goes_on(some) {
            assert!(bytes > 0, "bodies were looked at");
            let per_second = rate.per_second();
            consumer.stop().await;
            return per_second;
        }
    }
}
