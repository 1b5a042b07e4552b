//! What happens in a simulation of groups, in order: written down at the instant in which it happens,
//! by whoever sees it, and compared when the same seed runs twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use grus_mailbox::Clock;
use grus_protocol::ids::QueueKey;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What the leader of a queue, or a program, has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// An operation or a fault of the story.
    Did(&'static str, u64),
    /// A message is stored: its sender was told so.
    Sent(QueueKey, u64),
    /// A claim is applied, that was asked for at that time.
    Claimed {
        by: Holder,
        floor: u64,
        asked_ns: u64,
    },
    /// Messages leave for a member: offset and deliveries before.
    Delivered {
        by: Holder,
        messages: Vec<(u64, u32)>,
    },
    /// A member's answers have reached the leader.
    Answering {
        by: Holder,
        failed: Vec<u64>,
        back: Option<Back>,
    },
    /// A member was told that its answers, which came at that time, are in the log. `over`: acknowledged or
    /// given up.
    Settled {
        by: Holder,
        over: Vec<u64>,
        failed: Vec<u64>,
        back: Option<Back>,
        asked_ns: u64,
    },
    /// The leader refused a member: another one has the queue, or it was reset.
    Refused {
        by: Holder,
        fenced: bool,
    },
    /// A member says that it holds a queue no more.
    LetGo {
        queue: QueueKey,
        member: u64,
    },
    /// A consumer of the client hands its program a message.
    Given {
        session: u64,
        slot: u64,
        queue: QueueKey,
        offset: u64,
        /// By its body.
        number: u64,
        /// Deliveries before.
        before: u32,
    },
    /// Its program says that it failed.
    Failed {
        session: u64,
        slot: u64,
        queue: QueueKey,
        offset: u64,
    },
    /// A message was handled by the program of a member.
    Handled(QueueKey, u64),
    /// The progress of a queue was set elsewhere, somewhere between these.
    ResetBegins(QueueKey),
    ResetEnds(QueueKey),
    /// A broker ends, from one moment to the next.
    Ended {
        broker: u64,
    },
    /// A broker is there again, and what of groups' floors it had kept.
    Restored {
        broker: u64,
        floors: u64,
        retries: u64,
    },
}

impl Fact {
    /// The queue it is about, if it is about one.
    pub(crate) const fn queue(&self) -> Option<QueueKey> {
        match self {
            Self::Sent(queue, _)
            | Self::LetGo { queue, .. }
            | Self::Given { queue, .. }
            | Self::Failed { queue, .. }
            | Self::Handled(queue, _)
            | Self::ResetBegins(queue)
            | Self::ResetEnds(queue) => Some(*queue),
            Self::Claimed { by, .. }
            | Self::Delivered { by, .. }
            | Self::Answering { by, .. }
            | Self::Settled { by, .. }
            | Self::Refused { by, .. } => Some(by.queue),
            Self::Did(..) | Self::Ended { .. } | Self::Restored { .. } => None,
        }
    }
}

/// Who speaks of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) queue: QueueKey,
    pub(crate) generation: u64,
    pub(crate) member: u64,
    pub(crate) round: u32,
}

/// What a member says of a queue that it lets go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Back {
    /// From here on nobody has seen what it was sent for the first time.
    pub(crate) unseen_from: u64,
    /// Seen, and not answered for.
    pub(crate) in_work: Vec<u64>,
}

/// Everything, each with its time in nanoseconds.
pub(crate) type Facts = Vec<(u64, Fact)>;

/// Writes facts down; may be cloned and sent along.
#[derive(Clone)]
pub(crate) struct Scribe {
    clock: Clock,
    to: UnboundedSender<(u64, Fact)>,
    /// How often a member was refused that had lost its queue.
    fenced: Arc<AtomicU64>,
    /// How often a queue was handed back with messages that nobody had looked at.
    unseen: Arc<AtomicU64>,
    /// How many words leaders have sent to members.
    words: Arc<AtomicU64>,
}

impl Scribe {
    pub(crate) fn new(clock: Clock) -> (Self, UnboundedReceiver<(u64, Fact)>) {
        let (to, from) = unbounded_channel();
        (
            Self {
                clock,
                to,
                fenced: Arc::default(),
                unseen: Arc::default(),
                words: Arc::default(),
            },
            from,
        )
    }

    /// A leader sends a word to a member, of which the order counts: its number, from 1.
    pub(crate) fn next_word(&self) -> u64 {
        self.words.fetch_add(1, Relaxed) + 1
    }

    /// How often a member was refused that had lost its queue.
    pub(crate) fn fenced(&self) -> u64 {
        self.fenced.load(Relaxed)
    }

    /// How often a queue was handed back with messages that nobody had looked at.
    pub(crate) fn unseen(&self) -> u64 {
        self.unseen.load(Relaxed)
    }

    /// A leader has taken a queue back with messages that nobody had looked at.
    pub(crate) fn handed_back_unseen(&self) {
        self.unseen.fetch_add(1, Relaxed);
    }

    pub(crate) fn note(&self, fact: Fact) {
        if matches!(fact, Fact::Refused { fenced: true, .. }) {
            self.fenced.fetch_add(1, Relaxed);
        }
        let _ = self.to.send((self.clock.monotonic_ns(), fact)); // nobody reads: the story is over
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }
}

/// Numbers that follow from a seed.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, of: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ of.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}
