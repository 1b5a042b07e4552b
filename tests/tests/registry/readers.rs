//! Readers that ask and readers that are pushed to, while the leader of what they read is killed: each acknowledged
//! message comes, in order, and none twice.

use std::time::Duration;

use grus_client::{Client, ReadMode, Reader, ReaderConfig, StartAt};
use grus_tests::cluster::{Cluster, Sender, block_on};
use grus_tests::watch::PATIENCE;

/// One who reads the topic from its first message on.
struct Reading {
    mode: ReadMode,
    reader: Reader,
    bodies: Vec<String>,
}

impl Reading {
    fn begin(client: &Client, mode: ReadMode) -> Self {
        let mut config = ReaderConfig::new("t", StartAt::First).expect("a name");
        config.mode = mode;
        Self { mode, reader: client.reader(config).expect("a reader"), bodies: Vec::new() }
    }

    /// Reads on until it has so many.
    async fn go_on(&mut self, until: usize) {
        while self.bodies.len() < until {
            let next = tokio::time::timeout(PATIENCE, self.reader.next()).await;
            let (mode, count) = (self.mode, self.bodies.len());
            let next = next.unwrap_or_else(|_| panic!("{mode:?}: none comes behind {count}"));
            let message = next.unwrap_or_else(|error| panic!("{mode:?}, behind {count}: {error}"));
            self.bodies.push(String::from_utf8_lossy(message.body()).into_owned());
        }
    }
}

#[test]
fn readers_get_each_acknowledged_message_once_and_in_order_across_kill_9_of_their_leaders() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    block_on(async {
        let (client, other) = (cluster.client().await, cluster.client().await);
        let mut sender = Sender::new(&client, "t");
        let mut readers = [ReadMode::Poll, ReadMode::Push].map(|mode| Reading::begin(&other, mode));
        for round in 1..=2 {
            sender.go_on(200).await;
            // They are in the middle of it when the leader dies: they have some, and more is on its way.
            for reader in &mut readers {
                reader.go_on(round * 150).await;
            }
            let leader = cluster.leader("t");
            cluster.kill(leader);
            sender.go_on(200).await;
            cluster.start_again(leader);
            cluster.await_all_led("t");
        }
        let sent = sender.end().await;
        for reader in &mut readers {
            reader.go_on(sent.len()).await;
            assert_eq!(reader.bodies, sent, "{:?}", reader.mode);
            let more = tokio::time::timeout(Duration::from_millis(200), reader.reader.next()).await;
            assert!(more.is_err(), "{:?}: {more:?}", reader.mode);
        }
        client.close().await;
        other.close().await;
    });
}
