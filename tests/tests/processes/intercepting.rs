//! S7, the half of those who consume: interceptors see each message before and after the program has
//! it, also one that panics each time and a broker that is killed midway lose none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use grus_client::{
    Client, ClientConfig, Delivered, Interceptor, Message, ReadMode, ReaderConfig, Received,
    StartAt,
};
use grus_tests::broker::Home;

use crate::create;
use crate::producing::config;
use crate::program::{block_on, client};

const MESSAGES: u64 = 300;

/// How often each message was seen before and after, by offset.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<u64, (u32, u32)>>>);

impl Interceptor for Seen {
    fn before_receive(&self, message: &Delivered) {
        self.0.lock().expect("no panic").entry(message.offset.0).or_default().0 += 1;
    }

    fn after_receive(&self, message: &Delivered, result: Received) {
        assert_eq!(result, Received::Handled);
        self.0.lock().expect("no panic").entry(message.offset.0).or_default().1 += 1;
    }
}

/// One that always panics.
#[derive(Clone, Default)]
struct Broken(Arc<AtomicU64>);

impl Interceptor for Broken {
    fn before_receive(&self, _: &Delivered) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("meant to");
    }

    fn after_receive(&self, _: &Delivered, _: Received) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("meant to");
    }
}

#[test]
fn s7_interceptors_see_what_is_consumed_once_and_one_that_panics_loses_nothing() {
    let home = Home::new();
    let mut broker = Some(home.start());
    create(&home, "t", 1);
    block_on(async {
        let sender = client(&home);
        let producer = sender.producer(config("t")).expect("a producer");
        let mut pending = Vec::new();
        for number in 0..MESSAGES {
            pending.push(producer.enqueue(Message::new(number.to_string())).await.expect("room"));
        }
        assert_eq!(producer.flush().await.expect("an open producer").stored, MESSAGES);
        for mode in [ReadMode::Poll, ReadMode::Push] {
            let (seen, broken) = (Seen::default(), Broken::default());
            let mut config = ClientConfig::new([home.listen.to_string()]);
            config.interceptors.add(broken.clone());
            config.interceptors.add(seen.clone());
            let client = Client::connect(config).await.expect("a broker");
            let mut config = ReaderConfig::new("t", StartAt::First).expect("a name");
            config.mode = mode;
            let mut reader = client.reader(config).expect("a reader");
            for number in 0..MESSAGES {
                if number == MESSAGES / 2 {
                    broker.take().expect("it runs").kill();
                    broker = Some(home.start());
                }
                let message = reader.next().await.expect("a message");
                assert_eq!(message.offset.0, number, "{mode:?}: no gap and no repeat");
                assert_eq!(message.body()[..], *number.to_string().as_bytes());
            }
            drop(reader);
            let seen = seen.0.lock().expect("no panic").clone();
            let expected: BTreeMap<_, _> = (0..MESSAGES).map(|offset| (offset, (1, 1))).collect();
            assert_eq!(seen, expected, "{mode:?}");
            assert_eq!(broken.0.load(Ordering::SeqCst), 2 * MESSAGES);
            assert_eq!(client.panics(), 2 * MESSAGES);
            client.close().await;
        }
        sender.close().await;
    });
}
