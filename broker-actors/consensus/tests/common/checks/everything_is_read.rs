//! Every retained message on one member: found by its queue and offset, whole by its checksum.

use grus_consensus::NodeId;

use super::super::cluster::Receipt;
use super::super::machine::queue_key;
use super::super::member::Running;
use super::{Found, ensure};

pub fn read_everything(node: NodeId, running: &Running, receipts: &[Receipt]) -> Found {
    let log = running.log.borrow();
    let purged = log.purged().map(|id| id.index);
    let retained =
        receipts.iter().filter(|receipt| purged.is_none_or(|purged| receipt.index > purged));
    for receipt in retained {
        let placed = receipt.placed;
        let offset = grus_protocol::ids::Offset(placed.offset);
        let runs = log.runs(queue_key(placed.queue), offset, 1);
        let run = runs.first().filter(|run| run.base == offset);
        let run = run.ok_or_else(|| format!("member {node} has no run for {receipt:?}"))?;
        let bytes = log.slice(run).map_err(|error| format!("member {node}: {error}"))?;
        ensure(crc32c::crc32c(&bytes) == placed.crc, || {
            format!("member {node} has other bytes for {receipt:?}")
        })?;
    }
    Ok(())
}
