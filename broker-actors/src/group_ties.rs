//! What ties the groups that shards coordinate to the rest of the broker: the routes as they come, and
//! the table in which a shard's groups are looked up.

use std::sync::Arc;

use grus_mailbox::Inbox;
use grus_registry::RegistryRequest;
use tokio::sync::watch;

use crate::consumer_group::GroupTable;
use crate::registry_link::routes::Routes;
use crate::shard::RoutesAre;

/// Where the groups of a shard are looked up; told of each change.
pub type GroupTableWatch = watch::Receiver<GroupTable>;
/// Where changes of that table are told.
pub(crate) type GroupTableSender = watch::Sender<GroupTable>;

/// An empty table.
pub(crate) fn group_table() -> (GroupTableSender, GroupTableWatch) {
    watch::channel(GroupTable::default())
}

/// What groups need of the rest of the broker.
#[derive(Debug, Clone)]
pub struct GroupTies {
    /// Where dead letters are placed.
    pub registry: Inbox<RegistryRequest>,
    /// The topics.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Whether all topics that were there at the start are in them.
    pub settled: watch::Receiver<bool>,
}

/// Where the routes are told.
pub(crate) struct RouteWatch {
    routes: watch::Receiver<Arc<Routes>>,
    settled: watch::Receiver<bool>,
}

impl RouteWatch {
    pub(crate) fn of(ties: &GroupTies) -> Self {
        Self { routes: ties.routes.clone(), settled: ties.settled.clone() }
    }

    /// Tells the routes, once they are whole: a topic that is only not open yet is not gone.
    pub(crate) async fn feed(mut self, to: Inbox<RoutesAre>) {
        if self.settled.wait_for(|settled| *settled).await.is_err() {
            return;
        }
        self.routes.mark_changed();
        while self.routes.changed().await.is_ok() {
            let routes = Arc::clone(&self.routes.borrow_and_update());
            if to.put(RoutesAre { routes }).await.is_err() {
                return;
            }
        }
    }
}
