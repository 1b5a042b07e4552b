//! Whether each batch that was acknowledged was read once, and nothing else.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grus_cli::bench::body;
use grus_client::{DeliveredBatch, Offset, QueueId, Reader};

use crate::senders::{BATCH, Shared};

/// How long nothing may come, when nobody sends any more, before what has not come is lost.
const SILENCE: Duration = Duration::from_secs(10);

/// Bits of a sequence that count messages of one lane.
const COUNT_BITS: u32 = 40;
/// Bits of a sequence that name a lane of a round.
const LANE_BITS: u32 = 12;

/// A batch by who sent it: its place in the sequence of one connection of one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    lane: u64,
    number: u64,
}

impl Batch {
    pub(crate) fn new(round: u64, lane: usize, number: u64) -> Self {
        Self { lane: (round << LANE_BITS) | lane as u64, number }
    }

    /// The sequence of its first message.
    pub(crate) fn first_sequence(self) -> u64 {
        (self.lane << COUNT_BITS) | (self.number * BATCH as u64)
    }

    fn of(first_sequence: u64) -> Option<Self> {
        let count = first_sequence & ((1 << COUNT_BITS) - 1);
        let number = count / BATCH as u64;
        let lane = first_sequence >> COUNT_BITS;
        count.is_multiple_of(BATCH as u64).then_some(Self { lane, number })
    }
}

/// What is known of one batch.
const ACKED: u8 = 1;
const READ: u8 = 2;

/// What was acknowledged and what was read.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// By lane and number.
    lanes: HashMap<u64, Vec<u8>>,
    next: HashMap<QueueId, Offset>,
    acked: u64,
    read: u64,
    acked_and_read: u64,
    faults: Vec<String>,
    faults_count: u64,
}

impl Judge {
    fn of(&mut self, batch: Batch) -> &mut u8 {
        let lane = self.lanes.entry(batch.lane).or_default();
        let place = usize::try_from(batch.number).expect("64 bits");
        if lane.len() <= place {
            lane.resize(place + 1, 0);
        }
        &mut lane[place]
    }

    /// A batch was acknowledged.
    fn acked(&mut self, batch: Batch) {
        let known = self.of(batch);
        *known |= ACKED;
        let is_read = *known & READ != 0;
        self.acked += 1;
        self.acked_and_read += u64::from(is_read);
    }

    /// A batch was read; answers its messages.
    fn read(&mut self, batch: &DeliveredBatch) -> u64 {
        let (mut first, mut count) = (None, 0);
        let due = self.next.get(&batch.queue).copied();
        let mut end = Offset(0);
        for (offset, record) in batch.views() {
            let sequence = body::check(record.body());
            let from = *first.get_or_insert((offset, sequence));
            if sequence.is_none() || sequence != from.1.map(|first| first + count) {
                self.fault(format!("queue {} offset {offset}: {sequence:?}", batch.queue));
            }
            count += 1;
            end = Offset(offset.0 + 1);
        }
        let (base, sequence) = first.unwrap_or((end, None));
        if due.is_some_and(|due| due != base) {
            self.fault(format!("queue {} offset {base} where {due:?} is due", batch.queue));
        }
        self.next.insert(batch.queue, end);
        match sequence.and_then(Batch::of) {
            Some(one) if count == BATCH as u64 => {
                let known = self.of(one);
                let (is_double, is_acked) = (*known & READ != 0, *known & ACKED != 0);
                *known |= READ;
                self.read += 1;
                self.acked_and_read += u64::from(is_acked && !is_double);
                if is_double {
                    self.fault(format!("{one:?} is there twice"));
                }
            }
            _ => self.fault(format!("queue {} offset {base}: {count} messages", batch.queue)),
        }
        count
    }

    fn fault(&mut self, text: String) {
        self.faults_count += 1;
        if self.faults.len() < 20 {
            self.faults.push(text);
        }
    }

    /// Acknowledged batches that were not read yet.
    fn awaited(&self) -> u64 {
        self.acked - self.acked_and_read
    }

    /// What is to be said of it.
    pub(crate) fn verdict(&self) -> String {
        let (lost, unsaid) = (self.awaited(), self.read.saturating_sub(self.acked));
        let holds = lost == 0 && self.faults_count == 0;
        format!(
            "{} batches of {BATCH} acknowledged, {} read, {unsaid} of them without a receipt, {lost} lost, {} faults {:?}\n\
             bound: nothing is lost, doubled or out of order: {}",
            self.acked,
            self.read,
            self.faults_count,
            self.faults,
            if holds { "holds" } else { "DOES NOT HOLD" },
        )
    }
}

/// Reads all there is until nobody sends any more and all that was acknowledged is here.
pub(crate) async fn follow(reader: &mut Reader, shared: &Shared, judge: &mut Judge) {
    loop {
        let is_sent = shared.is_sent();
        for batch in shared.acked() {
            judge.acked(batch);
        }
        if is_sent && judge.awaited() == 0 {
            return;
        }
        match tokio::time::timeout(SILENCE, reader.next_stored_batch()).await {
            Ok(batch) => {
                let batch = batch.expect("what is there is read before retention removes it");
                shared.read.fetch_add(judge.read(&batch), Relaxed);
            }
            Err(_) if is_sent => return,
            Err(_) => {}
        }
    }
}
