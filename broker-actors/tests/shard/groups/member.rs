//! A member of a group as its queue sees it: it claims, subscribes, hears what it is pushed, answers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use grus_broker::commands::groups::{Holding, ProgressKey, RetryTerms, Span};
use grus_broker::error::QueueError;
use grus_broker::machine::groups::Settled;
use grus_broker::topic_queue::sifting::Marks;
use grus_broker::topic_queue::{
    Account, Answered, AnswersTaken, At, ClaimTaken, Failed, Fetched, FetchedBatch, GivenUp,
    GroupAsk, ProgressStatus, PushTurn, QueueHandle, Subscriber, SubscriptionKey,
};
use grus_mailbox::Port;
use grus_mailbox::reply::{Answer, port};
use grus_protocol::batch::RecordBatch;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{Generation, GroupId, MemberId, Offset, SubscriptionId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::MessageFilter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(super) const GROUP: GroupId = GroupId(9);
pub(super) const WINDOW: u32 = 1 << 20;

/// What a member is sent.
#[derive(Debug)]
pub(super) enum Push {
    Batches(Fetched, Marks),
    End(ErrorReply),
    Gone,
}

/// A connection that always has room. Once `is_late` says so, the time to live of all is over.
struct Wire {
    to: UnboundedSender<Push>,
    is_late: Arc<AtomicBool>,
}

impl Subscriber for Wire {
    fn ask_turn(&self, turn: Port<PushTurn>) {
        turn.send(PushTurn::new(|| ()));
    }

    fn readable(
        &self,
        mut fetched: Fetched,
        in_hands: &dyn Fn(&FetchedBatch) -> bool,
    ) -> Result<Fetched, ErrorReply> {
        let is_late = self.is_late.load(Relaxed);
        for batch in fetched.batches.iter_mut().filter(|batch| is_late && !in_hands(batch)) {
            batch.bytes = Bytes::new();
        }
        Ok(fetched)
    }

    fn deliver(&self, _fetched: Fetched, _turn: PushTurn) {
        panic!("a member is sent by deliver_group");
    }

    fn deliver_group(&self, fetched: Fetched, marks: Marks, _turn: PushTurn) {
        let _ = self.to.send(Push::Batches(fetched, marks));
    }

    fn end(self: Box<Self>, error: ErrorReply) {
        let _ = self.to.send(Push::End(error));
    }

    fn dismiss(self: Box<Self>) {
        let _ = self.to.send(Push::Gone);
    }

    fn is_gone(&self) -> bool {
        self.to.is_closed()
    }
}

/// A delivered message: its offset, how often it was delivered before, its body.
pub(super) type Message = (u64, u32, Bytes);

pub(super) fn messages(fetched: &Fetched, marks: &Marks) -> Vec<Message> {
    let holds = |span: &Span, at: u64| (span.from.0..span.to.0).contains(&at);
    let mut all = Vec::new();
    for batch in &fetched.batches {
        let records = RecordBatch::check(batch.bytes.clone(), &BatchLimits::FORMAT).unwrap();
        for (record, at) in records.records().zip(batch.base_offset.0..) {
            if marks.skipped.iter().any(|span| holds(span, at)) {
                continue;
            }
            let before = marks.again.iter().find(|again| holds(&again.span, at));
            all.push((at, before.map_or(0, |b| b.deliveries), record.unwrap().body_bytes()));
        }
    }
    all
}

pub(crate) struct Member {
    pub(super) queue: Arc<QueueHandle>,
    pub(super) holding: Holding,
    pub(super) terms: RetryTerms,
    pub(super) pushes: Option<UnboundedReceiver<Push>>,
    /// Says that the time to live of all is over.
    pub(super) is_late: Arc<AtomicBool>,
}

impl Member {
    pub(crate) fn new(queue: &Arc<QueueHandle>, generation: u64, member: u64) -> Self {
        let holding = Holding {
            place: ProgressKey { queue: queue.key, group: GROUP },
            generation: Generation(generation),
            member: MemberId(member),
            round: 0,
        };
        let terms = RetryTerms { deliveries_max: 3, ladder_ms: vec![5, 10] };
        let is_late = Arc::default();
        Self { queue: Arc::clone(queue), holding, terms, pushes: None, is_late }
    }

    pub(super) async fn ask<T>(
        &self,
        ask: impl FnOnce(Port<Result<T, QueueError>>) -> GroupAsk,
    ) -> Result<T, QueueError> {
        let (reply, answer) = port();
        self.queue.group.put(ask(reply)).await.unwrap();
        answer.await.unwrap()
    }

    pub(crate) async fn claim(&mut self) -> Result<ClaimTaken, QueueError> {
        self.claim_at(At::First).await
    }

    /// Claims; its group begins there if this is the first claim.
    pub(super) async fn claim_at(&mut self, start: At) -> Result<ClaimTaken, QueueError> {
        let (holding, terms) = (self.holding, self.terms.clone());
        let taken = self.ask(|reply| GroupAsk::Claim { holding, start, terms, reply }).await?;
        self.holding.round = taken.claimed.round;
        Ok(taken)
    }

    /// Over another connection each time.
    pub(super) async fn subscribe(&mut self, filter: MessageFilter) -> Result<u64, QueueError> {
        self.subscribe_for(filter, WINDOW).await
    }

    /// The same with credit for so many messages.
    pub(super) async fn subscribe_for(
        &mut self,
        filter: MessageFilter,
        messages: u32,
    ) -> Result<u64, QueueError> {
        let (sender, pushes) = unbounded_channel();
        let connection = self.holding.member.0 << 8 | self.holding.generation.0;
        let key = SubscriptionKey { connection, id: SubscriptionId(1) };
        let (holding, account) = (self.holding, Account::new(messages, WINDOW));
        let subscriber = Box::new(Wire { to: sender, is_late: Arc::clone(&self.is_late) });
        let listed = self
            .ask(|reply| GroupAsk::Subscribe { key, holding, filter, account, subscriber, reply })
            .await?;
        self.pushes = Some(pushes);
        Ok(listed.offset.0)
    }

    /// Claims and subscribes.
    pub(super) async fn begin(&mut self) -> u64 {
        self.claim().await.unwrap();
        self.subscribe(MessageFilter::All).await.unwrap()
    }

    pub(super) async fn push(&mut self) -> Push {
        self.pushes.as_mut().unwrap().recv().await.unwrap()
    }

    /// The next messages, until there are so many.
    pub(super) async fn next(&mut self, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.push().await {
                Push::Batches(fetched, marks) => {
                    let some = messages(&fetched, &marks);
                    assert!(!some.is_empty(), "a push holds something for its member");
                    all.extend(some);
                }
                other => panic!("{other:?}"),
            }
        }
        all
    }

    pub(super) async fn end(&mut self) -> ErrorCode {
        loop {
            match self.push().await {
                Push::End(error) => return error.code,
                Push::Batches(..) => {}
                Push::Gone => panic!("not ended by itself"),
            }
        }
    }

    pub(crate) async fn answer(
        &self,
        acks: &[(u64, u64)],
        failed: &[u64],
        dead: &[u64],
    ) -> Result<Settled, QueueError> {
        self.answer_in_full(acks, failed, dead).await.map(|taken| taken.settled)
    }

    /// With what found no room.
    pub(super) async fn answer_in_full(
        &self,
        acks: &[(u64, u64)],
        failed: &[u64],
        dead: &[u64],
    ) -> Result<AnswersTaken, QueueError> {
        let span = |(from, to): &(u64, u64)| Span { from: Offset(*from), to: Offset(*to) };
        let failed = failed.iter().map(|offset| Failed {
            offset: Offset(*offset),
            retry_after_ms: None,
            reason: "no luck".into(),
        });
        let given_up =
            dead.iter().map(|offset| GivenUp { offset: Offset(*offset), reason: "bad".into() });
        let answered = Answered {
            holding: self.holding,
            acks: acks.iter().map(span).collect(),
            failed: failed.collect(),
            given_up: given_up.collect(),
            hands_back: None,
        };
        self.ask(|reply| GroupAsk::Settle { answered, reply }).await
    }

    /// Says that a message failed, to be delivered again after so long; the answer comes later.
    pub(super) fn answering(
        &self,
        failed: u64,
        retry_after_ms: u64,
    ) -> Answer<Result<AnswersTaken, QueueError>> {
        let failed = Failed {
            offset: Offset(failed),
            retry_after_ms: Some(retry_after_ms),
            reason: "no luck".into(),
        };
        let answered = Answered {
            holding: self.holding,
            acks: Vec::new(),
            failed: vec![failed],
            given_up: Vec::new(),
            hands_back: None,
        };
        let (reply, answer) = port();
        self.queue.group.try_put(GroupAsk::Settle { answered, reply }).unwrap();
        answer
    }

    pub(crate) async fn status(&self) -> ProgressStatus {
        self.ask(|reply| GroupAsk::Status { group: GROUP, reply }).await.unwrap().unwrap()
    }
}

pub(super) fn offsets(messages: &[Message]) -> Vec<(u64, u32)> {
    messages.iter().map(|(at, before, _)| (*at, *before)).collect()
}
