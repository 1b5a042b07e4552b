//! Who leads, as the brokers say it themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::history::{Act, Event, Kind, Scribe};
use crate::http;

/// Between two looks at a broker.
const PAUSE: Duration = Duration::from_millis(200);

/// A broker that leads a shard in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// The shard.
    pub shard: u64,
    /// The term.
    pub term: u64,
    /// The broker, by its number here.
    pub broker: usize,
}

/// Looks at all brokers all the time. Dropped, it ends after its last looks, for which a broker that
/// stands still must go on first.
pub struct Sight {
    over: Arc<AtomicBool>,
    watchers: Vec<JoinHandle<()>>,
    /// What is seen.
    pub seen: Receiver<Reign>,
}

impl Sight {
    /// Of brokers whose HTTP is there.
    pub fn of(brokers: &[SocketAddr], scribe: &Scribe) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (tell, seen) = channel();
        let watch = |(broker, at): (usize, &SocketAddr)| {
            let (at, over, tell, scribe) = (*at, Arc::clone(&over), tell.clone(), scribe.clone());
            thread::spawn(move || {
                while !over.load(Relaxed) {
                    look(broker, at, &tell, &scribe);
                    thread::park_timeout(PAUSE);
                }
            })
        };
        let watchers = brokers.iter().enumerate().map(watch).collect();
        Self { over, watchers, seen }
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for watcher in self.watchers.drain(..) {
            let _ = watcher.join();
        }
    }
}

fn look(broker: usize, at: SocketAddr, tell: &Sender<Reign>, scribe: &Scribe) {
    let Ok((200, body)) = http::get(at, "/cluster/shards") else { return };
    let Ok(shards) = serde_json::from_str::<Vec<Value>>(&body) else { return };
    for said in shards {
        if said["replicated"] != true || said["leads"] != true {
            continue;
        }
        let (Some(shard), Some(term)) = (said["shard"].as_u64(), said["term"].as_u64()) else {
            continue;
        };
        let reign = Event::new(&format!("sight-{broker}"), Kind::Info, Act::Reign);
        scribe.tell(reign.at(shard, term).note(format!("broker {broker}")));
        let _ = tell.send(Reign { shard, term, broker }); // nobody may ask any more
    }
}
