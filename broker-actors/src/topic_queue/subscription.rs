//! The subscriptions of one queue: where each stands, what it may still be sent, and whose turn it
//! is. Plain state; it is told what happens and says what to do.
//!
//! ```text
//!              something to send, credit of both kinds
//!   resting ------------------------------------------> asked     (its connection is asked for a turn)
//!      ^                                                  | turn
//!      '------ sent, or nothing to send after all ----- reading   (at most one frame is made of it)
//! ```
//!
//! A turn is room in the output of a connection for one frame, so a subscriber that does not read
//! gets no more of them and costs nothing but its entry here. Whoever has been sent a frame asks
//! again behind the others, so the subscriptions of a queue take turns.

use std::collections::BTreeMap;

use grus_protocol::ids::{Offset, SubscriptionId, Term};

#[cfg(test)]
#[path = "subscription_model.rs"]
mod model;

/// Most subscriptions of one queue.
pub const SUBSCRIPTIONS_MAX: usize = 4096;
/// Most credit of either kind; what is given beyond is not counted.
pub const CREDIT_MAX: i64 = 1 << 40;
/// Most bytes of batches in one frame, but for a single larger batch.
pub const TURN_BYTES_MAX: u32 = 256 * 1024;

/// A subscription, among all those of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey {
    /// The connection it came over.
    pub connection: u64,
    /// The client's name for it.
    pub id: SubscriptionId,
}

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The next offset to send.
    pub next: Offset,
    /// The term of the batch before it as the subscriber has seen it; 0: not known.
    pub last_term: Term,
}

/// What may be sent before more credit is given. Batches are sent whole while both are above 0, so
/// either may fall below 0, by less than a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    messages: i64,
    bytes: i64,
}

impl Account {
    /// An account of so many messages and bytes.
    #[must_use]
    pub fn new(messages: u32, bytes: u32) -> Self {
        Self { messages: i64::from(messages), bytes: i64::from(bytes) }
    }

    /// Adds what was given.
    pub fn add(&mut self, more: Self) {
        self.messages = self.messages.saturating_add(more.messages).min(CREDIT_MAX);
        self.bytes = self.bytes.saturating_add(more.bytes).min(CREDIT_MAX);
    }

    /// Takes off what was sent.
    pub fn spend(&mut self, messages: u64, bytes: u64) {
        let spent = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        self.messages = self.messages.saturating_sub(spent(messages));
        self.bytes = self.bytes.saturating_sub(spent(bytes));
    }

    /// Whether a batch may be sent.
    #[must_use]
    pub fn is_open(self) -> bool {
        self.messages > 0 && self.bytes > 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    /// Its connection was asked for a turn.
    Asked,
    /// It has a turn.
    Reading,
    /// What it wants must be read from the disk, for which there was no room.
    PutOff,
}

#[derive(Debug)]
struct Subscription<S> {
    sink: S,
    standing: Standing,
    account: Account,
    phase: Phase,
    /// Drawn when it began: what was begun for an earlier one of the same key is none of its own.
    opened: u64,
    /// Drawn when it began and at each seek: what was begun before is of no account any more.
    course: u64,
    /// There is something to send besides what lies ahead.
    is_urged: bool,
}

impl<S> Subscription<S> {
    fn wants(&self, end: Offset) -> bool {
        let has_something = self.standing.next < end || self.is_urged;
        self.phase == Phase::Resting && self.account.is_open() && has_something
    }
}

/// What to read for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// From where on.
    pub standing: Standing,
    /// Most bytes; the first batch is sent even if it alone is longer.
    pub bytes_max: u32,
    /// Most messages, in the same way.
    pub messages_max: u64,
    /// To be named when the turn is over.
    pub course: u64,
}

impl Turn {
    /// Whether so much is all that it is for, or more.
    #[must_use]
    pub fn is_used_up(&self, messages: u64, bytes: u64) -> bool {
        messages >= self.messages_max || bytes >= u64::from(self.bytes_max)
    }
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Where the subscription stands now.
    pub standing: Standing,
    /// Messages sent, those the subscriber skips included.
    pub messages: u64,
    /// Bytes of batches sent.
    pub bytes: u64,
}

/// See the module documentation. `S` is where what is sent goes.
#[derive(Debug)]
pub struct Subscriptions<S> {
    all: BTreeMap<SubscriptionKey, Subscription<S>>,
    most: usize,
    put_off: usize,
    /// Numbers drawn: none is drawn twice, whatever keys are used again.
    drawn: u64,
}

impl<S> Subscriptions<S> {
    /// Room for `subscriptions_max`.
    #[must_use]
    pub const fn new(subscriptions_max: usize) -> Self {
        Self { all: BTreeMap::new(), most: subscriptions_max, put_off: 0, drawn: 0 }
    }

    /// A new subscription, in place of one of the same key.
    ///
    /// # Errors
    /// Gives the sink back when there is no room.
    pub fn open(
        &mut self,
        key: SubscriptionKey,
        standing: Standing,
        account: Account,
        sink: S,
    ) -> Result<(), S> {
        if self.all.len() >= self.most && !self.all.contains_key(&key) {
            return Err(sink);
        }
        let (phase, number) = (Phase::Resting, self.draw());
        let (opened, course, is_urged) = (number, number, false);
        let one = Subscription { sink, standing, account, phase, opened, course, is_urged };
        self.all.insert(key, one);
        self.count_put_off();
        Ok(())
    }

    const fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    /// Ends a subscription.
    pub fn close(&mut self, key: SubscriptionKey) -> Option<S> {
        let closed = self.all.remove(&key)?;
        self.count_put_off();
        Some(closed.sink)
    }

    /// Ends those whose subscriber is gone.
    pub fn close_if(&mut self, mut is_gone: impl FnMut(&S) -> bool) {
        self.all.retain(|_, one| !is_gone(&one.sink));
        self.count_put_off();
    }

    /// Ends all of them.
    pub fn close_all(&mut self) -> impl Iterator<Item = (SubscriptionKey, S)> + use<S> {
        self.put_off = 0;
        std::mem::take(&mut self.all).into_iter().map(|(key, one)| (key, one.sink))
    }

    fn count_put_off(&mut self) {
        self.put_off = self.all.values().filter(|one| one.phase == Phase::PutOff).count();
    }

    /// Where what is sent for a subscription goes.
    #[must_use]
    pub fn sink(&self, key: SubscriptionKey) -> Option<&S> {
        self.all.get(&key).map(|one| &one.sink)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Gives more credit. False if there is no such subscription.
    pub fn credit(&mut self, key: SubscriptionKey, more: Account) -> bool {
        let Some(one) = self.all.get_mut(&key) else { return false };
        one.account.add(more);
        true
    }

    /// Goes on at another place, with another account. False if there is no such subscription.
    pub fn seek(&mut self, key: SubscriptionKey, standing: Standing, account: Account) -> bool {
        let course = self.draw();
        let Some(one) = self.all.get_mut(&key) else { return false };
        (one.standing, one.account, one.course) = (standing, account, course);
        true
    }

    /// Whether this one's connection is to be asked for a turn; if so, it counts as asked.
    pub fn ask(&mut self, key: SubscriptionKey, end: Offset) -> bool {
        let Some(one) = self.all.get_mut(&key) else { return false };
        let wants = one.wants(end);
        if wants {
            one.phase = Phase::Asked;
        }
        wants
    }

    /// All whose connections are to be asked for a turn; they count as asked.
    pub fn ask_all(&mut self, end: Offset) -> Vec<SubscriptionKey> {
        let mut asked = Vec::new();
        for (key, one) in &mut self.all {
            if one.wants(end) {
                one.phase = Phase::Asked;
                asked.push(*key);
            }
        }
        asked
    }

    /// A turn was given. What to read for it; none if it is not wanted any more.
    pub fn turn(&mut self, key: SubscriptionKey) -> Option<Turn> {
        let one = self.all.get_mut(&key)?;
        if one.phase != Phase::Asked {
            return None; // of an earlier subscription of that key
        }
        if !one.account.is_open() {
            one.phase = Phase::Resting;
            return None;
        }
        one.phase = Phase::Reading;
        let bytes = u32::try_from(one.account.bytes).unwrap_or(u32::MAX);
        Some(Turn {
            standing: one.standing,
            bytes_max: bytes.min(TURN_BYTES_MAX),
            messages_max: one.account.messages.unsigned_abs(),
            course: one.course,
        })
    }

    /// Whether what was read for a turn may be sent: nothing came in between. If not, the turn is
    /// over.
    pub fn is_current(&mut self, key: SubscriptionKey, course: u64) -> bool {
        let Some(one) = self.all.get_mut(&key) else { return false };
        if one.phase != Phase::Reading || course < one.opened {
            return false; // of an earlier subscription of that key
        }
        if one.course != course {
            one.phase = Phase::Resting;
        }
        one.course == course
    }

    /// The turn is over: so much was sent.
    ///
    /// # Panics
    /// When it had no turn, or goes backwards: both would repeat messages.
    pub fn sent(&mut self, key: SubscriptionKey, spent: Spent) {
        let Some(one) = self.all.get_mut(&key) else { return };
        assert!(one.phase == Phase::Reading, "sent without a turn");
        assert!(spent.standing.next > one.standing.next, "a turn that sends nothing new");
        one.phase = Phase::Resting;
        one.standing = spent.standing;
        one.account.spend(spent.messages, spent.bytes);
    }

    /// Whether there is something to send besides what lies ahead.
    pub fn urge(&mut self, key: SubscriptionKey, is_urged: bool) {
        if let Some(one) = self.all.get_mut(&key) {
            one.is_urged = is_urged;
        }
    }

    /// The turn is over: so much was sent of what lies behind.
    pub fn sent_again(&mut self, key: SubscriptionKey, messages: u64, bytes: u64) {
        if let Some(one) = self.all.get_mut(&key) {
            one.phase = Phase::Resting;
            one.account.spend(messages, bytes);
        }
    }

    /// The turn is over: nothing was sent, but it goes on from there.
    pub fn passed_over(&mut self, key: SubscriptionKey, next: Offset) {
        if let Some(one) = self.all.get_mut(&key) {
            one.phase = Phase::Resting;
            one.standing.next = one.standing.next.max(next);
        }
    }

    /// The turn is over: there was nothing to send.
    pub fn nothing_sent(&mut self, key: SubscriptionKey) {
        if let Some(one) = self.all.get_mut(&key) {
            one.phase = Phase::Resting;
        }
    }

    /// The turn is over: what it wants could not be read now. It rests until [`Self::resume`].
    pub fn put_off(&mut self, key: SubscriptionKey) {
        if let Some(one) = self.all.get_mut(&key) {
            one.phase = Phase::PutOff;
            self.put_off += 1;
        }
    }

    /// Whether some are put off.
    #[must_use]
    pub fn has_put_off(&self) -> bool {
        self.put_off > 0
    }

    /// Those that were put off may ask again.
    pub fn resume(&mut self) {
        for one in self.all.values_mut() {
            if one.phase == Phase::PutOff {
                one.phase = Phase::Resting;
            }
        }
        self.put_off = 0;
    }
}
