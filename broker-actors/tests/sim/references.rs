//! What waits against what retention lets go of: eight segments are kept, messages wait from a tenth of
//! a segment to twenty, members come and go and one joins midway. Each replica has the right body of
//! each message, in its own log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grus_broker::shard::TopicConfig;
use grus_consensus::NodeId;

use crate::later::{body_of, key, send, visible, waiting};
use crate::world::{SEGMENT_BYTES, World, simulate_test, topic};

/// Traffic that fills about a segment a second: a tenth of one each tenth of a second.
const NOISE_BYTES: usize = SEGMENT_BYTES as usize / 10 - 1_500;
const LATER_BYTES: usize = 300;
/// Batches of two scheduled messages each tenth of a second.
const LATER_AT_ONCE: u64 = 2;
const SECONDS: u64 = 50;
const LATER: u64 = 1;
const NOISE: u64 = 2;

fn topics() -> [TopicConfig; 2] {
    let kept = 8 * u64::from(SEGMENT_BYTES);
    // Of both what came in some eight seconds, each of which fills about a segment.
    [topic(LATER, kept / 10), topic(NOISE, kept)]
}

/// What was sent, and what was seen of it on any replica.
#[derive(Default)]
struct Story {
    next: u64,
    /// Number and due time of all that were sent.
    sent: BTreeMap<u64, u64>,
    acked: BTreeSet<u64>,
    /// By offset: the same on every replica.
    seen: BTreeMap<u64, u64>,
    /// By member: how far its queue was read.
    read_to: BTreeMap<NodeId, u64>,
    /// Looks at a replica that held a message whose first entry was gone.
    carried_on: u64,
}

impl Story {
    /// A tenth of a second of traffic, where a member leads.
    async fn send(&mut self, world: &World, leader: NodeId) {
        let handle = &world.running(leader).handle;
        let (Some(later), Some(noise)) = (handle.queue(key(LATER)), handle.queue(key(NOISE)))
        else {
            return; // it leads since a moment ago
        };
        let noise = send(&noise, &[body_of(u64::MAX, NOISE_BYTES)], &[]).await;
        let mut answers = Vec::new();
        for _ in 0..LATER_AT_ONCE {
            // A batch of two, the second due at another time: they leave one by one.
            let numbers = [self.next, self.next + 1];
            self.next += 2;
            let due = numbers.map(|number| world.now() + 100 + number * 7_919 % 19_900);
            self.sent.extend(numbers.into_iter().zip(due));
            let bodies = numbers.map(|number| body_of(number, LATER_BYTES));
            answers.push((numbers, send(&later, &bodies, &due).await));
        }
        let patience = Duration::from_secs(5);
        let _ = tokio::time::timeout(patience, noise).await; // its leader may be gone
        for (numbers, answer) in answers {
            if let Ok(Ok(Ok(receipt))) = tokio::time::timeout(patience, answer).await {
                assert!(receipt.timer.is_some());
                self.acked.extend(numbers);
            }
        }
    }

    /// Reads what is new on every replica, and all that waits there.
    fn look(&mut self, world: &World) {
        for (node, running) in world.alive() {
            let read_to = self.read_to.entry(node).or_default();
            for (offset, number, stored) in visible(running, key(LATER), *read_to) {
                let due = self.sent.get(&number).expect("what comes was sent");
                assert!(stored >= *due, "member {node}: {number} is {} ms early", due - stored);
                let first = *self.seen.entry(offset).or_insert(number);
                assert_eq!(first, number, "member {node} has another message at {offset}");
                *read_to = offset + 1;
            }
            let (waiting, oldest) = waiting(running);
            for (number, due) in waiting {
                assert_eq!(self.sent.get(&number), Some(&due), "member {node}: {number} waits");
            }
            let purged = running.group.status().purged;
            self.carried_on += u64::from(oldest.is_some() && oldest <= purged);
        }
    }

    /// Every acknowledged message came, and none came twice.
    fn check_all_came(&self) {
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for number in self.seen.values() {
            *times.entry(*number).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "came twice: {twice:?}");
        let lost: Vec<_> = self.acked.iter().filter(|number| !times.contains_key(number)).collect();
        assert!(lost.is_empty(), "never came: {lost:?}");
    }
}

/// What happens to members, by tenths of a second.
async fn happen(world: &mut World, tenth: u64) {
    match tenth {
        100 => {
            let leader = world.wait_leader().await;
            world.kill(leader).await;
        }
        130 | 290 => {
            let down: Vec<NodeId> = world.members.keys().copied().collect();
            for node in down {
                if world.members[&node].running.is_none() {
                    world.start(node).await.unwrap();
                }
            }
        }
        // Midway, when a good part of the log has gone: a fourth member with an empty disk.
        200 => {
            world.add(4);
            world.start(4).await.unwrap();
            let leader = world.wait_leader().await;
            world.running(leader).group.add_learner(4, "m4").await.unwrap();
        }
        240 => {
            let leader = world.wait_leader().await;
            world.running(leader).group.promote_learner(4).await.unwrap();
        }
        260 => {
            let leader = world.wait_leader().await;
            world.cut_power(leader).await;
        }
        _ => {}
    }
}

#[test]
fn each_replica_has_the_right_body_however_long_it_waits_also_one_that_joins_midway() {
    simulate_test(async {
        let mut world = World::of(&[1, 2, 3], 7);
        for node in 1..=3 {
            world.start(node).await.unwrap();
        }
        let mut story = Story::default();
        let mut leader = None;
        for tenth in 0..SECONDS * 10 {
            happen(&mut world, tenth).await;
            let leads = world.wait_leader().await;
            if leader.replace(leads) != Some(leads) {
                assert!(world.open_topics(leads, &topics()).await);
            }
            story.send(&world, leads).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if tenth % 10 == 0 {
                story.look(&world);
            }
        }
        // Nothing is sent any more: what waits comes in at most twenty seconds.
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            story.look(&world);
        }
        assert!(waiting(world.running(4)).0.is_empty(), "all had their time");
        story.check_all_came();
        assert!(story.carried_on > 10, "messages were carried on: {} looks", story.carried_on);
        assert_eq!(story.read_to.values().collect::<BTreeSet<_>>().len(), 1, "{:?}", story.read_to);
        assert!(
            story.acked.len() > 1_500,
            "{} of {} are acknowledged",
            story.acked.len(),
            story.next
        );
        let segments = world.running(4).ground.log.borrow().segments_below(u64::MAX).len();
        assert!(segments < 8 * 4, "{segments} segments are kept");

        // Each of the four leads in turn, and has it all.
        for node in 1..=4 {
            for _ in 0..50 {
                let leads = world.wait_leader().await;
                if leads == node {
                    break;
                }
                let _ = world.running(leads).group.transfer_leader(node).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert_eq!(world.wait_leader().await, node);
            for (offset, number, _) in visible(world.running(node), key(LATER), 0) {
                assert_eq!(story.seen.get(&offset), Some(&number), "member {node}");
            }
        }
    });
}
