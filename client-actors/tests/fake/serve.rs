//! What the fake broker does about each request.

use std::sync::Arc;
use std::time::Duration;

use grus_client::protocol::error::ErrorDetail;
use grus_client::protocol::ids::BrokerAddress;
use grus_client::protocol::message::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, DeleteTopic, DeleteTopicReply,
    DescribeTopic, DescribeTopicReply, Fetch, FetchReply, FetchedBatch, InitProducerReply, ListAt,
    ListOffsets, ListOffsetsReply, ListTopics, ListTopicsReply, Metadata, MetadataReply,
    OffsetRange, PingReply, Produce, ProduceReply, QueueDescription, QueueRoute,
    RedriveDeadLetters, RedriveDeadLettersReply, TopicMetadata, TopicSettings, TopicSummary,
};
use grus_client::protocol::{
    BatchLimits, BrokerId, ErrorCode, ErrorReply, Frame, Offset, Opcode, ProducerEpoch, ProducerId,
    QueueId, RecordBatch, ShardId, Term, TimestampMs, TopicId, TopicName,
};
use serde::Serialize;

use super::connection::Replies;
use super::{Kept, Queue, Shared, State, Topic};

fn error(code: ErrorCode) -> ErrorReply {
    ErrorReply::new(code, code.name().to_lowercase())
}

fn send<H: Serialize>(replies: &Replies, request: &Frame, result: Result<H, ErrorReply>) {
    match result {
        Ok(header) => replies.send(&request.head, &header, &[]),
        Err(refusal) => replies.refuse(&request.head, &refusal),
    }
}

/// Answers all but Hello and Fetch; false when the connection is to be cut.
pub fn answer(request: &Frame, shared: &Arc<Shared>, replies: &Replies) -> bool {
    let state = &mut *shared.lock();
    match request.head.opcode {
        Opcode::Ping => send(replies, request, Ok(PingReply { time: state.now })),
        Opcode::Metadata => {
            send(replies, request, Ok(metadata(state, &request.header().unwrap())));
        }
        Opcode::InitProducer => {
            state.next_producer += 1;
            let producer_id = ProducerId(state.next_producer);
            let producer_epoch = ProducerEpoch(0);
            let reply = InitProducerReply { producer_id, producer_epoch, epochs: 0 };
            send(replies, request, Ok(reply));
        }
        Opcode::Produce => produce(state, request, replies),
        Opcode::ListOffsets => {
            send(replies, request, list_offsets(state, &request.header().unwrap()));
        }
        Opcode::RedriveDeadLetters => {
            send(replies, request, redrive(state, &request.header().unwrap()));
        }
        Opcode::DescribeTopic => {
            send(replies, request, describe(state, &request.header().unwrap()));
        }
        Opcode::ListTopics => send(replies, request, Ok(list(state, &request.header().unwrap()))),
        Opcode::CreateTopic => return change(replies, request, state, create),
        Opcode::AlterTopic => return change(replies, request, state, alter),
        Opcode::DeleteTopic => return change(replies, request, state, delete),
        Opcode::Hello | Opcode::Fetch => unreachable!("answered elsewhere"),
        other => {
            let text = format!("{other} is not served here");
            replies.refuse(&request.head, &ErrorReply::new(ErrorCode::UnsupportedFeature, text));
        }
    }
    state.push_groups();
    shared.changed.notify_waiters();
    true
}

fn change<R: serde::de::DeserializeOwned, H: Serialize>(
    replies: &Replies,
    request: &Frame,
    state: &mut State,
    work: impl FnOnce(&mut State, &R) -> Result<H, ErrorReply>,
) -> bool {
    let result = work(state, &request.header().unwrap());
    if std::mem::take(&mut state.faults.cut_before_topic_reply) {
        return false;
    }
    send(replies, request, result);
    true
}

fn topic<'a>(
    state: &'a mut State,
    name: &TopicName,
    id: TopicId,
) -> Result<&'a mut Topic, ErrorReply> {
    let found = state.topics.get_mut(name.as_str());
    let found = found.ok_or_else(|| error(ErrorCode::UnknownTopic))?;
    if id != TopicId::UNKNOWN && id != found.id {
        return Err(error(ErrorCode::StaleTopic));
    }
    Ok(found)
}

fn queue<'a>(
    state: &'a mut State,
    name: &TopicName,
    id: TopicId,
    queue: QueueId,
) -> Result<&'a mut Queue, ErrorReply> {
    let queues = &mut topic(state, name, id)?.queues;
    queues.get_mut(queue.0 as usize).ok_or_else(|| error(ErrorCode::UnknownQueue))
}

fn metadata(state: &mut State, asked: &Metadata) -> MetadataReply {
    let mut topics = Vec::new();
    for name in &asked.topics {
        let missing = !state.topics.contains_key(name.as_str());
        if missing && asked.auto_create && !state.faults.no_auto_create {
            state.make_topic(name.as_str(), TopicSettings::default());
        }
        topics.push(match state.topics.get(name.as_str()) {
            None => TopicMetadata::failed(name.clone(), error(ErrorCode::UnknownTopic)),
            Some(found) => TopicMetadata {
                name: name.clone(),
                error: None,
                id: found.id,
                durability: found.settings.durability,
                kind: found.settings.kind,
                queues: (0..found.settings.queues)
                    .map(|queue| QueueRoute {
                        queue: QueueId(queue),
                        shard: ShardId(0),
                        leader_broker: Some(BrokerId(7)),
                    })
                    .collect(),
            },
        });
    }
    // An address nobody can reach: the client must use the way it came by.
    let address = BrokerAddress { id: BrokerId(7), host: "host.invalid".into(), port: 1 };
    MetadataReply { brokers: vec![address], topics, version: 1 }
}

fn produce(state: &mut State, request: &Frame, replies: &Replies) {
    state.produce_requests += 1;
    if state.faults.ignores_produce {
        return;
    }
    let fault = state.faults.produce.pop_front().flatten();
    let result = match fault {
        Some((code, false)) => Err(error(code)),
        Some((code, true)) => store(state, request).and(Err(error(code))),
        None => store(state, request),
    };
    send(replies, request, result);
}

fn store(state: &mut State, request: &Frame) -> Result<ProduceReply, ErrorReply> {
    let asked: Produce = request.header().unwrap();
    let compressions = state.faults.compressions.unwrap_or(u32::MAX);
    let limits = BatchLimits { compressions, ..BatchLimits::PRODUCE };
    let batch =
        RecordBatch::check(request.body.clone(), &limits).map_err(|error| error.to_reply())?;
    state.now.0 += 1;
    let (now, term) = (state.now, state.term);
    let durability = topic(state, &asked.topic, asked.topic_id)?.settings.durability;
    let stored = queue(state, &asked.topic, asked.topic_id, asked.queue)?;
    let (base_offset, duplicate) = stored.store(batch, now, term)?;
    Ok(ProduceReply {
        base_offset,
        term,
        stored: now,
        durability,
        duplicate,
        timer: None,
        delays_from: None,
    })
}

fn list_offsets(state: &mut State, asked: &ListOffsets) -> Result<ListOffsetsReply, ErrorReply> {
    let found = queue(state, &asked.topic, asked.topic_id, asked.queue)?;
    let offset = match asked.at {
        ListAt::First => found.log_start,
        ListAt::Last => found.end,
        ListAt::Time(time) => {
            let later = found.batches.iter().find(|kept| kept.stored >= time);
            later.map_or(found.end, |kept| kept.base_offset)
        }
    };
    Ok(ListOffsetsReply { offset, log_start: found.log_start, end_offset: found.end })
}

/// Sends ten letters back at the most, each of which dies again at once.
fn redrive(
    state: &mut State,
    asked: &RedriveDeadLetters,
) -> Result<RedriveDeadLettersReply, ErrorReply> {
    let letters = asked.group.dead_letters();
    let queue = queue(state, &letters, TopicId::UNKNOWN, asked.queue)?;
    let all = OffsetRange { from: Offset(0), to: Offset(u64::MAX) };
    let range = asked.offsets.first().copied().unwrap_or(all);
    let to = range.to.0.min(queue.end.0);
    let next = to.min(range.from.0 + 10);
    let redriven = next.saturating_sub(range.from.0);
    queue.end = Offset(queue.end.0 + redriven);
    Ok(RedriveDeadLettersReply { redriven, next: (next < to).then_some(Offset(next)) })
}

fn create(state: &mut State, asked: &CreateTopic) -> Result<CreateTopicReply, ErrorReply> {
    if state.topics.contains_key(asked.name.as_str()) {
        return Err(error(ErrorCode::TopicExists));
    }
    // Of the number of replicas it chooses one where none is named, as a registry does.
    let replicas = asked.settings.replicas.max(1);
    let settings = TopicSettings { replicas, ..asked.settings.clone() };
    let id = state.make_topic(asked.name.as_str(), settings.clone());
    Ok(CreateTopicReply { id, settings, created: true })
}

fn alter(state: &mut State, asked: &AlterTopic) -> Result<AlterTopicReply, ErrorReply> {
    let found = topic(state, &asked.name, asked.topic_id)?;
    if let Some(queues) = asked.queues {
        if queues < found.settings.queues {
            return Err(error(ErrorCode::InvalidSettings));
        }
        found.settings.queues = queues;
        found.queues.resize_with(queues as usize, Queue::default);
    }
    found.settings.retention_ms = asked.retention_ms.unwrap_or(found.settings.retention_ms);
    Ok(AlterTopicReply { id: found.id, settings: found.settings.clone() })
}

fn delete(state: &mut State, asked: &DeleteTopic) -> Result<DeleteTopicReply, ErrorReply> {
    let id = topic(state, &asked.name, asked.topic_id)?.id;
    state.topics.remove(asked.name.as_str());
    Ok(DeleteTopicReply { id })
}

fn describe(state: &mut State, asked: &DescribeTopic) -> Result<DescribeTopicReply, ErrorReply> {
    let found = topic(state, &asked.name, TopicId::UNKNOWN)?;
    let queues = found.queues.iter().zip(0..).map(|(queue, number)| QueueDescription {
        queue: QueueId(number),
        shard: ShardId(0),
        leader_broker: Some(BrokerId(7)),
        log_start: queue.log_start,
        end_offset: queue.end,
        flushed_offset: queue.end,
        bytes: 0,
        last_stored: TimestampMs(0),
    });
    Ok(DescribeTopicReply {
        name: asked.name.clone(),
        id: found.id,
        settings: found.settings.clone(),
        created: TimestampMs(1),
        queues: queues.collect(),
    })
}

/// Three topics a page, so that there is more than one.
fn list(state: &State, asked: &ListTopics) -> ListTopicsReply {
    let after = asked.after.as_ref().map_or("", TopicName::as_str);
    let mut later = state.topics.iter().filter(|(name, _)| name.as_str() > after);
    let topics = later
        .by_ref()
        .take(3)
        .map(|(name, topic)| TopicSummary {
            name: TopicName::try_from(name.as_str()).unwrap(),
            id: topic.id,
            settings: topic.settings.clone(),
        })
        .collect();
    ListTopicsReply { topics, more: later.next().is_some() }
}

/// Answers a fetch as soon as there is something, or when its wait is over.
pub async fn fetch(request: Frame, shared: Arc<Shared>, replies: Replies) {
    let asked: Fetch = request.header().unwrap();
    let wait = Duration::from_millis(asked.wait_ms.into());
    let deadline = tokio::time::Instant::now() + wait;
    shared.lock().fetch_requests += 1;
    loop {
        let changed = shared.changed.notified();
        let found = read(&mut shared.lock(), &asked);
        let is_late = tokio::time::Instant::now() >= deadline;
        match found {
            Ok((reply, _)) if reply.batches.is_empty() && !is_late => {}
            Ok((reply, body)) => return replies.send(&request.head, &reply, &body),
            Err(refusal) => return replies.refuse(&request.head, &refusal),
        }
        let _parked = Parked::new(&shared);
        let _ = tokio::time::timeout_at(deadline, changed).await;
    }
}

/// Counts a fetch among those that wait, for as long as it does.
struct Parked<'a>(&'a Shared);

impl<'a> Parked<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.lock().parked += 1;
        Self(shared)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.lock().parked -= 1;
    }
}

fn read(state: &mut State, asked: &Fetch) -> Result<(FetchReply, Vec<u8>), ErrorReply> {
    let found = queue(state, &asked.topic, asked.topic_id, asked.queue)?;
    let (log_start, end_offset) = (found.log_start, found.end);
    if asked.offset < log_start || asked.offset > end_offset {
        let bounds = ErrorDetail::Bounds { log_start, end_offset };
        return Err(error(ErrorCode::OffsetOutOfRange).with_detail(bounds));
    }
    let before = found.batches.iter().rfind(|kept| kept.base_offset < asked.offset);
    let term_before = before.map_or(asked.last_term, |kept| kept.term);
    if asked.last_term != Term::UNKNOWN && asked.last_term != term_before {
        let detail = ErrorDetail::Divergence { term: Term(0), end_offset: log_start, log_start };
        return Err(error(ErrorCode::Diverged).with_detail(detail));
    }
    let (mut batches, mut body) = (Vec::new(), Vec::new());
    for kept in &found.batches {
        let Kept { base_offset, stored, term, batch } = kept;
        let end = base_offset.0 + u64::from(batch.count());
        let fits = body.len() + batch.bytes().len() <= asked.bytes_max as usize;
        if end <= asked.offset.0 {
            continue;
        }
        if !batches.is_empty() && !fits {
            break;
        }
        let (base_offset, term, stored, length) = (*base_offset, *term, *stored, batch.len_bytes());
        batches.push(FetchedBatch { base_offset, term, stored, length, expired: 0 });
        body.extend_from_slice(batch.bytes());
    }
    Ok((FetchReply { log_start, end_offset, batches }, body))
}
