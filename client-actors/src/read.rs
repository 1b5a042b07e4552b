//! What a program reads by.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use grus_mailbox::{ActorSpec, Answer, Dropped, Host, HostHandle, Inbox, Place, reply};
use grus_protocol::batch::RecordView;
use grus_protocol::{
    BatchLimits, MessageId, Offset, QueueId, Record, RecordBatch, TimestampMs, TopicName,
};

use crate::client::{Client, random};
use crate::config::{ReaderConfig, StartAt};
use crate::error::ReadError;
use crate::hooks::{InHand, ReceiveHooks};
use crate::reader::{Item, ReaderActor, Seek, SeekAll, Take};

/// What a stored batch may become when it is decompressed: above what any broker takes by default.
pub(crate) const READ_LIMITS: BatchLimits =
    BatchLimits { batch_bytes_max: 64 * 1024 * 1024, ..BatchLimits::FORMAT };

/// A message that was read. Its bytes are not copied: it keeps the batch it came in alive.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The topic it is in.
    pub topic: TopicName,
    /// The queue it is in.
    pub queue: QueueId,
    /// Its place in the queue.
    pub offset: Offset,
    /// When it was stored, by the broker's clock.
    pub stored: TimestampMs,
    record: Record,
}

impl Delivered {
    pub(crate) fn new(
        topic: TopicName,
        (queue, offset): (QueueId, Offset),
        stored: TimestampMs,
        record: Record,
    ) -> Self {
        Self { topic, queue, offset, stored, record }
    }

    /// Its id.
    pub fn id(&self) -> MessageId {
        self.record.id()
    }

    /// When it was made, by the producer's clock.
    pub fn born(&self) -> TimestampMs {
        self.record.born()
    }

    /// Its priority, 0 to 9.
    pub fn priority(&self) -> u8 {
        self.record.priority()
    }

    /// The keys to find it by.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.record.keys()
    }

    /// The key of the order it keeps with others.
    pub fn order_key(&self) -> Option<&[u8]> {
        self.record.order_key()
    }

    /// Its tag.
    pub fn tag(&self) -> Option<&str> {
        self.record.tag()
    }

    /// Its headers, in the order they were given in.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.record.headers()
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        self.record.body()
    }

    /// Its body, sharing the batch's memory.
    pub fn body_bytes(&self) -> Bytes {
        self.record.body_bytes()
    }

    /// All of it, as the protocol has it.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// A stored batch that was read, for those who look at many messages and keep few.
#[derive(Debug, Clone)]
pub struct DeliveredBatch {
    /// The topic it is in.
    pub topic: TopicName,
    /// The queue it is in.
    pub queue: QueueId,
    /// When it was stored, by the broker's clock.
    pub stored: TimestampMs,
    base_offset: Offset,
    skip: u32,
    batch: RecordBatch,
}

impl DeliveredBatch {
    /// What was read, decompressed.
    pub(crate) fn of(topic: &TopicName, item: Item) -> Result<Self, ReadError> {
        let Item { queue, base_offset, skip, stored, batch, .. } = item;
        let batch = batch.decompressed(&READ_LIMITS).map_err(|error| {
            let at = Offset(base_offset.0 + u64::from(skip));
            ReadError::Damaged { queue, at, reason: error.to_string().into() }
        })?;
        Ok(Self { topic: topic.clone(), queue, stored, base_offset, skip, batch })
    }

    /// Number of messages in it that belong to what is read.
    pub fn len(&self) -> usize {
        (self.batch.count() - self.skip) as usize
    }

    /// Whether it has none, which no reader returns.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages, borrowed: their offsets and their records. They end early, before
    /// [`DeliveredBatch::len`], at a record that cannot be decoded; no broker stores one.
    pub fn views(&self) -> impl Iterator<Item = (Offset, RecordView<'_>)> {
        let offsets = self.base_offset.0..;
        let sound = self.batch.views().map_while(Result::ok);
        offsets.map(Offset).zip(sound).skip(self.skip as usize)
    }

    /// The messages, each to keep. They end early as [`DeliveredBatch::views`] do.
    pub fn messages(&self) -> impl Iterator<Item = Delivered> {
        let offsets = self.base_offset.0..;
        let sound = self.batch.records().map_while(Result::ok);
        offsets.map(Offset).zip(sound).skip(self.skip as usize).map(|(offset, record)| Delivered {
            topic: self.topic.clone(),
            queue: self.queue,
            offset,
            stored: self.stored,
            record,
        })
    }
}

/// Reads the queues of one topic: each in order, without gap or repetition, across reconnects and
/// restarts of the broker. Between queues there is no order.
///
/// It reads ahead as much as `buffer_bytes_max` says; about as much again may be in its own hands
/// while the program takes message by message.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use grus_client::{Client, ClientConfig, ReaderConfig, StartAt};
///
/// let client = Client::connect(ClientConfig::default()).await?;
/// let mut reader = client.reader(ReaderConfig::new("orders", StartAt::First)?)?;
/// loop {
///     let message = reader.next().await?;
///     println!("{}: {} bytes", message.offset, message.body().len());
/// }
/// # }
/// ```
pub struct Reader {
    client: Client,
    config: ReaderConfig,
    takes: Inbox<Take>,
    seeks: Inbox<Seek>,
    seeks_of_all: Inbox<SeekAll>,
    pub(crate) actor: HostHandle<ReaderActor>,
    /// The answer awaited; kept when a future is dropped, so that nothing of it is lost.
    pending: Option<Answer<Result<Vec<Item>, ReadError>>>,
    batches: VecDeque<Item>,
    messages: VecDeque<Delivered>,
    /// Told after `messages`.
    damage: Option<ReadError>,
    sought: HashMap<QueueId, u32>,
    in_hand: InHand,
}

impl Reader {
    /// `hooks` see what the program is given; none where somebody else shows it to them.
    pub(crate) fn open(
        client: &Client,
        place: &Place,
        config: ReaderConfig,
        hooks: Option<ReceiveHooks>,
    ) -> Self {
        let spec = ActorSpec::new("Reader", config.topic.as_str());
        let (doors, own_config) = (client.core.doors.clone(), config.clone());
        let seed = random();
        let owner = client.core.next_owner();
        let mut lives = 0;
        let actor = Host::spawn(place, spec, move || {
            lives += 1;
            ReaderActor::new(own_config.clone(), doors.clone(), (owner, seed), lives)
        });
        Self {
            client: client.clone(),
            takes: actor.inbox::<Take>(16),
            seeks: actor.inbox::<Seek>(16),
            seeks_of_all: actor.inbox::<SeekAll>(16),
            actor,
            config,
            pending: None,
            batches: VecDeque::new(),
            messages: VecDeque::new(),
            damage: None,
            sought: HashMap::new(),
            in_hand: InHand::new(hooks),
        }
    }

    /// The topic it reads.
    pub fn topic(&self) -> &TopicName {
        &self.config.topic
    }

    /// The client it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next message; waits for one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ReadError`]. Errors of one queue come once, after what was read before; the other
    /// queues go on with the next call.
    pub async fn next(&mut self) -> Result<Delivered, ReadError> {
        poll_fn(|context| self.poll_message(context)).await
    }

    /// The messages of the next batch; waits for one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn next_batch(&mut self) -> Result<Vec<Delivered>, ReadError> {
        self.in_hand.done();
        poll_fn(|context| self.poll_messages(context)).await?;
        let messages: Vec<_> = self.messages.drain(..).collect();
        for message in &messages {
            self.in_hand.give(message);
        }
        Ok(messages)
    }

    /// The next batch as it is stored; waits for one. The fastest way to read. Messages that
    /// [`Reader::next`] has in hand are not in it, and interceptors do not see it. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn next_stored_batch(&mut self) -> Result<DeliveredBatch, ReadError> {
        poll_fn(|context| self.poll_batch(context)).await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Delivered, ReadError>> {
        self.in_hand.done(); // the program has come back for the next one
        ready!(self.poll_messages(context))?;
        let message = self.messages.pop_front().expect("there is one");
        self.in_hand.give(&message);
        Poll::Ready(Ok(message))
    }

    /// Has messages in hand.
    fn poll_messages(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        while self.messages.is_empty() {
            if let Some(damage) = self.damage.take() {
                return Poll::Ready(Err(damage));
            }
            let batch = ready!(self.poll_batch(context))?;
            self.messages.extend(batch.messages());
            if self.messages.len() < batch.len() {
                let at = batch.base_offset.0 + u64::from(batch.skip) + self.messages.len() as u64;
                let (queue, at) = (batch.queue, Offset(at));
                let reason = "a record cannot be decoded; the rest of its batch is left out".into();
                self.damage = Some(ReadError::Damaged { queue, at, reason });
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<DeliveredBatch, ReadError>> {
        loop {
            while let Some(item) = self.batches.pop_front() {
                let sought = self.sought.get(&item.queue).copied().unwrap_or(0);
                if item.seeks >= sought {
                    return Poll::Ready(DeliveredBatch::of(&self.config.topic, item));
                }
            }
            let mut answer = match self.pending.take() {
                Some(answer) => answer,
                None => match self.take() {
                    Some(answer) => answer,
                    None => return Poll::Ready(Err(ReadError::Closed)),
                },
            };
            match Pin::new(&mut answer).poll(context) {
                Poll::Ready(taken) => {
                    self.batches.extend(taken.map_err(|Dropped| ReadError::Closed)??);
                }
                Poll::Pending => {
                    self.pending = Some(answer);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Asks for what was read ahead; none when the reader is closed.
    fn take(&self) -> Option<Answer<Result<Vec<Item>, ReadError>>> {
        let (reply, answer) = reply::port();
        // There is room: one is under way at a time.
        self.takes.try_put(Take { reply }).ok().map(|()| answer)
    }

    /// Goes on reading a queue at another place; also after an error of that queue.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn seek(&mut self, queue: QueueId, start: StartAt) -> Result<(), ReadError> {
        let (done, answer) = reply::port();
        let seek = Seek { queue, start, done };
        self.seeks.put(seek).await.map_err(|_stopped| ReadError::Closed)?;
        let sought = answer.await.map_err(|Dropped| ReadError::Closed)?;
        self.sought.insert(queue, sought);
        self.messages.retain(|message| message.queue != queue);
        self.damage.take_if(|damage| damage.queue() == Some(queue));
        Ok(())
    }

    /// Goes on reading all its queues at another place.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn seek_all(&mut self, start: StartAt) -> Result<(), ReadError> {
        let (done, answer) = reply::port();
        let seek = SeekAll { start, done };
        self.seeks_of_all.put(seek).await.map_err(|_stopped| ReadError::Closed)?;
        let sought = answer.await.map_err(|Dropped| ReadError::Closed)?;
        self.sought.extend(sought);
        self.messages.clear();
        self.damage = None;
        Ok(())
    }

    /// Ends the reader.
    pub async fn close(self) {
        self.actor.stop().await;
    }
}

/// The messages, as [`Reader::next`] gives them; it ends when the reader is closed. Seek in between as
/// you like: the reader stays yours.
///
/// ```no_run
/// # async fn example(mut reader: grus_client::Reader) -> Result<(), grus_client::ReadError> {
/// use futures_util::TryStreamExt;
///
/// while let Some(message) = reader.try_next().await? {
///     println!("{}: {} bytes", message.offset, message.body().len());
/// }
/// # Ok(())
/// # }
/// ```
impl Stream for Reader {
    type Item = Result<Delivered, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.poll_message(context)) {
            Err(ReadError::Closed) => None,
            read => Some(read),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.actor.stop());
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reader").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::batch::Compression;
    use grus_protocol::{BatchBuilder, NewRecord, Term};

    use super::*;
    use crate::config::ClientConfig;
    use crate::reader::cursor::{Content, Cursor, Fetched};

    #[test]
    fn what_is_read_ahead_stays_compressed_until_it_is_taken() {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        for number in 1..=4 {
            let id = MessageId::from_parts(TimestampMs(5), &[number; 10]);
            builder.push(&NewRecord::new(id, TimestampMs(5), vec![b'x'; 1 << 20])).unwrap();
        }
        builder.compress(Compression::Zstd);
        let batch = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap();
        let (term, stored) = (Term(1), TimestampMs(5));
        let content = Content::Batch(batch);
        let fetched = Fetched { base_offset: Offset(7), term, stored, content };
        let mut cursor = Cursor::new(QueueId(0), StartAt::Offset(Offset(9)), 1, 0);
        let item = cursor.take(vec![fetched]).unwrap().remove(0);
        assert!(item.bytes() < 100_000, "{} bytes", item.bytes());
        let batch = DeliveredBatch::of(&TopicName::try_from("t").unwrap(), item).unwrap();
        let offsets: Vec<_> = batch.messages().map(|message| message.offset.0).collect();
        assert_eq!(offsets, [9, 10]);
        assert!(batch.messages().all(|message| message.body().len() == 1 << 20));
    }

    #[tokio::test]
    async fn a_reader_that_panics_says_that_it_is_closed_and_its_neighbours_go_on() {
        let client = Client::start(ClientConfig::new(["127.0.0.1:1"])).unwrap();
        let config = ReaderConfig::new("t", StartAt::First).unwrap();
        let mut reader = client.reader(config.clone()).unwrap();
        let mut neighbour = client.reader(config).unwrap();
        reader.inject_panic();
        assert_eq!(reader.next().await.unwrap_err(), ReadError::Closed, "it never begins anew");
        let sought = reader.seek(grus_protocol::QueueId(0), StartAt::First).await;
        assert_eq!(sought, Err(ReadError::Closed));
        assert_eq!(futures_util::StreamExt::next(&mut reader).await.map(drop_result), None);
        neighbour.seek_all(StartAt::Last).await.expect("it lives");
        client.close().await;
    }

    fn drop_result<T, E>(_: Result<T, E>) {}
}
