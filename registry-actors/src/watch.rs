//! Watch: tells everyone who asked what the routes are, now and after each change.
//!
//! * Owns: the newest routing table, and one feeding future for each watcher.
//! * Lives on: the registry's core arbiter.
//! * Inbox: [`Watch`] and `Published`, counted in messages.
//! * Talks to: the inboxes it was given. A slow watcher gets the newest table only, never a queue
//!   of old ones, and holds up nobody. There are as many as connections that watch: their number is
//!   bounded there, and nobody is ever left without a word, least of all a broker.
//! * Stops: at once; its watchers keep their last table.
//! * If it panics: the process ends, as watchers would be forgotten silently.

use std::sync::Arc;

use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Receive, Resident, Room, Weigh,
};
use tokio::sync::watch;

use crate::routing::RoutingTable;

/// Most questions to be told that wait.
pub const WATCH_ASKS_MAX: u32 = 1_024;

/// Asks to be told the routes: today's at once, and every change, the newest only.
#[derive(Debug)]
pub struct Watch {
    /// Where to; a capacity of 1 is enough.
    pub to: Inbox<RoutingChanged>,
}

impl Weigh for Watch {}

/// The routes are these now.
#[derive(Debug, Clone)]
pub struct RoutingChanged {
    /// The routes.
    pub table: Arc<RoutingTable>,
}

impl Weigh for RoutingChanged {}

/// The registry has new routes.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) table: Arc<RoutingTable>,
}

impl Weigh for Published {}

/// See the module documentation.
pub(crate) struct WatchActor {
    newest: Arc<watch::Sender<Arc<RoutingTable>>>,
}

impl WatchActor {
    /// Starts it; the second value always has the newest table.
    pub(crate) fn start(place: &Place) -> (HostHandle<Self>, watch::Receiver<Arc<RoutingTable>>) {
        let newest: Arc<watch::Sender<_>> = Arc::default();
        let routes = newest.subscribe();
        let spec = ActorSpec::new("Watch", "routing").never_restarts();
        let handle = Host::spawn_local(place, spec, move || Self { newest: Arc::clone(&newest) });
        (handle, routes)
    }
}

impl Resident for WatchActor {}

impl Receive<Published> for WatchActor {
    fn receive(&mut self, published: Published, _: Credit, _: &mut Room<'_, Self>) {
        self.newest.send_if_modified(|newest| {
            let newer = published.table.is_news_after(newest);
            if newer {
                *newest = published.table;
            }
            newer
        });
    }
}

impl Receive<Watch> for WatchActor {
    fn receive(&mut self, Watch { to }: Watch, _: Credit, room: &mut Room<'_, Self>) {
        room.spawn(feed(self.newest.subscribe(), to));
    }
}

/// Hands tables to one watcher until either end is gone.
pub(crate) async fn feed(
    mut newest: watch::Receiver<Arc<RoutingTable>>,
    to: Inbox<RoutingChanged>,
) {
    newest.mark_changed();
    while newest.changed().await.is_ok() {
        let table = Arc::clone(&newest.borrow_and_update());
        if to.put(RoutingChanged { table }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_mailbox::{Process, outlet};

    use super::*;

    fn table(version: u64) -> Arc<RoutingTable> {
        Arc::new(RoutingTable { version, ..RoutingTable::default() })
    }

    #[actix::test]
    async fn a_watcher_is_told_at_once_and_then_the_newest_only() {
        let place = Place::here("test", &Process::system());
        let (handle, routes) = WatchActor::start(&place);
        let publish: Inbox<Published> = handle.inbox(8);
        publish.try_put(Published { table: table(1) }).unwrap();
        let (to, mut slow) = outlet(1);
        handle.inbox(1).try_put(Watch { to }).unwrap();
        let (to, mut quick) = outlet(1);
        handle.inbox(1).try_put(Watch { to }).unwrap();

        let (first, credit) = slow.take().await.unwrap();
        assert_eq!(first.table.version, 1);
        assert_eq!(quick.take().await.unwrap().0.table.version, 1);
        for version in 2..100 {
            publish.put(Published { table: table(version) }).await.unwrap();
        }
        let mut seen = 0;
        while seen < 99 {
            let (told, _) = quick.take().await.unwrap();
            assert!(told.table.version > seen, "never back");
            seen = told.table.version;
        }
        drop(credit);
        let (second, credit) = slow.take().await.unwrap();
        drop(credit);
        if second.table.version < 99 {
            // One table was on its way already when it fell behind.
            assert_eq!(slow.take().await.unwrap().0.table.version, 99);
        }
        assert!(slow.try_take().is_none(), "no queue of old tables");
        assert_eq!(routes.borrow().version, 99);
        handle.stop().await;
    }
}
