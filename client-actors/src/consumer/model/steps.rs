//! What may happen to a consumer.

use proptest::prelude::*;

use super::QUEUES;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The coordinator gives and takes: the queues of this bit set are the consumer's.
    Assign(u8),
    /// A request that waits is answered, refused, or lost.
    Answer(prop::sample::Index, Fate),
    /// A broker sends what it has, as far as there is credit.
    Send(u32),
    /// The connection breaks, or comes back.
    Break,
    /// The program takes what there is.
    Take,
    /// The program answers for a message.
    Settle(prop::sample::Index, Word),
    /// The progress of a queue is reset.
    Reset(u32),
    Wait(u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Done,
    /// Carried out, and refused for want of knowing.
    Unknown,
    Busy,
    /// Carried out, but for the messages that failed: there is no room for them.
    Full,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    Ack,
    AckAndWait,
    Nack,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        5 => Just(Fate::Done),
        1 => Just(Fate::Unknown),
        1 => Just(Fate::Busy),
        1 => Just(Fate::Full),
    ];
    let word =
        prop_oneof![3 => Just(Word::Ack), 2 => Just(Word::AckAndWait), 1 => Just(Word::Nack)];
    prop_oneof![
        1 => any::<u8>().prop_map(Step::Assign),
        8 => (any::<prop::sample::Index>(), fate).prop_map(|(at, fate)| Step::Answer(at, fate)),
        6 => (0..QUEUES).prop_map(Step::Send),
        1 => Just(Step::Break),
        4 => Just(Step::Take),
        6 => (any::<prop::sample::Index>(), word).prop_map(|(at, word)| Step::Settle(at, word)),
        1 => (0..QUEUES).prop_map(Step::Reset),
        3 => (0..1_500_u64).prop_map(Step::Wait),
    ]
}
