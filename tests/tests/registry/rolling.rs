//! Each of three brokers is stopped and started again, one after the other, while somebody sends: no send
//! fails, and none waits for an election, as whoever stops has handed over what it led before.

use std::time::Duration;

use grus_tests::cluster::{Cluster, Sender, block_on, check};
use grus_tests::strain::Strain;

/// Longest that a send may wait on a machine that has time for it.
const WAIT_MAX: Duration = Duration::from_secs(2);

#[test]
fn a_rolling_restart_fails_no_send_and_stalls_none() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(100).await;
        for number in 0..3 {
            let strain = Strain::watch();
            cluster.end(number);
            let longest = sender.go_on(200).await;
            let lost = strain.lost();
            println!("broker {number} stopped: longest wait {longest:?}, of it lost {lost:?}");
            assert!(longest < WAIT_MAX + lost, "a send waited {longest:?}, {lost:?} of it lost");
            cluster.start_again(number);
            sender.go_on(100).await;
            cluster.await_all_led("t");
        }
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}
