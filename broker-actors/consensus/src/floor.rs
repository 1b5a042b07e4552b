//! A snapshot whose checkpoint cannot be read any more, while a later one can.
//!
//! The snapshot is the purge point, for a member that installs it drops its log up to there. A group
//! of one has nobody to send it to: there the next checkpoint may stand in for it, with the log
//! before it kept as it is, until a trim passes it. Anybody else has to be told.

use grus_log::{CheckpointData, Disk, EntryKind, Log, LostFloor};

use crate::codec::{decode_membership, decode_stored_membership};
use crate::config::GroupConfig;
use crate::fault::{Fault, StartError};
use crate::types::Membership;

/// Makes the next checkpoint the snapshot, durably, if this member is alone. Blocks.
pub(crate) fn replace<D: Disk>(
    config: &GroupConfig,
    log: &mut Log<D>,
    checkpoints: &[CheckpointData],
    lost: &LostFloor,
) -> Result<(), StartError> {
    let floor = lost.floor.index;
    if !is_alone(config, log, checkpoints)? {
        let files = lost.files.iter().map(|path| path.display().to_string());
        return Err(StartError::FloorLost { floor, files: files.collect::<Vec<_>>().join(", ") });
    }
    let (shard, next) = (config.shard.0, lost.next.index);
    tracing::warn!(
        shard,
        floor,
        next,
        "the snapshot cannot be read, the next checkpoint stands in"
    );
    Ok(log.move_floor(lost.next)?)
}

/// Whether no membership in checkpoint or log knows anybody else.
fn is_alone<D: Disk>(
    config: &GroupConfig,
    log: &Log<D>,
    checkpoints: &[CheckpointData],
) -> Result<bool, StartError> {
    let knows_only_us = |membership: &Membership| {
        let mut nodes = membership.nodes();
        nodes.all(|(node, _)| *node == config.node)
    };
    let Some(newest) = checkpoints.last() else { return Ok(false) };
    let stored = decode_stored_membership(newest.membership.clone())
        .map_err(|error| Fault::codec(newest.index, error))?;
    let mut alone = knows_only_us(stored.membership());
    for index in newest.index + 1..log.last().map_or(0, |last| last.index + 1) {
        // What is damaged stops the start where it is applied.
        let Ok(entry) = log.entry(index) else { continue };
        if entry.kind == EntryKind::Membership {
            let membership = decode_membership(entry.payload);
            let membership = membership.map_err(|error| Fault::codec(index, error))?;
            alone &= knows_only_us(&membership);
        }
    }
    Ok(alone)
}
