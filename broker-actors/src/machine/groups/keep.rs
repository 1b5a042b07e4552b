//! Changing progress and retries so that checkpoints and digest follow; what goes with a queue, a
//! topic or a group.

use grus_protocol::ids::{GroupId, Offset, QueueKey, TopicId};

use super::progress::{HeldProgress, Progress};
use super::retries::{Bucket, Retry, bucket_of};
use super::{PROGRESS_MAX, RETRIES_EACH_MAX, RETRIES_MAX};
use crate::commands::groups::ProgressKey;
use crate::machine::digest::Tracked;
use crate::machine::part::PartKey;
use crate::machine::{Machine, Refusal};
use crate::rings::LIFE_BITS;

/// Each pair has room for so many retries, whatever others take.
const RETRIES_EACH_MIN: usize = 16;

/// How many more retries of a pair that has `own` find room in a shard that has `all`.
fn room(all: usize, own: usize) -> usize {
    let share = RETRIES_MAX.saturating_sub(all) / 4;
    share.clamp(RETRIES_EACH_MIN, RETRIES_EACH_MAX).saturating_sub(own)
}

impl Machine {
    /// Opens the numbers of a progress for a change.
    pub(super) fn change_progress(&mut self, place: ProgressKey) -> Option<&mut Progress> {
        let part = PartKey::Progress(place);
        self.touch(&part);
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let held = self.groups.progress.get_mut(&place)?;
        Some(held.numbers.change(|hash| {
            *digest ^= hash;
            dirty.insert(part);
        }))
    }

    /// Begins a progress where there is none.
    pub(super) fn begin_progress(&mut self, place: ProgressKey, at: Offset) -> Result<(), Refusal> {
        if self.groups.progress.contains_key(&place) {
            return Ok(());
        }
        if self.groups.progress.len() >= PROGRESS_MAX {
            return Err(Refusal::Limit { what: "groups by queues", limit: PROGRESS_MAX });
        }
        self.touch(&PartKey::Progress(place));
        self.dirty.insert(PartKey::Progress(place));
        let held = HeldProgress::new(Tracked::unsaved(Progress::at(at)));
        self.hold(place, held);
        Ok(())
    }

    fn hold(&mut self, place: ProgressKey, held: HeldProgress) {
        self.groups.progress.insert(place, held);
        self.groups.by_group.insert((place.group, place.queue));
    }

    /// How many more retries of a pair find room. None takes more than a quarter of what is left of
    /// the shard's: however many groups fail for long, another one's find room.
    pub fn room_for_retries(&self, held: &HeldProgress) -> usize {
        room(self.groups.retries, held.retries())
    }

    /// Puts a retry in, or changes it.
    pub(super) fn put_retry(&mut self, place: ProgressKey, retry: Retry) {
        let number = bucket_of(retry.offset);
        let part = PartKey::Retries(place, number);
        self.touch(&part);
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let Some(held) = self.groups.progress.get_mut(&place) else { return };
        let bucket = held.buckets.entry(number).or_insert_with(|| {
            dirty.insert(part.clone());
            Tracked::unsaved(Bucket::default())
        });
        let before = bucket
            .change(|hash| {
                *digest ^= hash;
                dirty.insert(part);
            })
            .put(retry);
        held.note(before, Some(retry));
        self.groups.retries += usize::from(before.is_none());
    }

    /// Takes a retry out.
    pub(super) fn take_retry(&mut self, place: ProgressKey, offset: Offset) -> Option<Retry> {
        let number = bucket_of(offset);
        let part = PartKey::Retries(place, number);
        self.groups.progress.get(&place)?.retry(offset)?;
        self.touch(&part);
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let held = self.groups.progress.get_mut(&place)?;
        let bucket = held.buckets.get_mut(&number)?;
        let taken = bucket
            .change(|hash| {
                *digest ^= hash;
                dirty.insert(part);
            })
            .take(offset);
        if bucket.get().all().is_empty() {
            held.buckets.remove(&number); // it is dirty, so nothing of it is in the digest
        }
        held.note(taken, None);
        self.groups.retries -= usize::from(taken.is_some());
        taken
    }

    /// Takes out all retries of `from..to`; how many there were.
    pub(super) fn take_retries(&mut self, place: ProgressKey, from: Offset, to: Offset) -> u64 {
        let Some(held) = self.groups.progress.get(&place) else { return 0 };
        if held.retries() == 0 {
            return 0;
        }
        let inside: Vec<Offset> = held.retries_within(from, to).map(|retry| retry.offset).collect();
        for offset in &inside {
            self.take_retry(place, *offset);
        }
        inside.len() as u64
    }

    /// The queue begins at `start` now: what lies before it is lost to groups that had not settled
    /// it.
    pub(in crate::machine) fn retained_under_groups(&mut self, queue: QueueKey, start: Offset) {
        let behind = self.progress_of(queue).filter(|(_, held)| {
            let first = held.retries_within(Offset(0), start).next();
            held.numbers().floor < start || first.is_some()
        });
        let behind: Vec<GroupId> = behind.map(|(group, _)| group).collect();
        let is_temporary = self.is_temporary(queue.topic);
        for group in behind {
            let place = ProgressKey { queue, group };
            let waited = self.take_retries(place, Offset(0), start);
            let Some(progress) = self.change_progress(place) else { continue };
            let floor = progress.floor;
            // What an earlier life of a temporary queue held besides, nobody knows.
            let is_other_life = floor.0 >> LIFE_BITS != start.0 >> LIFE_BITS && is_temporary;
            let known = if is_other_life { progress.delivered_to.min(start) } else { start };
            let unread = known.0.saturating_sub(floor.0);
            let passed = progress.passed.covered_within(floor.0, known.0);
            let lost = (unread - passed).saturating_add(waited);
            progress.counts.lost = progress.counts.lost.saturating_add(lost);
            if floor < start {
                progress.rise(start);
            }
        }
    }

    /// A topic goes: what groups have done in its queues, and, if it is a group's topic of dead
    /// letters, the group.
    pub(in crate::machine) fn drop_groups_of(&mut self, topic: TopicId) {
        let places = self.groups.progress.keys();
        let places: Vec<_> = places.filter(|place| place.queue.topic == topic).copied().collect();
        for place in places {
            self.forget_progress(place);
        }
        self.drop_group(GroupId(topic.0));
    }

    /// A group goes, with all that it has done here. Whether there was anything of it.
    pub(super) fn drop_group(&mut self, group: GroupId) -> bool {
        let queues = self.progress_in(group, None).map(|(queue, _)| queue);
        let places: Vec<_> = queues.map(|queue| ProgressKey { queue, group }).collect();
        for place in &places {
            self.forget_progress(*place);
            self.mark_changed(place.queue);
        }
        let was_coordinated = self.forget_group(group);
        was_coordinated || !places.is_empty()
    }

    fn forget_progress(&mut self, place: ProgressKey) {
        self.touch(&PartKey::Progress(place));
        if self.frozen.is_some() {
            let Some(held) = self.groups.progress.get(&place) else { return };
            let numbers: Vec<u64> = held.buckets.keys().copied().collect();
            for number in numbers {
                self.touch(&PartKey::Retries(place, number));
            }
        }
        let Some(held) = self.groups.progress.remove(&place) else { return };
        self.groups.by_group.remove(&(place.group, place.queue));
        self.groups.retries -= held.retries();
        self.forget_part(PartKey::Progress(place), held.numbers.clean_hash());
        for (number, bucket) in &held.buckets {
            self.forget_part(PartKey::Retries(place, *number), bucket.clean_hash());
        }
    }

    /// Takes a progress out of a checkpoint; false if it belongs to nothing.
    pub(in crate::machine) fn restore_progress(
        &mut self,
        place: ProgressKey,
        progress: Progress,
        hash: u64,
    ) -> bool {
        if self.queue(place.queue).is_none() {
            return false;
        }
        let (_, end) = self.bounds_of(place);
        let last = progress.passed.iter().last().map_or(progress.floor.0, |(_, to)| to);
        let is_known = self.topics.contains_key(&TopicId(place.group.0));
        if last > end.0 || !is_known {
            return false;
        }
        self.hold(place, HeldProgress::new(Tracked::saved(progress, hash)));
        true
    }

    /// Takes a bucket of retries out of a checkpoint; false if it belongs to nothing.
    pub(in crate::machine) fn restore_retries(
        &mut self,
        place: ProgressKey,
        number: u64,
        bucket: Bucket,
        hash: u64,
    ) -> bool {
        let Some(held) = self.groups.progress.get_mut(&place) else { return false };
        self.groups.retries += bucket.all().len();
        held.restore(number, bucket, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_pairs_are_full_another_one_has_room_for_some() {
        assert_eq!([0, 99_999, 100_000].map(|own| room(own, own)), [RETRIES_EACH_MAX, 1, 0]);
        let mut all = 0;
        for _ in 0..10 {
            all += room(all, 0);
        }
        assert_eq!((all, room(all, 0)), (10 * RETRIES_EACH_MAX, RETRIES_EACH_MAX));
        for _ in 0..1_000 {
            assert!(room(all, 0) >= RETRIES_EACH_MIN);
            all += room(all, 0);
        }
        assert!(all < RETRIES_MAX + 1_000 * RETRIES_EACH_MIN, "{all}");
    }
}
