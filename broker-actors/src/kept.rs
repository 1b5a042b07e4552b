//! The routes as they were last known, and the registry they came from: a file in the data folder, so
//! that a broker serves what it owns also while its registry is away. Pure but for the file.
//!
//! ```text
//! | "GRUSRT1\n" | XXH3-64 of what follows, little endian | MessagePack |
//! ```
//!
//! It may be deleted while the broker is stopped: then the registry has to be asked first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grus_protocol::ids::{ShardId, TopicId};
use grus_protocol::message::RoutesChanged;
use grus_registry::RoutingTable;
use grus_registry::folder::write_durably;
use grus_registry::routing::change::{Follower, pushes};
use xxhash_rust::xxh3::xxh3_64;

use crate::registry_link::ledger::Home;

const MAGIC: &[u8; 8] = b"GRUSRT1\n";

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The registry that the shards' data belongs to.
    pub home: Home,
    /// The routes.
    pub table: Arc<RoutingTable>,
}

type Stored = (u64, u64, Vec<TopicId>, Vec<RoutesChanged>, Vec<(ShardId, TopicId)>);
/// As builds wrote it that did not keep what is to be dropped.
type StoredBefore = (u64, u64, Vec<TopicId>, Vec<RoutesChanged>);

impl Kept {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: plain values have a form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Home { registry, version, refused, drops } = &self.home;
        let refused: Vec<_> = refused.iter().copied().collect();
        let drops = drops.iter().copied().collect();
        let changes = pushes(None, &self.table, &std::collections::BTreeSet::new());
        let stored: Stored = (*registry, *version, refused, changes, drops);
        let body = rmp_serde::to_vec(&stored).expect("plain values have a form");
        [&MAGIC[..], &xxh3_64(&body).to_le_bytes(), &body].concat()
    }

    /// Reads its bytes; `None` when they are not whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (hash, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        if xxh3_64(body).to_le_bytes() != *hash {
            return None;
        }
        let before = |(registry, version, refused, changes): StoredBefore| -> Stored {
            (registry, version, refused, changes, Vec::new())
        };
        let stored: Result<Stored, _> = rmp_serde::from_slice(body);
        let stored = stored.or_else(|_| rmp_serde::from_slice(body).map(before));
        let (registry, version, refused, changes, drops) = stored.ok()?;
        let mut follower = Follower::default();
        let table = changes.into_iter().filter_map(|change| follower.take(change)).next_back()?;
        let (refused, drops) = (refused.into_iter().collect(), drops.into_iter().collect());
        let home = Home { registry, version, refused, drops };
        Some(Self { home, table })
    }

    /// Reads the file; nothing is known when it is not there, or damaged, which is logged.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        match std::fs::read(path) {
            Ok(bytes) => Self::decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "damaged: the registry is asked instead");
                Self::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot be read");
                }
                Self::default()
            }
        }
    }

    /// Writes the file: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// What the system said.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        write_durably(path, &self.encode())
    }

    /// Writes the file on a thread that may block.
    ///
    /// # Errors
    /// What the system said, in words.
    pub async fn save_aside(self, path: PathBuf) -> Result<(), String> {
        match tokio::task::spawn_blocking(move || self.save(&path)).await {
            Ok(saved) => saved.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{BrokerAddress, BrokerId, Durability};
    use grus_registry::{BrokerPlace, ShardPlace};

    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_damage_is_seen() {
        let broker = BrokerId(5);
        let address = BrokerAddress { id: broker, host: "h".into(), port: 1 };
        let place = ShardPlace::alone(Durability::Replicated, broker);
        let table = RoutingTable {
            registry: 9,
            version: 3,
            brokers: [(broker, BrokerPlace { address, live: true, disk: 8 })].into(),
            shards: [(ShardId(4), place)].into(),
            ..RoutingTable::default()
        };
        let refused = BTreeSet::from([TopicId(7)]);
        let drops = BTreeSet::from([(ShardId(4), TopicId(8))]);
        let home = Home { registry: 9, version: 3, refused, drops };
        let kept = Kept { home, table: Arc::new(table) };
        let changes = pushes(None, &kept.table, &BTreeSet::new());
        let before: StoredBefore = (9, 3, vec![TopicId(7)], changes);
        let body = rmp_serde::to_vec(&before).unwrap();
        let older = [&MAGIC[..], &xxh3_64(&body).to_le_bytes(), &body].concat();
        let nothing_to_drop = Home { drops: BTreeSet::new(), ..kept.home.clone() };
        let known = Kept { home: nothing_to_drop, ..kept.clone() };
        assert_eq!(Kept::decode(&older), Some(known), "of a build before");
        let bytes = kept.encode();
        assert_eq!(Kept::decode(&bytes), Some(kept));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Kept::decode(&damaged), None, "byte {at}");
            assert_eq!(Kept::decode(&bytes[..at]), None, "cut at {at}");
        }
        let none = Kept::default();
        assert_eq!(Kept::decode(&none.encode()), Some(none));
    }
}
