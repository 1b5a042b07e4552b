//! Going on elsewhere. What was read before a seek is told from what is read after it by a number
//! that only grows, also when the topic is removed and made again.

use grus_protocol::QueueId;

use super::cursor::Cursor;
use super::state::ReaderState;
use crate::config::{ReadMode, StartAt};

impl ReaderState {
    /// Goes on reading a queue at another place. Returns the number of this seek: what was read
    /// before it has a lesser one.
    pub(crate) fn seek(&mut self, queue: QueueId, start: StartAt) -> u32 {
        self.seeks += 1;
        self.seek_as(queue, start);
        self.seeks
    }

    fn seek_as(&mut self, queue: QueueId, start: StartAt) {
        let mut freed = 0;
        self.buffer.retain(|item| {
            let stays = item.queue != queue;
            freed += if stays { 0 } else { item.bytes() };
            stays
        });
        self.buffer_bytes -= freed;
        self.failed.retain(|error| error.queue() != Some(queue));
        let pushed = self.config.mode == ReadMode::Push;
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.queue == queue) else {
            self.seeks_before.push((queue, start));
            return;
        };
        // What was pushed and is still on its way belongs to a subscription of old.
        let left = cursor.link.zip(cursor.subscription());
        self.leaving.extend(left.filter(|(link, _)| pushed && self.up.contains(link)));
        cursor.seek(start, self.seeks);
        cursor.window.release_all();
    }

    /// The same for all its queues, those that are not known yet included.
    pub(crate) fn seek_all(&mut self, start: StartAt) -> Vec<(QueueId, u32)> {
        self.seeks += 1;
        if self.route.is_none() {
            self.start = start;
            self.seeks_before.clear();
        }
        let queues: Vec<QueueId> = self.cursors.iter().map(|cursor| cursor.queue).collect();
        for queue in &queues {
            self.seek_as(*queue, start);
        }
        queues.into_iter().map(|queue| (queue, self.seeks)).collect()
    }

    /// A cursor for a queue that was not known.
    pub(super) fn begin(&mut self, queue: QueueId) {
        let sought = self.seeks_before.iter().rfind(|(before, _)| *before == queue);
        let start = sought.map_or(self.start, |(_, start)| *start);
        self.cursors.push(Cursor::new(queue, start, self.jitter.next(), self.seeks));
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::{
        BatchBuilder, BatchLimits, ErrorCode, ErrorReply, MessageId, NewRecord, Offset,
        RecordBatch, Term, TimestampMs, TopicId,
    };

    use super::*;
    use crate::config::{MissingTopic, ReaderConfig};
    use crate::reader::cursor::{Content, Fetched, Want};
    use crate::route::{LinkId, Route};

    const LINK: LinkId = LinkId(0);
    const QUEUE: QueueId = QueueId(0);

    fn one_batch() -> Fetched {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        let id = MessageId::from_parts(TimestampMs(5), &[1; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(5), "body")).unwrap();
        let batch = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap();
        let content = Content::Batch(batch);
        Fetched { base_offset: Offset(0), term: Term(1), stored: TimestampMs(5), content }
    }

    fn route(topic: u64) -> Route {
        Route { topic_id: TopicId(topic), links: vec![Some(LINK)].into() }
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_first_message_whatever_was_sought_before() {
        let mut config = ReaderConfig::new("t", StartAt::Last).unwrap();
        (config.mode, config.missing_topic) = (ReadMode::Poll, MissingTopic::Wait);
        let mut state = ReaderState::new(&config, 1);
        assert_eq!(state.seek(QueueId(7), StartAt::First), 1, "of a queue that is not known");
        state.link_up(LINK);
        state.route(Ok(route(1)), 0);
        assert_eq!(state.poll_ask(0).unwrap().want, Want::Locate(StartAt::Last));
        let sought = state.seek(QUEUE, StartAt::Offset(Offset(500)));
        assert_eq!(sought, 2);
        let gone = ErrorReply::new(ErrorCode::UnknownTopic, "");
        state.route(Err(gone.into()), 0);
        state.route(Ok(route(2)), 10);
        let asking = state.poll_ask(10).unwrap();
        assert_eq!(asking.want, Want::Locate(StartAt::First), "not where it once began");
        state.located(QUEUE, asking.number, Offset(0));
        let asking = state.poll_ask(10).unwrap();
        state.fetched((QUEUE, asking.number), vec![one_batch()], 10);
        let items = state.take().unwrap().unwrap();
        assert!(items[0].seeks >= sought, "it would be dropped as read before the seek");
    }

    #[test]
    fn what_is_on_its_way_counts_as_read_ahead() {
        let mut config = ReaderConfig::new("t", StartAt::Offset(Offset(0))).unwrap();
        config.mode = ReadMode::Poll;
        (config.buffer_bytes_max, config.fetch_bytes_max) = (64 * 1024, 16 * 1024);
        let mut state = ReaderState::new(&config, 1);
        state.link_up(LINK);
        state.route(Ok(Route { topic_id: TopicId(1), links: vec![Some(LINK); 4].into() }), 0);
        let asked: Vec<_> = std::iter::from_fn(|| state.poll_ask(0)).collect();
        assert_eq!(asked.len(), 4, "their shares are all of it");
        state.fetched((QUEUE, asked[0].number), vec![one_batch()], 0);
        assert_eq!(state.poll_ask(0), None, "a fifth share is too much");
        state.take().unwrap().unwrap();
        assert!(state.poll_ask(0).is_some());
    }
}
