//! The parts of groups in a checkpoint.

use bytes::Bytes;

use super::members::{GroupHead, encode_grant, encode_member};
use super::progress::Progress;
use super::retries::Bucket;
use crate::machine::Machine;
use crate::machine::part::PartKey;
use crate::machine::save::PartError;

impl Machine {
    /// Takes a part of groups out of a checkpoint.
    pub(in crate::machine) fn restore_group_part(
        &mut self,
        part: PartKey,
        value: Bytes,
        hash: u64,
    ) -> Result<(), PartError> {
        let restored = match &part {
            PartKey::Progress(place) => match Progress::decode(value) {
                Ok(progress) => self.restore_progress(*place, progress, hash).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            },
            PartKey::Retries(place, number) => match Bucket::decode(*number, value) {
                Ok(bucket) => self.restore_retries(*place, *number, bucket, hash).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            },
            _ => self.restore_coordination(&part, value, hash),
        };
        match restored {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(PartError::Unreadable { key: part.encode(), error }),
            None => Err(PartError::Orphan(part)),
        }
    }

    pub(in crate::machine) fn encode_group_part(&self, part: &PartKey) -> Option<Bytes> {
        match part {
            PartKey::Progress(place) => Some(self.progress(*place)?.numbers().encode()),
            PartKey::Retries(place, number) => {
                let buckets = &self.progress(*place)?.buckets;
                buckets.get(number).map(|bucket| bucket.get().encode())
            }
            PartKey::Group(group) => {
                self.group(*group).map(|state| GroupHead::encode(state.head()))
            }
            PartKey::Member(group, member) => {
                let state = self.group(*group)?;
                state.members.get(member).map(|member| encode_member(member.get()))
            }
            PartKey::Grant(group, queue) => {
                let state = self.group(*group)?;
                state.grants.get(queue).map(|grant| encode_grant(*grant.get()))
            }
            _ => None,
        }
    }

    pub(in crate::machine) fn save_group_part(&mut self, part: &PartKey, hash: u64) {
        let groups = &mut self.groups;
        match part {
            PartKey::Progress(place) => {
                if let Some(held) = groups.progress.get_mut(place) {
                    held.numbers.save(hash);
                }
            }
            PartKey::Retries(place, number) => {
                let held = groups.progress.get_mut(place);
                if let Some(bucket) = held.and_then(|held| held.buckets.get_mut(number)) {
                    bucket.save(hash);
                }
            }
            PartKey::Group(group) => {
                if let Some(state) = groups.coordinated.get_mut(group) {
                    state.head.save(hash);
                }
            }
            PartKey::Member(group, member) => {
                let state = groups.coordinated.get_mut(group);
                if let Some(member) = state.and_then(|state| state.members.get_mut(member)) {
                    member.save(hash);
                }
            }
            PartKey::Grant(group, queue) => {
                let state = groups.coordinated.get_mut(group);
                if let Some(grant) = state.and_then(|state| state.grants.get_mut(queue)) {
                    grant.save(hash);
                }
            }
            _ => {}
        }
    }
}
