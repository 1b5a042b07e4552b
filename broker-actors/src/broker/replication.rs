//! The part of a broker's start that is about shards of several members. A broker with a registry of
//! its own has none.

use std::sync::Arc;

use grus_mailbox::{HostHandle, Place};
use grus_registry::{Claims, RegistryHandle};
use tokio::sync::watch;

use super::{Running, SETTLE_MAX, ShardPlan, StartError};
use crate::cluster::Cluster;
use crate::config::BrokerConfig;
use crate::disk_turns::DiskTurns;
use crate::dispatch::peers::MemberDoors;
use crate::group_ties::GroupTies;
use crate::metrics::shards::LogMetrics;
use crate::neighbours::{NeighbourParts, Neighbours};
use crate::network::PeerDoors;
use crate::replicas::alone::Alone;
use crate::replicas::{ReplicaParts, Replicas};
use crate::shard::{FailedShards, Replicated, ShardSet};

/// Arbiters that the Flushes of replicated shards share, by shard number.
const REPLICA_FLUSHES: usize = 4;

/// Where shards are started that share what may block.
pub(super) struct Workshop {
    pub(super) reader: Place,
    pub(super) finder: Place,
    pub(super) disk_turns: DiskTurns,
}

/// What replicated shards are known by.
pub(super) struct Replication {
    pub(super) told: Arc<watch::Sender<Replicated>>,
    pub(super) members: Arc<watch::Sender<MemberDoors>>,
    /// Those that cannot be started.
    pub(super) failed: Arc<watch::Sender<FailedShards>>,
}

impl Replication {
    /// Nothing is there yet, and these are not going to be.
    fn new(refused: FailedShards) -> Self {
        Self {
            told: Arc::new(watch::channel(Replicated::from([])).0),
            members: Arc::new(watch::channel(MemberDoors::default()).0),
            failed: Arc::new(watch::channel(refused).0),
        }
    }
}

/// The two actors that run it.
pub(super) struct Replicating {
    pub(super) replicas: HostHandle<Replicas>,
    pub(super) neighbours: HostHandle<Neighbours>,
}

impl Running {
    /// Starts the shards that this broker has alone, and then those that it is a member of.
    pub(super) async fn bring_up_shards(
        &mut self,
        config: &BrokerConfig,
        plan: &ShardPlan,
        registry: &RegistryHandle,
        metrics: &LogMetrics,
        ties: &GroupTies,
        refused: FailedShards,
    ) -> Result<(ShardSet, Replication), StartError> {
        let workshop = Workshop {
            reader: self.places.open("reader"),
            finder: self.places.open("finder"),
            disk_turns: DiskTurns::default(),
        };
        let own = self.start_shards(config, plan, metrics, ties, &workshop).await?;
        let replication = Replication::new(refused);
        let (told, alone) = watch::channel(own.into());
        if let Some(remote) = &self.remote {
            remote.claims_are(Claims { shards: plan.shards().to_vec(), wanted: 0 });
            let own = Alone::new(std::mem::take(&mut self.shards), told, remote.claims());
            self.start_replication(
                config,
                registry,
                &workshop,
                (metrics, ties),
                (&replication, own),
            )
            .await;
        }
        Ok((ShardSet::new(alone, replication.told.subscribe()), replication))
    }

    /// What is asked about the shards, and of them.
    pub(super) fn cluster(
        &self,
        shards: &ShardSet,
        replication: &Replication,
        registry: &RegistryHandle,
    ) -> Cluster {
        Cluster {
            broker: self.folder.broker(),
            shards: shards.clone(),
            members: replication.members.subscribe(),
            failed: replication.failed.subscribe(),
            registry: registry.ask.clone(),
            drained: self.drained.clone(),
        }
    }

    /// Starts the members of shards that this broker is known to be, and those that it comes to be.
    async fn start_replication(
        &mut self,
        config: &BrokerConfig,
        registry: &RegistryHandle,
        workshop: &Workshop,
        (metrics, ties): (&LogMetrics, &GroupTies),
        (replication, own): (&Replication, Alone),
    ) {
        let (doors, ways) = watch::channel(PeerDoors::default());
        let broker = self.folder.broker();
        let parts = NeighbourParts {
            registry: registry.clone(),
            broker,
            disk: self.folder.disk(),
            frame_bytes_max: config.limits.frame_bytes_max,
            doors: Arc::new(doors),
        };
        let neighbours = Neighbours::start(self.places.core(0), parts);
        let (settled, mut is_settled) = watch::channel(false);
        let flush = |number| self.places.open(&format!("flush-replicas-{number}"));
        let parts = ReplicaParts {
            registry: registry.clone(),
            broker,
            folder: self.folder.shards(),
            begun: self.folder.members(),
            config: Arc::new(config.clone()),
            flushes: (0..REPLICA_FLUSHES).map(flush).collect(),
            cores: self.places.cores().to_vec(),
            reader: workshop.reader.clone(),
            finder: workshop.finder.clone(),
            disk_turns: workshop.disk_turns.clone(),
            metrics: metrics.clone(),
            ties: ties.clone(),
            doors: ways,
            drained: self.drained.subscribe(),
            replicated: Arc::clone(&replication.told),
            members: Arc::clone(&replication.members),
            failed: Arc::clone(&replication.failed),
            settled: Arc::new(settled),
        };
        let replicas = Replicas::start(self.places.core(0), parts, own);
        self.replicating = Some(Replicating { replicas, neighbours });
        let settling = is_settled.wait_for(|settled| *settled);
        if tokio::time::timeout(SETTLE_MAX, settling).await.is_err() {
            tracing::warn!("not all replicated shards are started yet");
        }
    }
}
