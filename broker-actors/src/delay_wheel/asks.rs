//! Recall, and answers about what is scheduled.

use bytes::Bytes;
use grus_log::Disk;
use grus_mailbox::{Credit, Port, Tick};
use grus_protocol::ids::{QueueKey, TimestampMs};

use super::listing::{Listing, Wanted};
use super::messages::{
    DelayAsk, DelayFilter, DelayStatus, ItemDone, PAGE_MAX, RECALL_MAX, Recalled, Scheduled,
    ScheduledPage,
};
use super::round::{has_key, messages_of};
use super::{DelayWheel, Work};
use crate::commands::Command;
use crate::error::QueueError;
use crate::machine::timers::DueTimer;
use crate::timers::TimerId;
use crate::timers::run::Timer;

/// Bytes of the batches that are read for a page, but for a single larger one.
const PAGE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Messages to take back.
pub(super) struct RecallJob {
    results: Vec<Recalled>,
    left: usize,
    error: Option<QueueError>,
    reply: Port<Result<Vec<Recalled>, QueueError>>,
    _credit: Credit,
}

impl RecallJob {
    /// Notes what became of an item; true when that was the last.
    pub(super) fn item_done(&mut self, done: &ItemDone) -> bool {
        self.left -= 1;
        match &done.result {
            Ok(true) => self.results[done.number] = Recalled::Recalled,
            Ok(false) => {}
            Err(error) => self.error = Some(error.clone()),
        }
        self.left == 0
    }
}

/// What somebody waits for.
pub(super) enum Job {
    /// A look at all timers.
    Look { listing: Box<Listing>, answer: JobAnswer, credit: Credit },
    /// One of them.
    Show {
        queue: QueueKey,
        timer: TimerId,
        reply: Port<Result<Option<Scheduled>, QueueError>>,
        credit: Credit,
    },
}

pub(super) enum JobAnswer {
    Page { with_bodies: bool, key: Option<Bytes>, reply: Port<Result<ScheduledPage, QueueError>> },
    Count(Port<Result<u64, QueueError>>),
    Status(Port<DelayStatus>),
}

/// A page whose messages are read.
pub(super) struct PageRead {
    pub(super) timers: Vec<Timer>,
    key: Option<Bytes>,
    next: Option<DueTimer>,
    reply: PageReply,
    _credit: Credit,
}

enum PageReply {
    Page(Port<Result<ScheduledPage, QueueError>>),
    Show(Port<Result<Option<Scheduled>, QueueError>>),
}

impl<D: Disk> DelayWheel<D> {
    /// Takes a question; true when it is one that a turn answers.
    pub(super) fn ask(&mut self, ask: DelayAsk, credit: Credit, now: TimestampMs) -> bool {
        let refusal = self.refusal();
        let (listing, answer) = match ask {
            DelayAsk::Recall { queue, timers, reply } => {
                match refusal {
                    Some(error) => reply.send(Err(error)),
                    None => self.recall(queue, &timers, reply, credit),
                }
                return false;
            }
            DelayAsk::Show { queue, timer, reply } => {
                if let Some(error) = refusal {
                    reply.send(Err(error));
                    return false;
                }
                self.jobs.push_back(Job::Show { queue, timer, reply, credit });
                return true;
            }
            DelayAsk::List { filter, after, messages_max, with_bodies, reply } => {
                if let Some(error) = refusal {
                    reply.send(Err(error));
                    return false;
                }
                let key = filter.key.clone();
                let messages_max = messages_max.clamp(1, PAGE_MAX) as usize;
                let listing = Listing::new(filter, Wanted::Page { after, messages_max });
                (listing, JobAnswer::Page { with_bodies, key, reply })
            }
            DelayAsk::Count { filter, reply } => {
                if let Some(error) = refusal {
                    reply.send(Err(error));
                    return false;
                }
                (Listing::new(filter, Wanted::Count), JobAnswer::Count(reply))
            }
            DelayAsk::Status { reply } => {
                let wanted = Wanted::Histogram { now };
                (Listing::new(DelayFilter::default(), wanted), JobAnswer::Status(reply))
            }
            DelayAsk::Panic => panic!("a test asked for this panic"),
        };
        let listing = Box::new(listing);
        self.jobs.push_back(Job::Look { listing, answer, credit });
        true
    }

    /// Why nothing is answered here, if so.
    fn refusal(&self) -> Option<QueueError> {
        let status = self.parts.group.status();
        if !status.ready {
            return Some(match status.leader {
                Some(leader) if !status.is_leader => QueueError::NotLeader { leader: Some(leader) },
                _ => QueueError::Unavailable,
            });
        }
        (!self.parts.ground.complete.get()).then_some(QueueError::Unavailable)
    }

    fn recall(
        &mut self,
        queue: QueueKey,
        timers: &[TimerId],
        reply: Port<Result<Vec<Recalled>, QueueError>>,
        credit: Credit,
    ) {
        let limit = RECALL_MAX as usize;
        if timers.len() > limit {
            return reply.send(Err(QueueError::Limit { what: "timers of one recall", limit }));
        }
        if self.parts.ground.machine.borrow().state.queue(queue).is_none() {
            return reply.send(Err(QueueError::UnknownQueue));
        }
        if timers.is_empty() {
            return reply.send(Ok(Vec::new()));
        }
        let ticket = self.ticket();
        let (results, left) = (vec![Recalled::TooLate; timers.len()], timers.len());
        let job = RecallJob { results, left, error: None, reply, _credit: credit };
        self.works.insert(ticket, Work::Recall(job));
        for (number, timer) in timers.iter().enumerate() {
            self.propose(&Command::Recall { queue, timer: *timer }, ticket, number);
        }
    }

    fn show(
        &mut self,
        queue: QueueKey,
        timer: TimerId,
        reply: Port<Result<Option<Scheduled>, QueueError>>,
        credit: Credit,
    ) {
        let found = self.parts.ground.machine.borrow().state.timers().get(timer);
        let Some(timer) = found.filter(|timer| timer.queue == queue) else {
            return reply.send(Ok(None));
        };
        let timers = vec![timer];
        let reply = PageReply::Show(reply);
        let page = PageRead { timers, key: None, next: None, reply, _credit: credit };
        self.start(Work::Page(page), &[timer]);
    }

    /// Goes on with the first question; true when there is more to do.
    pub(super) fn list_on(&mut self) -> bool {
        if let Some(Job::Look { listing, .. }) = self.jobs.front_mut()
            && !listing.step(self.parts.ground.machine.borrow().state.timers())
        {
            return true;
        }
        match self.jobs.pop_front() {
            Some(Job::Look { listing, answer, credit }) => self.answer(*listing, answer, credit),
            Some(Job::Show { queue, timer, reply, credit }) => {
                self.show(queue, timer, reply, credit);
            }
            None => {}
        }
        !self.jobs.is_empty()
    }

    fn answer(&mut self, listing: Listing, answer: JobAnswer, credit: Credit) {
        match answer {
            JobAnswer::Count(reply) => reply.send(Ok(listing.count())),
            JobAnswer::Status(reply) => {
                let machine = self.parts.ground.machine.borrow();
                let timers = machine.state.timers();
                let (due_histogram, oldest_due) = listing.histogram();
                let (pending, by_topic) = (timers.pending() as u64, timers.by_topic().collect());
                reply.send(DelayStatus { pending, oldest_due, by_topic, due_histogram });
            }
            JobAnswer::Page { with_bodies, key, reply } => {
                let (page, is_full) = listing.into_page();
                let next = page.last().copied().filter(|_| is_full);
                let machine = self.parts.ground.machine.borrow();
                let timers = machine.state.timers();
                let timers: Vec<Timer> =
                    page.iter().filter_map(|(_, timer)| timers.get(*timer)).collect();
                drop(machine);
                if with_bodies || key.is_some() {
                    let (timers, next) = readable(timers, next);
                    let read = timers.clone();
                    let reply = PageReply::Page(reply);
                    let page = PageRead { timers, key, next, reply, _credit: credit };
                    return self.start(Work::Page(page), &read);
                }
                let messages = timers.iter().map(|timer| scheduled(timer, None)).collect();
                reply.send(Ok(ScheduledPage { messages, next }));
            }
        }
    }

    /// The messages of a page are in memory.
    pub(super) fn answer_page(&mut self, ticket: u64) {
        let Some(Work::Page(page)) = self.works.remove(&ticket) else { return };
        let PageRead { timers, key, next, reply, .. } = page;
        let bodies = messages_of(&timers, |timer| self.batch_of(timer));
        let messages = timers.iter().zip(bodies).map(|(timer, bytes)| scheduled(timer, bytes));
        let has_key = |message: &Scheduled| match (&key, &message.bytes) {
            (None, _) => true,
            (Some(key), Some(bytes)) => has_key(bytes, key),
            (Some(_), None) => false,
        };
        let mut messages: Vec<Scheduled> = messages.filter(has_key).collect();
        match reply {
            PageReply::Page(reply) => reply.send(Ok(ScheduledPage { messages, next })),
            PageReply::Show(reply) => reply.send(Ok(messages.pop())),
        }
    }

    /// All items of some work are done.
    pub(super) fn finish(&mut self, ticket: u64, tick: Tick) {
        match self.works.remove(&ticket) {
            Some(Work::Round(round)) => self.finish_round(&round, tick),
            Some(Work::Roll(roll)) => self.finish_roll(&roll),
            Some(Work::Recall(recall)) => {
                let RecallJob { results, error, reply, .. } = recall;
                let won = results.iter().filter(|result| **result == Recalled::Recalled);
                self.parts.metrics.recalled(won.count() as u64);
                reply.send(error.map_or(Ok(results), Err));
            }
            Some(Work::Page(_)) | None => {}
        }
    }
}

/// As many of a page's messages as are read at once, and where the next page begins.
fn readable(mut timers: Vec<Timer>, next: Option<DueTimer>) -> (Vec<Timer>, Option<DueTimer>) {
    let (mut bytes, mut last_batch) = (0, None);
    let fits = timers.iter().take_while(|timer| {
        if last_batch.replace(timer.batch) != Some(timer.batch) {
            bytes += u64::from(timer.length);
        }
        bytes <= PAGE_BYTES_MAX
    });
    let count = fits.count().max(1);
    if count >= timers.len() {
        return (timers, next);
    }
    timers.truncate(count);
    let next = timers.last().map(|timer| (timer.due, timer.id));
    (timers, next)
}

fn scheduled(timer: &Timer, bytes: Option<Bytes>) -> Scheduled {
    Scheduled { queue: timer.queue, timer: timer.id, due: timer.due, bytes }
}
