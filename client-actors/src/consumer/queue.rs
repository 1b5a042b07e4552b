//! One queue that is a member's: claiming it, having its messages, settling them, letting go of it.
//! No clock, no I/O.

use std::collections::{HashMap, VecDeque};

use grus_protocol::message::{
    AssignedQueue, GroupDeliver, MessageFilter, OffsetRange, QueuePlace, Redelivered,
};
use grus_protocol::{Generation, TopicName};

use super::item::ClaimFlag;
use super::local::LocalRetries;
use super::offsets::OffsetSet;
use super::patience::Wait;
use super::settling::Settling;
use super::state::QueueWord;
use crate::backoff::Backoff;
use crate::reader::cursor::{Content, Fetched, Window};
use crate::route::LinkId;

pub(crate) use super::item::HandItem;

mod answering;
#[cfg(test)]
mod cases;

/// What somebody waits for: that the broker knows of an answer.
#[derive(Debug)]
pub(crate) enum Waiter<P> {
    /// The program.
    Program(P),
    /// Messages that may be handed out then.
    Item(Box<HandItem>),
}

/// How far a queue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// To be claimed.
    Unclaimed,
    /// The claim was sent.
    Claiming { number: u64, since_ms: u64 },
    /// Claimed; to be subscribed to.
    Claimed,
    /// The subscription was sent.
    Subscribing { number: u64, since_ms: u64 },
    /// Messages come.
    Live { number: u64 },
    /// It is another's. It rests until the coordinator says something else.
    Fenced,
}

/// What is left of an item.
#[derive(Debug)]
struct Share {
    left: u64,
    messages: u32,
    bytes: u32,
    /// It, where failed messages wait at the client.
    item: Option<HandItem>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct OwnedQueue<P> {
    pub(crate) slot: u64,
    pub(crate) topic: TopicName,
    pub(crate) place: QueuePlace,
    pub(crate) generation: Generation,
    pub(crate) filter: MessageFilter,
    pub(crate) link: Option<LinkId>,
    pub(crate) phase: Phase,
    pub(crate) not_before_ms: u64,
    /// For its messages.
    pub(crate) waits: Wait,
    pub(crate) round: u32,
    pub(crate) settling: Settling<Waiter<P>>,
    pub(crate) window: Window,
    /// It is to go: by when at the latest.
    pub(crate) revoked_by_ms: Option<u64>,
    /// It was granted anew meanwhile, by this generation.
    pub(crate) comes_back: Option<Generation>,
    /// The request by which it begins at its end, where the member has just begun, too; 0: the next one.
    pub(crate) at_end_by: Option<u64>,
    /// What failed, where that waits at the client: the group is a broadcast.
    pub(crate) local: Option<LocalRetries>,
    /// Messages are acked before they are handed out.
    acks_before: bool,
    claim: ClaimFlag,
    /// What the program has and has not answered for.
    taken: OffsetSet,
    /// Something came that was not handed out yet.
    pub(super) has_unseen: bool,
    /// The broker was told, or is being told, what nobody has seen.
    pub(super) is_handed_back: bool,
    shares: HashMap<u64, Share>,
    next_item: u64,
    ready: VecDeque<HandItem>,
    /// Acked before they are handed out: they come to nobody else.
    acked: VecDeque<HandItem>,
    backoff: Backoff,
}

impl<P> OwnedQueue<P> {
    /// A queue that was just assigned.
    pub(crate) fn new(
        slot: u64,
        queue: AssignedQueue,
        filter: MessageFilter,
        (acks_before, seed): (bool, u64),
    ) -> Self {
        let AssignedQueue { topic, topic_id, queue, generation } = queue;
        Self {
            slot,
            topic,
            place: QueuePlace { topic_id, queue },
            generation,
            filter,
            link: None,
            phase: Phase::Unclaimed,
            not_before_ms: 0,
            waits: Wait::default(),
            round: 0,
            settling: Settling::default(),
            window: Window::default(),
            revoked_by_ms: None,
            comes_back: None,
            at_end_by: None,
            local: None,
            acks_before,
            claim: ClaimFlag::default(),
            taken: OffsetSet::default(),
            has_unseen: false,
            is_handed_back: false,
            shares: HashMap::new(),
            next_item: 0,
            ready: VecDeque::new(),
            acked: VecDeque::new(),
            backoff: Backoff::new(20, 1_000, seed),
        }
    }

    /// The subscription that was asked for, or stands.
    pub(crate) fn subscription(&self) -> Option<u64> {
        match self.phase {
            Phase::Subscribing { number, .. } | Phase::Live { number } => Some(number),
            _ => None,
        }
    }

    /// Whether messages can come or go: it was claimed.
    pub(crate) fn is_claimed(&self) -> bool {
        matches!(self.phase, Phase::Claimed | Phase::Subscribing { .. } | Phase::Live { .. })
    }

    /// What of a window of messages and bytes is left. What failed and the broker does not know counts,
    /// so that it does not grow without end while there is no room for it; but for half of the window: what
    /// failed before has to be delivered again for there to be room.
    pub(crate) fn room_in(&self, (messages, bytes): (u32, u32)) -> (u32, u32) {
        let untold = u32::try_from(self.settling.untold_marks()).unwrap_or(u32::MAX);
        (messages - untold.min(messages / 2), bytes)
    }

    /// What to ask now, as request `number`.
    pub(crate) fn ask(
        &mut self,
        number: u64,
        window: (u32, u32),
        now_ms: u64,
    ) -> Option<QueueWord> {
        if self.owes_hand_back() && self.is_drained() {
            self.hand_back(now_ms);
        }
        if self.local.is_none()
            && self.is_claimed()
            && let Some(told) = self.settling.poll(number, now_ms)
        {
            return Some(QueueWord::Ack(told));
        }
        if now_ms < self.not_before_ms {
            return None;
        }
        if self.local.is_some() && self.phase == Phase::Unclaimed {
            self.phase = Phase::Claimed; // nobody else wants it alone
        }
        match self.phase {
            Phase::Unclaimed if self.revoked_by_ms.is_none() => {
                self.phase = Phase::Claiming { number, since_ms: now_ms };
                Some(QueueWord::Claim)
            }
            Phase::Claimed if self.revoked_by_ms.is_none() => {
                let credit = self.window.open(self.room_in(window))?; // none: too much in hand
                self.phase = Phase::Subscribing { number, since_ms: now_ms };
                self.at_end_by = self.at_end_by.filter(|by| *by == 0).map(|_| number);
                Some(QueueWord::Subscribe { credit })
            }
            _ => None,
        }
    }

    /// Whether it begins at its end, by what was asked last.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.at_end_by.is_some()
    }

    /// Gives up what was asked so long ago; the subscription that may stand all the same.
    pub(crate) fn expire(&mut self, now_ms: u64, answer_ms_max: u64) -> Option<(LinkId, u64)> {
        self.settling.expire(now_ms, answer_ms_max);
        let is_overdue = |since_ms: u64| now_ms.saturating_sub(since_ms) >= answer_ms_max;
        match self.phase {
            Phase::Claiming { since_ms, .. } if is_overdue(since_ms) => {
                self.phase = Phase::Unclaimed;
                None
            }
            Phase::Subscribing { number, since_ms } if is_overdue(since_ms) => {
                self.unsubscribed();
                self.link.map(|link| (link, number))
            }
            _ => None,
        }
    }

    /// It was claimed.
    pub(crate) fn claimed(&mut self, round: u32) {
        self.backoff.succeeded();
        self.round = round;
        self.phase = Phase::Claimed;
        self.not_before_ms = 0;
    }

    /// The subscription stands.
    pub(crate) fn subscribed(&mut self, number: u64) {
        self.backoff.succeeded();
        self.phase = Phase::Live { number };
    }

    /// The subscription is over, or its connection: what was not taken comes again.
    pub(crate) fn unsubscribed(&mut self) {
        if matches!(self.phase, Phase::Subscribing { .. } | Phase::Live { .. }) {
            self.phase = Phase::Claimed;
        }
        self.drop_ready();
    }

    fn drop_ready(&mut self) {
        for item in std::mem::take(&mut self.ready) {
            self.dealt_with(item.number, item.len());
        }
    }

    /// So many messages of an item need no more room.
    fn dealt_with(&mut self, item: u64, messages: u64) {
        let Some(share) = self.shares.get_mut(&item) else { return };
        share.left = share.left.saturating_sub(messages);
        if share.left == 0 {
            self.window.release(share.messages, share.bytes);
            self.shares.remove(&item);
        }
    }

    /// Its connection is lost, or leads elsewhere.
    pub(crate) fn disconnected(&mut self) {
        if matches!(self.phase, Phase::Claiming { .. }) {
            self.phase = Phase::Unclaimed;
        }
        self.unsubscribed();
        self.settling.failed(0);
        self.settling.keep_back(); // nobody waits for a connection to say so
        self.not_before_ms = 0;
    }

    /// Waits before it asks again.
    pub(crate) fn wait(&mut self, now_ms: u64, least_ms: u64) -> u64 {
        self.not_before_ms = now_ms + self.backoff.failed().max(least_ms);
        self.not_before_ms
    }

    /// Batches were pushed: the items that they make. All of them or none are in hand from then on.
    ///
    /// # Errors
    /// What cannot be right about them.
    pub(crate) fn delivered(
        &mut self,
        push: &GroupDeliver,
        batches: Vec<Fetched>,
    ) -> Result<Vec<HandItem>, String> {
        let mut items = Vec::new();
        let result = batches.into_iter().try_for_each(|fetched| {
            let item = self.item_of(push, fetched)?;
            if let Some(item) = &item {
                self.hold(item);
            }
            items.extend(item);
            Ok(())
        });
        if result.is_err() {
            for item in &items {
                self.dealt_with(item.number, item.len());
            }
        }
        result.map(|()| items)
    }

    /// The item that a batch makes; none where nothing of it is wanted.
    fn item_of(
        &mut self,
        push: &GroupDeliver,
        fetched: Fetched,
    ) -> Result<Option<HandItem>, String> {
        let Fetched { base_offset, stored, content, .. } = fetched;
        let Content::Batch(batch) = content else { return Ok(None) };
        let mut skipped = OffsetSet::default();
        push.skipped.iter().for_each(|range| skipped.insert(*range));
        let end = base_offset.checked_add(u64::from(batch.count()));
        let end = end.ok_or_else(|| format!("a batch at offset {base_offset} has no end"))?;
        if !self.window.arrived(batch.count(), batch.len_bytes()) {
            return Err("more was sent than there was credit for".to_owned());
        }
        batch.verify_checksum().map_err(|error| error.to_string())?;
        let all = OffsetRange { from: base_offset, to: end };
        let wanted: Vec<_> = skipped
            .missing_of(all)
            .into_iter()
            .flat_map(|range| self.taken.missing_of(range))
            .flat_map(|range| self.settling.missing_of(range))
            .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let number = self.next_item;
        self.next_item += 1;
        self.has_unseen = true;
        let within = |one: &&Redelivered| one.from < end && base_offset < one.to;
        Ok(Some(HandItem {
            slot: self.slot,
            number,
            claim: self.claim.clone(),
            topic: self.topic.clone(),
            queue: self.place.queue,
            stored,
            base_offset,
            wanted,
            redelivered: push.redelivered.iter().filter(within).copied().collect(),
            batch,
        }))
    }

    /// An item counts as in hand, until its messages are answered for.
    fn hold(&mut self, item: &HandItem) {
        let (messages, bytes) = (item.batch.count(), item.batch.len_bytes());
        self.window.hold(messages, u64::from(bytes));
        let kept = self.local.is_some().then(|| item.clone());
        let share = Share { left: item.len(), messages, bytes, item: kept };
        self.shares.insert(item.number, share);
    }

    /// What the program has.
    pub(crate) const fn taken(&self) -> &OffsetSet {
        &self.taken
    }

    /// An item may be taken, or acked first.
    pub(crate) fn make_ready(&mut self, item: HandItem) {
        self.ready.push_back(item);
    }

    /// Whether there is something to take, or to be acked first.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next item; the program has it from now on.
    pub(crate) fn take(&mut self) -> Option<HandItem> {
        let item = self.ready.pop_front()?;
        item.wanted.iter().for_each(|range| self.taken.insert(*range));
        Some(item)
    }

    /// Has up to so many messages acked, to be handed out then; how many.
    pub(crate) fn ack_ahead(&mut self, messages_max: u64, now_ms: u64) -> u64 {
        let Some(mut item) = self.ready.pop_front() else { return 0 };
        if let Some(rest) = item.split_off(messages_max) {
            self.ready.push_front(rest);
        }
        let (messages, wanted) = (item.len(), item.wanted.clone());
        self.settling.ack_all(&wanted, Some(Waiter::Item(Box::new(item))), now_ms);
        messages
    }

    /// An item was acked and may be taken.
    pub(crate) fn make_acked(&mut self, item: HandItem) {
        self.acked.push_back(item);
    }

    /// Whether something is being acked, or waits to be taken since.
    pub(crate) fn is_acking_ahead(&self) -> bool {
        !self.acked.is_empty() || self.settling.is_awaited()
    }

    /// What was acked; the program has it from now on.
    pub(crate) fn take_acked(&mut self) -> VecDeque<HandItem> {
        let acked = std::mem::take(&mut self.acked);
        let ranges = acked.iter().flat_map(|item| &item.wanted);
        ranges.for_each(|range| self.taken.insert(*range));
        acked
    }

    /// It is to go: nothing more of it is handed out.
    pub(crate) fn revoke(&mut self, by_ms: u64) {
        if !self.acks_before {
            self.claim.end();
        }
        self.drop_ready();
        self.drop_retries();
        self.settling.hurry();
        self.revoked_by_ms = Some(by_ms);
    }

    /// What waits to be handed out again is not: it is not settled, and comes to who reads next.
    fn drop_retries(&mut self) {
        for item in self.local.as_mut().map(LocalRetries::drop_waiting).unwrap_or_default() {
            if let Some(share) = self.shares.remove(&item.number) {
                self.window.release(share.messages, share.bytes);
            }
        }
    }

    /// Whether nothing of it is in work any more.
    pub(crate) fn is_drained(&self) -> bool {
        self.taken.is_empty() && self.acked.is_empty() && self.settling.is_idle()
    }

    /// What was acked and comes to nobody else, as the queue goes.
    pub(crate) fn leftovers(&mut self) -> VecDeque<HandItem> {
        std::mem::take(&mut self.acked)
    }

    /// What it had is void: those who waited for the broker's word.
    pub(crate) fn lose(&mut self) -> Vec<P> {
        if !self.acks_before {
            self.claim.end();
        }
        self.claim = ClaimFlag::default();
        self.drop_retries();
        self.taken = OffsetSet::default();
        (self.has_unseen, self.is_handed_back) = (false, false);
        self.ready.clear();
        self.acked.clear();
        self.shares.clear();
        self.window.release_all();
        let waiting = self.settling.clear().into_iter();
        waiting
            .filter_map(|waiter| match waiter {
                Waiter::Program(port) => Some(port),
                Waiter::Item(_) => None,
            })
            .collect()
    }
}
