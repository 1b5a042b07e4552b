//! The snapshot is never newer than the purge point by more than the one step of a promotion, and never
//! older.

use grus_consensus::NodeId;

use super::super::member::Running;
use super::{Found, ensure};

pub fn check(node: NodeId, running: &Running) -> Found {
    let log = running.log.borrow();
    let (floor, purged) = (log.floor().map(|id| id.index), log.purged().map(|id| id.index));
    ensure(purged <= floor, || format!("member {node} purged {purged:?} beyond {floor:?}"))
}
