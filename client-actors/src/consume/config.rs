//! How a consumer is set up.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grus_protocol::message::{
    AssignTopic, DivideQueues, DivideTopic, GROUP_SUBSCRIPTIONS_MAX, GroupModel, GroupOptions,
    GroupStrategy, GroupSubscription, MessageFilter,
};
use grus_protocol::names::NameError;
use grus_protocol::{GroupName, InstanceName, MemberId};

use super::ConsumerEvent;
use crate::config::{invalid, positive};
use crate::consumer::Divide;
use crate::error::ClientError;
use crate::guard::Guard;

/// When messages are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// Before they are handed out: each is handled once at most. What becomes of it then is not told
    /// to the broker. Acknowledged are as many at once as [`next_batch`](crate::Consumer::next_batch)
    /// asks for, 256 for those that are handed out one by one; nobody gets what the program does not
    /// take of them.
    Before,
    /// When the handler has returned, by what it returns: each is handled once at least.
    #[default]
    AfterHandler,
    /// By the program's word on each [`Handed`](crate::Handed) alone. Not for
    /// [`Consumer::run`](crate::Consumer::run).
    Manual,
}

/// A function that hears of events.
#[derive(Clone)]
pub struct EventHandler(Arc<dyn Fn(&ConsumerEvent) + Send + Sync>);

impl EventHandler {
    pub(super) fn call(&self, event: &ConsumerEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for EventHandler {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("EventHandler")
    }
}

/// How a [`Consumer`](crate::Consumer) consumes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// The group.
    pub group: GroupName,
    /// The topics, or patterns of them, and which of their messages.
    pub subscriptions: Vec<GroupSubscription>,
    /// When messages are acknowledged. Default: after the handler.
    pub ack_mode: AckMode,
    /// Most messages in the hands of [`Consumer::run`](crate::Consumer::run)'s handler at once.
    /// With 1, those of a queue are handled in order. Default: 16.
    pub concurrency_max: usize,
    /// A handler that has not returned after so long is dropped, and its message fails; until then
    /// it may be as slow as it likes. Default: 5 min.
    pub handler_timeout: Duration,
    /// Most messages of one queue on the way and in hand; a batch more at most. Default: 1,000.
    pub queue_messages_max: u32,
    /// Most bytes of all its queues on the way and in hand, in equal shares of at least 64 KiB; a
    /// batch of each more at most. Default: 16 MiB.
    pub buffer_bytes_max: u32,
    /// How long it waits to be a member of the group at first; then it is closed, and
    /// [`Consumer::next`](crate::Consumer::next) says why by
    /// [`ConsumeError::NotJoined`](crate::ConsumeError::NotJoined). Default: as long as it takes, with
    /// a warning now and then.
    pub join_wait_max: Option<Duration>,
    /// How long work on a queue that is to go may last before it goes all the same. Default: 3 s.
    pub revoke_wait_max: Duration,
    /// How long work may last when the consumer stops. Default: 30 s.
    pub stop_wait_max: Duration,
    /// What it asks of the group's settings. Default: nothing.
    pub options: GroupOptions,
    /// A stable name in the group: a program that comes back under it takes the place of its
    /// earlier life at once. Default: none.
    pub instance: Option<InstanceName>,
    /// The file in which a member of a broadcast group keeps what it has settled. Default: none,
    /// which is right for all other groups. See [`ConsumerConfig::broadcast`].
    pub progress_file: Option<PathBuf>,
    /// Hears of queues that come and go; called on the client's thread, and must return at once.
    /// Default: nobody.
    pub on_event: Option<EventHandler>,
    /// Divides the group's queues among its members; called on the client's thread, and must return at
    /// once. Default: the group's strategy does. See [`ConsumerConfig::divide_by`].
    pub divide_by: Option<QueueDivider>,
}

impl ConsumerConfig {
    /// The defaults for a group.
    ///
    /// # Errors
    /// When the group's name breaks the rule of names.
    pub fn new(group: &str) -> Result<Self, NameError> {
        Ok(Self {
            group: GroupName::try_from(group)?,
            subscriptions: Vec::new(),
            ack_mode: AckMode::AfterHandler,
            concurrency_max: 16,
            handler_timeout: Duration::from_mins(5),
            queue_messages_max: 1_000,
            buffer_bytes_max: 16 * 1024 * 1024,
            join_wait_max: None,
            revoke_wait_max: Duration::from_secs(3),
            stop_wait_max: Duration::from_secs(30),
            options: GroupOptions::default(),
            instance: None,
            progress_file: None,
            on_event: None,
            divide_by: None,
        })
    }

    /// Also subscribes to a topic, or to all that fit a pattern (`orders.*`): to its messages with
    /// one of these tags (`created || paid`), or to all of them (`*`).
    ///
    /// # Errors
    /// [`ClientError::Config`] when the pattern or the tags break their rules.
    pub fn subscribe(mut self, topics: &str, tags: &str) -> Result<Self, ClientError> {
        let topics =
            topics.parse().map_err(|error: NameError| invalid("topics", &error.to_string()))?;
        let filter =
            MessageFilter::parse_tags(tags).map_err(|error| invalid("tags", &error.to_string()))?;
        self.subscriptions.push(GroupSubscription { topics, filter });
        Ok(self)
    }

    /// Is a member of a broadcast group: it has all messages, as every other member has, and keeps
    /// what it has settled in this file, by which it goes on when it starts again. The file is made
    /// when it is not there; one that is of another group or member, damaged, or in use is refused
    /// by [`Client::consumer`](crate::Client::consumer). One that begins does so where
    /// `options.start` says.
    ///
    /// A message that failed is handed out again by the client itself, by the group's ladder; it
    /// waits in memory, and counts against `queue_messages_max` and `buffer_bytes_max`. After its
    /// last delivery, or as a dead letter, it is given up: it is logged, and counts as settled. Other
    /// members notice nothing of it. Tags are looked at by the client, so all messages travel.
    #[must_use]
    pub fn broadcast(mut self, file: impl Into<PathBuf>) -> Self {
        self.options.model = Some(GroupModel::Broadcast);
        self.progress_file = Some(file.into());
        self
    }

    /// Has the group's queues divided by a function of the program's own (strategy `own`). One member at a
    /// time is asked, when members or topics come or go; so all members should have the same function.
    ///
    /// It is told the members, and each topic with its queues, whose they are now, and who may have
    /// them; it answers, for each topic in order, with a member for each of its queues, in order. The
    /// members' names for themselves ([`ClientConfig::client_id`](crate::ClientConfig::client_id)) and
    /// their stable names ([`ConsumerConfig::instance`]) tell them apart. Where nobody answers usably
    /// within some seconds the queues are divided as by the strategy `sticky`.
    ///
    /// ```
    /// use grus_client::{ConsumerConfig, DivideQueues};
    ///
    /// // All of a topic to the first of those who want it: the others stand by.
    /// let first_takes_all = |asked: &DivideQueues| {
    ///     let all = asked.topics.iter();
    ///     all.map(|topic| vec![topic.members[0]; topic.queues.len()]).collect()
    /// };
    /// let config = ConsumerConfig::new("billing")?.divide_by(first_takes_all);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn divide_by(
        mut self,
        divide: impl Fn(&DivideQueues) -> Vec<Vec<MemberId>> + Send + Sync + 'static,
    ) -> Self {
        self.options.strategy = Some(GroupStrategy::Own);
        self.divide_by = Some(QueueDivider(Arc::new(divide)));
        self
    }

    /// Has a function hear of events.
    #[must_use]
    pub fn on_event(mut self, handler: impl Fn(&ConsumerEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(EventHandler(Arc::new(handler)));
        self
    }

    pub(super) fn check(&self) -> Result<(), ClientError> {
        if !(1..=GROUP_SUBSCRIPTIONS_MAX).contains(&self.subscriptions.len()) {
            return Err(invalid("subscriptions", "are not 1 to 256"));
        }
        if self.concurrency_max == 0 {
            return Err(invalid("concurrency_max", "is zero"));
        }
        if self.queue_messages_max == 0 || self.buffer_bytes_max == 0 {
            return Err(invalid("queue_messages_max or buffer_bytes_max", "is zero"));
        }
        let is_broadcast = self.options.model == Some(GroupModel::Broadcast);
        match &self.progress_file {
            None if is_broadcast => {
                let text = "is needed: a member of a broadcast group keeps its progress itself";
                return Err(invalid("progress_file", text));
            }
            Some(_) if !is_broadcast => {
                return Err(invalid("progress_file", "is for members of broadcast groups alone"));
            }
            _ => {}
        }
        positive("handler_timeout", self.handler_timeout)
    }
}

/// A function that divides queues: for each topic, in order, a member for each of its queues.
trait DivisionFn: Fn(&DivideQueues) -> Vec<Vec<MemberId>> + Send + Sync {}

impl<F: Fn(&DivideQueues) -> Vec<Vec<MemberId>> + Send + Sync> DivisionFn for F {}

/// A function of the program that divides a group's queues.
#[derive(Clone)]
pub struct QueueDivider(Arc<dyn DivisionFn>);

impl QueueDivider {
    /// As a consumer calls it: a panic of it is no division.
    pub(super) fn guarded(&self, guard: Guard) -> Divide {
        let divide = Arc::clone(&self.0);
        Arc::new(move |question| {
            let members = guard.call("divide_by", || divide(question))?;
            let of = |(topic, members): (&DivideTopic, Vec<MemberId>)| AssignTopic {
                topic_id: topic.topic_id,
                members,
            };
            Some(question.topics.iter().zip(members).map(of).collect())
        })
    }
}

impl fmt::Debug for QueueDivider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("QueueDivider")
    }
}

/// A name for a member that was given none: it is kept in its file.
pub(super) fn drawn_member(random: u64) -> InstanceName {
    let name = format!("{random:016x}");
    InstanceName::try_from(name.as_str()).expect("digits and letters are a name")
}
