//! Dead letters of a group in one queue, for whoever asks: listed, sent back, removed. Not an actor:
//! each question is a future at the edge, which reads the queue as any reader does and has the
//! queue propose what is to become of letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use grus_mailbox::reply::port;
use grus_protocol::batch::{Record, RecordBatch};
use grus_protocol::error::{ErrorCode, ErrorDetail, ErrorReply};
use grus_protocol::ids::{GroupId, Offset, QueueKey, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{DeadLetter, OffsetRange, RedriveDeadLettersReply};
use grus_protocol::names::TopicName;

use crate::commands::groups::{GroupItem, Letter, ProgressKey, Span};
use crate::error::QueueError;
use crate::topic_queue::letters::{facts_of, sent_back, squeezed};
use crate::topic_queue::{Fetch, Fetched, GroupAsk, QueueHandle};

/// Most letters sent back by one request.
pub const REDRIVEN_MAX: usize = 1_000;
/// Letters go back in items that end with the one that brings it to this many bytes.
const ITEM_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of batches read at a time.
const READ_BYTES_MAX: u32 = 1024 * 1024;

/// The dead letters of a group in one queue that this broker leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// The group.
    pub group: GroupId,
    /// The queue.
    pub queue: Arc<QueueHandle>,
}

/// What a look at letters has come to.
enum Walk {
    On,
    Enough,
}

/// A page of letters of one queue.
#[derive(Debug, Default)]
pub struct LettersPage {
    /// In order.
    pub letters: Vec<DeadLetter>,
    /// The messages of those that have a length.
    pub bodies: Vec<Bytes>,
    /// Bytes of the bodies.
    pub bytes: usize,
}

impl DeadLetters {
    fn place(&self) -> ProgressKey {
        ProgressKey { queue: self.queue.key, group: self.group }
    }

    /// Letters from `from` on that are there: not sent back, not removed.
    async fn there(&self, from: Offset) -> Result<Vec<Span>, ErrorReply> {
        let (reply, answer) = port();
        let ask = GroupAsk::Open { group: self.group, from, reply };
        let _ = self.queue.group.put(ask).await; // stopped: its port is dropped
        told(answer.await)
    }

    /// Has the queue propose an item about its letters; how many it concerned.
    async fn propose(&self, item: GroupItem) -> Result<u64, ErrorReply> {
        let (reply, answer) = port();
        let _ = self.queue.group.put(GroupAsk::Letters { item, reply }).await; // as above
        told(answer.await)
    }

    async fn fetch(&self, offset: Offset) -> Result<Fetched, ErrorReply> {
        let (reply, answer) = port();
        let last_term = Term::UNKNOWN;
        let fetch = Fetch { offset, last_term, bytes_max: READ_BYTES_MAX, wait_ms: 0, reply };
        let _ = self.queue.fetch.put(fetch).await; // as above
        told(answer.await)
    }

    /// Looks at the letters of some ranges, in order, as long as there is something to look for.
    async fn walk(
        &self,
        spans: &[Span],
        mut each: impl FnMut(Offset, TimestampMs, &Record) -> Walk,
    ) -> Result<(), ErrorReply> {
        for span in spans {
            let mut next = span.from;
            while next < span.to {
                let fetched = match self.fetch(next).await {
                    Ok(fetched) => fetched,
                    Err(error) => {
                        let Some(ErrorDetail::Range { from, to }) = error.detail else {
                            return Err(error);
                        };
                        let queue = self.queue.key;
                        tracing::error!(%queue, %from, %to, "damaged dead letters are passed by");
                        next = to.max(Offset(next.0 + 1));
                        continue;
                    }
                };
                let Some(last) = fetched.batches.last() else { return Ok(()) };
                let end = Offset(last.base_offset.0 + u64::from(last.count));
                for batch in fetched.batches {
                    let plain = RecordBatch::from_log(batch.bytes).ok();
                    let plain =
                        plain.and_then(|plain| plain.decompressed(&BatchLimits::FORMAT).ok());
                    let Some(plain) = plain else { continue };
                    for (record, at) in plain.records().zip(batch.base_offset.0..) {
                        let Ok(record) = record else { break };
                        let is_meant = (next.0..span.to.0).contains(&at);
                        if is_meant
                            && matches!(each(Offset(at), batch.stored, &record), Walk::Enough)
                        {
                            return Ok(());
                        }
                    }
                }
                next = end;
            }
        }
        Ok(())
    }

    /// Adds letters behind `after` to a page, until it has so many.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn list(
        &self,
        after: Option<Offset>,
        most: usize,
        body_bytes_max: Option<usize>,
        page: &mut LettersPage,
    ) -> Result<(), ErrorReply> {
        let from = after.map_or(Offset(0), |after| Offset(after.0.saturating_add(1)));
        let there = self.there(from).await?;
        let queue = self.queue.key.queue;
        self.walk(&there, |offset, stored, record| {
            let Some(facts) = facts_of(record) else { return Walk::On };
            let body = body_bytes_max.and_then(|bytes_max| {
                let body = alone(record)?;
                (page.bytes + body.len() <= bytes_max).then_some(body)
            });
            let length = body.as_ref().map_or(0, Bytes::len);
            page.bytes += length;
            page.bodies.extend(body);
            page.letters.push(DeadLetter {
                queue,
                offset,
                stored,
                origin_topic: facts.topic,
                origin_queue: facts.queue,
                origin_offset: facts.offset,
                reason: facts.reason,
                deliveries: facts.deliveries,
                length: u32::try_from(length).unwrap_or(0),
            });
            if page.letters.len() >= most { Walk::Enough } else { Walk::On }
        })
        .await
    }

    /// Sends letters back to where they came from, each once; `topic` knows the topics there are.
    ///
    /// # Errors
    /// The error reply to send; what has gone back by then has.
    pub async fn redrive(
        &self,
        asked: &[OffsetRange],
        most: usize,
        topic: impl Fn(&TopicName) -> Option<TopicId>,
    ) -> Result<RedriveDeadLettersReply, ErrorReply> {
        let there = meant(&self.there(Offset(0)).await?, asked);
        let (mut redriven, mut seen, mut next) = (0, 0, Offset(0));
        let mut homeless = None;
        loop {
            let mut by_queue: BTreeMap<QueueKey, Vec<Letter>> = BTreeMap::new();
            let (mut bytes, mut is_cut) = (0, false);
            let from = next;
            let left = meant(&there, &[OffsetRange { from, to: Offset(u64::MAX) }]);
            self.walk(&left, |offset, _, record| {
                if seen >= most || bytes >= ITEM_BYTES_MAX {
                    is_cut = true;
                    return Walk::Enough;
                }
                next = Offset(offset.0 + 1);
                seen += 1;
                let Some(facts) = facts_of(record) else { return Walk::On };
                let Some((id, batch)) = topic(&facts.topic).zip(sent_back(record)) else {
                    homeless = Some(format!("the topic {}", facts.topic));
                    return Walk::On;
                };
                bytes += batch.len();
                let to = QueueKey { topic: id, queue: facts.queue };
                by_queue.entry(to).or_default().push(Letter { offset, batch });
                Walk::On
            })
            .await?;
            for (to, letters) in by_queue {
                match self.send_back(to, letters, &mut redriven).await {
                    Ok(None) => {}
                    Ok(Some(offset)) => homeless = Some(format!("room for the one at {offset}")),
                    // Its topic was made anew, with that queue elsewhere or nowhere: those behind
                    // it go all the same.
                    Err(error) if error.code == ErrorCode::UnknownQueue => {
                        homeless = Some(format!("queue {to}"));
                    }
                    Err(error) => return Err(error),
                }
            }
            if !is_cut || seen >= most {
                if let Some(place) = homeless.filter(|_| redriven == 0 && !is_cut) {
                    let text = format!("{place}, where dead letters came from, is gone");
                    return Err(ErrorReply::new(ErrorCode::UnknownTopic, text));
                }
                return Ok(RedriveDeadLettersReply { redriven, next: is_cut.then_some(next) });
            }
        }
    }

    /// Sends letters back to a queue, each by itself where all are too large for an item; one that is
    /// too large alone stays.
    async fn send_back(
        &self,
        to: QueueKey,
        letters: Vec<Letter>,
        redriven: &mut u64,
    ) -> Result<Option<Offset>, ErrorReply> {
        let item = |letters| GroupItem::Redrive { place: self.place(), to, letters };
        let all = self.propose(item(letters.clone())).await;
        if !all.as_ref().is_err_and(|error| error.code == ErrorCode::BatchTooLarge) {
            *redriven += all?;
            return Ok(None);
        }
        let mut too_large = None;
        for Letter { offset, batch } in letters {
            let batch = squeezed(&batch).unwrap_or(batch);
            match self.propose(item(vec![Letter { offset, batch }])).await {
                Ok(sent) => *redriven += sent,
                Err(error) if error.code == ErrorCode::BatchTooLarge => too_large = Some(offset),
                Err(error) => return Err(error),
            }
        }
        Ok(too_large)
    }

    /// Removes letters; how many.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn purge(&self, asked: &[OffsetRange]) -> Result<u64, ErrorReply> {
        let all = [OffsetRange { from: Offset(0), to: Offset(u64::MAX) }];
        let asked = if asked.is_empty() { &all } else { asked };
        let spans = asked.iter().map(|range| Span { from: range.from, to: range.to }).collect();
        self.propose(GroupItem::Purge { place: self.place(), spans }).await
    }
}

/// A letter as a batch of one.
fn alone(record: &Record) -> Option<Bytes> {
    use grus_protocol::batch::{BatchBuilder, NewRecord};
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    builder.push(&NewRecord::of(record)).ok()?;
    Some(builder.finish())
}

/// What of `there` was asked for; nothing asked: all.
fn meant(there: &[Span], asked: &[OffsetRange]) -> Vec<Span> {
    if asked.is_empty() {
        return there.to_vec();
    }
    let mut asked: Vec<OffsetRange> =
        asked.iter().filter(|range| !range.is_empty()).copied().collect();
    asked.sort_unstable();
    let mut both: Vec<Span> = Vec::new();
    for span in there {
        let mut next = span.from;
        for range in &asked {
            let (from, to) = (range.from.max(next), range.to.min(span.to));
            if from < to {
                both.push(Span { from, to });
                next = to;
            }
        }
    }
    both
}

fn told<T, E>(answer: Result<Result<T, QueueError>, E>) -> Result<T, ErrorReply> {
    answer.unwrap_or(Err(QueueError::Unavailable)).map_err(|error| error.to_reply())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_there_and_asked_for_once() {
        let span = |from, to| Span { from: Offset(from), to: Offset(to) };
        let range = |from, to| OffsetRange { from: Offset(from), to: Offset(to) };
        let there = [span(2, 5), span(7, 9)];
        assert_eq!(meant(&there, &[]), there);
        let asked = [range(4, 8), range(0, 3), range(9, 4), range(4, 6)];
        assert_eq!(meant(&there, &asked), [span(2, 3), span(4, 5), span(7, 8)]);
        assert_eq!(meant(&there, &[range(5, 7)]), []);
    }
}
