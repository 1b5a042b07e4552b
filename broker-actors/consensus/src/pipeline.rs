//! The appends to one member, several under way at once.
//!
//! openraft hands over its requests as a stream and wants the answers as another one. A request is taken out
//! only when it can leave: openraft counts its lease from there. What may be sent, and what is told, is the
//! [`Window`]'s to say; here is what moves it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use openraft::async_runtime::{AsyncRuntime, Instant as _};
use openraft::base::BoxStream;
use openraft::errors::RPCError;
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};

use crate::peers::{AppendResult, Link, Types};
use crate::window::{Answer, Outline, Told, Window};

/// What openraft hears of its appends.
pub(crate) type Answers<'s, R, RT> = BoxStream<'s, Heard<R, RT>>;
type Heard<R, RT> = Result<StreamAppendResult<Types<R, RT>>, RPCError<Types<R, RT>>>;
/// The number of an append, what came of it, and after how long.
type Came<R, RT> = (u64, AppendResult<R, RT>, Duration);

/// One stream of appends.
pub(crate) struct Pipeline<'s, R: 'static, RT: AsyncRuntime, Requests> {
    link: &'s Link,
    /// How long each may take.
    limit: Duration,
    /// What openraft has to send; none once it has said that this was all.
    input: Option<Requests>,
    calls: FuturesUnordered<LocalBoxFuture<'static, Came<R, RT>>>,
    window: Window<RPCError<Types<R, RT>>>,
}

impl<'s, R: 'static, RT: AsyncRuntime, Requests> Pipeline<'s, R, RT, Requests> {
    pub(crate) fn new(link: &'s Link, input: Requests, option: &RPCOption) -> Self {
        let (window, limit) = (Window::new(link.bounds), link.stream_limit(option));
        Self { link, limit, input: Some(input), calls: FuturesUnordered::new(), window }
    }

    fn send(&mut self, rpc: AppendEntriesRequest<Types<R, RT>>) {
        let prev = rpc.prev_log_id;
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let (has_entries, last) = (last.is_some(), last.or(prev));
        let sent_at = RT::Instant::now();
        let (bytes, taken) = self.link.append::<R, RT>(rpc, self.limit);
        let number = self.window.sent(Outline { prev, last, has_entries, bytes });
        self.calls.push(Box::pin(async move { (number, taken.await, sent_at.elapsed()) }));
    }
}

impl<R: 'static, RT: AsyncRuntime, Requests> Stream for Pipeline<'_, R, RT, Requests>
where
    Requests: Stream<Item = AppendEntriesRequest<Types<R, RT>>> + Unpin,
{
    type Item = Heard<R, RT>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard<R, RT>>> {
        let this = self.get_mut();
        loop {
            // Answers first: what has come is told before anything is sent that would have to be waited for.
            while let Poll::Ready(Some((number, came, took))) = this.calls.poll_next_unpin(cx) {
                this.window.answered(number, to_answer(came), took);
            }
            if let Some(told) = this.window.told() {
                return Poll::Ready(to_heard(told));
            }
            if this.window.is_over() {
                return Poll::Ready(None);
            }
            let Some(input) = this.input.as_mut().filter(|_| this.window.has_room()) else {
                let is_done = this.input.is_none() && this.window.is_empty();
                return if is_done { Poll::Ready(None) } else { Poll::Pending };
            };
            match input.poll_next_unpin(cx) {
                Poll::Ready(Some(rpc)) => this.send(rpc),
                Poll::Ready(None) => this.input = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn to_answer<R: 'static, RT: AsyncRuntime>(
    came: AppendResult<R, RT>,
) -> Answer<RPCError<Types<R, RT>>> {
    match came {
        Ok(AppendEntriesResponse::Success) => Answer::Appended,
        Ok(AppendEntriesResponse::PartialSuccess(upto)) => Answer::Partly(upto),
        Ok(AppendEntriesResponse::Conflict) => Answer::Conflict,
        Ok(AppendEntriesResponse::HigherVote(vote)) => Answer::HigherVote(vote),
        Err(error) => Answer::Failed(error),
    }
}

/// The stream ends where the rest is to be sent again: openraft begins another one behind the last match.
fn to_heard<R: 'static, RT: AsyncRuntime>(
    told: Told<RPCError<Types<R, RT>>>,
) -> Option<Heard<R, RT>> {
    Some(match told {
        Told::Matches(upto) => Ok(Ok(upto)),
        Told::Conflict(at) => Ok(Err(StreamAppendError::Conflict(at))),
        Told::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote))),
        Told::Failed(error) => Err(error),
        Told::Again => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use bytes::Bytes;
    use futures_util::stream;
    use openraft::entry::RaftEntry as _;
    use openraft_rt_tokio::TokioRuntime;
    use tokio::sync::oneshot;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::peers::{PeerError, Peers};
    use crate::types::{LogId, NodeId, Payload, RaftEntry, RaftVote, log_id};
    use crate::window::{APPENDS_MAX, Bounds};
    use crate::wire::{Reply, Request, gather};

    type Rpc = AppendEntriesRequest<Types<(), TokioRuntime>>;

    /// A member that answers when it is told to, one append at a time: the index of the last entry of each, and
    /// the way back.
    #[derive(Clone, Default)]
    struct Script(Rc<RefCell<VecDeque<Append>>>);

    type Append = (u64, oneshot::Sender<Bytes>);

    impl Script {
        fn under_way(&self) -> Vec<u64> {
            self.0.borrow().iter().map(|(last, _)| *last).collect()
        }

        fn answer(&self, nth: usize, reply: &Reply) {
            let (_, back) = self.0.borrow_mut().remove(nth).unwrap();
            let _ = back.send(reply.encode());
        }
    }

    impl Peers for Script {
        fn call(
            &self,
            node: NodeId,
            _: &str,
            message: Vec<Bytes>,
        ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>> {
            let request = Request::decode(gather(&message)).unwrap();
            let Request::Append { prev, entries, .. } = request else { panic!("{request:?}") };
            let last = entries.last().map(|entry| entry.log_id).or(prev);
            let (back, answer) = oneshot::channel();
            self.0.borrow_mut().push_back((last.map_or(0, |id| id.index), back));
            Box::pin(async move {
                let lost = |_| PeerError { node, reason: "connection lost".to_owned() };
                answer.await.map_err(lost)
            })
        }
    }

    const SOFT: Duration = Duration::from_millis(112);
    const APPEND_LIMIT: Duration = Duration::from_millis(500);

    fn rpc(prev: u64, last: u64) -> Rpc {
        let id = |index| log_id(1, index);
        let entry = |index| RaftEntry::new(id(index), Payload::Blank);
        AppendEntriesRequest {
            vote: RaftVote::new(1, 1),
            prev_log_id: Some(id(prev)),
            entries: (prev + 1..=last).map(entry).collect(),
            leader_commit: None,
        }
    }

    /// Runs a stream of appends of one entry each, 10 to `last`, and one that has been answered already.
    fn with_stream<Test: AsyncFnOnce(&Script, &mut Answers<'_, (), TokioRuntime>)>(
        last: u64,
        test: Test,
    ) {
        with_requests((9..last).map(|index| rpc(index, index + 1)).collect(), test);
    }

    /// The same with these appends; the first is one of one entry, 10.
    fn with_requests<Test: AsyncFnOnce(&Script, &mut Answers<'_, (), TokioRuntime>)>(
        requests: Vec<Rpc>,
        test: Test,
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let script = Script::default();
            let bounds = Bounds {
                bytes_max: 4096,
                quick: APPEND_LIMIT / 4,
                tells_every_conflict: false,
                credits_unanswered: false,
            };
            let link = Link::to_one(Rc::new(script.clone()), APPEND_LIMIT, bounds);
            let requests = stream::iter(requests);
            let option = RPCOption::new(SOFT * 4 / 3);
            let mut answers: Answers<'_, (), TokioRuntime> =
                Box::pin(Pipeline::new(&link, requests, &option));
            quiet(&mut answers).await;
            assert_eq!(script.under_way(), [10], "the first one goes alone");
            script.answer(0, &Reply::Appended);
            matches(&mut answers, 10).await;
            test(&script, &mut answers).await;
        });
    }

    #[expect(clippy::unnecessary_wraps, reason = "as appends and answers have it")]
    fn id(index: u64) -> Option<LogId> {
        Some(log_id(1, index))
    }

    async fn matches(answers: &mut Answers<'_, (), TokioRuntime>, index: u64) {
        let heard = answers.next().await;
        assert!(matches!(&heard, Some(Ok(Ok(upto))) if *upto == id(index)), "{heard:?}");
    }

    /// Nothing is heard; whatever can be sent is.
    async fn quiet(answers: &mut Answers<'_, (), TokioRuntime>) {
        let heard = timeout(Duration::ZERO, answers.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    #[test]
    fn requests_go_ahead_of_answers_up_to_a_bound_and_answers_come_in_order() {
        with_stream(30, async |script, answers| {
            quiet(answers).await;
            assert_eq!(script.under_way(), [11, 12, 13, 14]);
            assert_eq!(script.under_way().len(), APPENDS_MAX);
            script.answer(2, &Reply::Appended);
            script.answer(1, &Reply::Appended);
            quiet(answers).await;
            assert_eq!(
                script.under_way(),
                [11, 14],
                "the window is full until the first is answered"
            );
            script.answer(0, &Reply::Appended);
            for index in 11..=13 {
                matches(answers, index).await;
            }
            quiet(answers).await;
            assert_eq!(script.under_way(), [14, 15, 16, 17]);
        });
    }

    #[test]
    fn one_that_is_lost_in_the_middle_ends_the_stream_behind_the_last_match() {
        with_stream(30, async |script, answers| {
            quiet(answers).await;
            script.answer(3, &Reply::Conflict);
            script.answer(2, &Reply::Conflict);
            drop(script.0.borrow_mut().remove(1));
            quiet(answers).await;
            assert_eq!(script.under_way(), [11], "nothing more is sent behind what is lost");
            script.answer(0, &Reply::Appended);
            matches(answers, 11).await;
            assert!(answers.next().await.is_none() && answers.next().await.is_none());
        });
    }

    #[test]
    fn an_answer_that_never_comes_ends_within_its_limit() {
        with_stream(30, async |script, answers| {
            let begun = Instant::now();
            quiet(answers).await;
            script.answer(1, &Reply::Appended);
            let heard = answers.next().await;
            assert!(matches!(heard, Some(Err(RPCError::Timeout(_)))), "{heard:?}");
            let slack = Duration::from_millis(2);
            assert!(begun.elapsed() >= APPEND_LIMIT && begun.elapsed() <= APPEND_LIMIT + slack);
            assert!(answers.next().await.is_none());
        });
    }

    /// It waits for the disk as what is behind it does: both would be sent again.
    #[test]
    fn one_without_entries_is_not_given_up_before_what_is_behind_it() {
        with_requests(vec![rpc(9, 10), rpc(10, 10), rpc(10, 11)], async |script, answers| {
            quiet(answers).await;
            assert_eq!(script.under_way(), [10, 11]);
            tokio::time::advance(SOFT * 2).await;
            quiet(answers).await;
            script.answer(0, &Reply::Appended);
            script.answer(0, &Reply::Appended);
            matches(answers, 10).await;
            matches(answers, 11).await;
        });
    }

    #[test]
    fn a_stream_ends_with_its_requests_once_all_are_answered() {
        with_stream(12, async |script, answers| {
            quiet(answers).await;
            assert_eq!(script.under_way(), [11, 12]);
            script.answer(0, &Reply::Appended);
            script.answer(0, &Reply::PartlyAppended(id(12)));
            matches(answers, 11).await;
            matches(answers, 12).await;
            assert!(answers.next().await.is_none());
        });
    }

    #[test]
    fn a_conflict_and_a_refusal_of_what_is_alone_are_told() {
        with_stream(11, async |script, answers| {
            quiet(answers).await;
            script.answer(0, &Reply::Conflict);
            let heard = answers.next().await;
            let conflict = matches!(heard, Some(Ok(Err(StreamAppendError::Conflict(at)))) if Some(at) == id(10));
            assert!(conflict, "{heard:?}");
            assert!(answers.next().await.is_none());
        });
        with_stream(11, async |script, answers| {
            quiet(answers).await;
            script.answer(0, &Reply::Refused);
            let heard = answers.next().await;
            assert!(matches!(heard, Some(Err(RPCError::Unreachable(_)))), "{heard:?}");
        });
    }
}
