//! Consumer groups, for whoever asks: connections and HTTP. Not an actor: it knows the way to a
//! group's coordinator, and asks the shards for all of those that they have.

pub mod queues;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use grus_mailbox::{Inbox, Port, reply};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{GroupId, QueueId, TimestampMs};
use grus_protocol::message::{
    DeleteGroup, DeleteGroupReply, DescribeGroup, DescribeGroupReply, GROUPS_PAGE_MAX,
    GroupSummary, ListGroups, ListGroupsReply,
};
use grus_protocol::names::GroupName;
use tokio::sync::watch;

use crate::consumer_group::error::CoordinatorError;
use crate::consumer_group::{CoordinatorAsk, GroupHandle};
use crate::metrics::groups::{GroupMoment, GroupMoments};
use crate::registry_link::LinkRequest;
use crate::registry_link::routes::{Routes, TopicRoute};
use crate::shard::{GroupSums, GroupSumsPage, ShardHandle, ShardRequest, ShardSet, SumsPlace};

/// How long a client waits before it asks again for a coordinator that begins just now, in
/// milliseconds.
const RETRY_AFTER_MS: u32 = 50;

/// Who knows the groups of this broker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Groups {
    routes: watch::Receiver<Arc<Routes>>,
    shards: ShardSet,
    link: Inbox<LinkRequest>,
}

impl Groups {
    /// Of a broker with these topics and shards, and who changes the routes.
    #[must_use]
    pub const fn new(
        routes: watch::Receiver<Arc<Routes>>,
        shards: ShardSet,
        link: Inbox<LinkRequest>,
    ) -> Self {
        Self { routes, shards, link }
    }

    fn dead_letters(&self, group: &GroupName) -> Option<Arc<TopicRoute>> {
        self.routes.borrow().get(&group.dead_letters()).cloned()
    }

    /// The coordinator of a group, if it is here; `id` is the incarnation meant, 0: whichever.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownGroup`]; who coordinates it, if that is another broker.
    pub fn coordinator(
        &self,
        group: &GroupName,
        id: GroupId,
    ) -> Result<Arc<GroupHandle>, ErrorReply> {
        check_name(group)?;
        let topic = self.dead_letters(group).ok_or_else(|| unknown_group(group))?;
        if id != GroupId::UNKNOWN && id != GroupId::of(topic.id) {
            let text = format!("group {group} was deleted and made again");
            return Err(ErrorReply::new(ErrorCode::UnknownGroup, text));
        }
        self.handle_of(&topic)
    }

    fn handle_of(&self, topic: &TopicRoute) -> Result<Arc<GroupHandle>, ErrorReply> {
        topic.queue(topic.id, QueueId(0))?; // or who leads it
        let shard = topic.queues[0].shard;
        let found = self.shards.get(shard).and_then(|handle| handle.group(GroupId::of(topic.id)));
        found.ok_or_else(|| {
            let error = ErrorReply::new(ErrorCode::Unavailable, "the group's coordinator begins");
            error.with_retry_after_ms(RETRY_AFTER_MS)
        })
    }

    /// The coordinator of a group, which is made if there is none.
    ///
    /// # Errors
    /// What to answer.
    pub async fn opened(&self, group: &GroupName) -> Result<Arc<GroupHandle>, ErrorReply> {
        check_name(group)?;
        if let Some(topic) = self.dead_letters(group) {
            return self.handle_of(&topic);
        }
        let (port, answer) = reply::port();
        let open = LinkRequest::OpenGroup { group: group.clone(), reply: port };
        let _ = self.link.try_put(open); // refused: its port is dropped
        let topic = answer.await.unwrap_or_else(|_dropped| Err(unavailable()))?;
        self.handle_of(&topic)
    }

    /// Describes a group.
    ///
    /// # Errors
    /// What to answer.
    pub async fn describe(&self, ask: DescribeGroup) -> Result<DescribeGroupReply, ErrorReply> {
        let handle = self.coordinator(&ask.group, GroupId::UNKNOWN)?;
        asked(&handle, |reply| CoordinatorAsk::Describe { reply }).await
    }

    /// Lists a page of the groups that are coordinated here.
    ///
    /// # Errors
    /// What to answer.
    pub async fn list(&self, ask: ListGroups) -> Result<ListGroupsReply, ErrorReply> {
        let most = match ask.groups_max {
            0 => GROUPS_PAGE_MAX,
            some => some.min(GROUPS_PAGE_MAX),
        };
        let mut groups = self.summaries().await?;
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups.retain(|one| ask.after.as_ref().is_none_or(|after| one.group > *after));
        let more = groups.len() > most as usize;
        groups.truncate(most as usize);
        Ok(ListGroupsReply { groups, more })
    }

    /// All groups that are coordinated here, in no order.
    ///
    /// # Errors
    /// What to answer.
    pub async fn summaries(&self) -> Result<Vec<GroupSummary>, ErrorReply> {
        let shards = self.shards.led();
        let lists = shards.iter().map(|shard| async move {
            let (port, answer) = reply::port();
            let _ = shard.inbox.try_put(ShardRequest::ListGroups { reply: port }); // as above
            answer.await.map_err(|_dropped| unavailable())
        });
        let lists = join_all(lists).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// What all groups have done in the queues that this broker leads; shards that cannot tell now
    /// are left out.
    pub async fn sums(&self) -> BTreeMap<GroupId, GroupSums> {
        let shards = self.shards.led();
        let all = shards.iter().map(|shard| async move {
            let (mut sums, mut from) = (Vec::new(), Some(SumsPlace::default()));
            while let Some(place) = from {
                let Ok(page) = sums_page(shard, place, false).await else { break };
                sums.extend(page.sums);
                from = page.next;
            }
            sums
        });
        let mut sums: BTreeMap<GroupId, GroupSums> = BTreeMap::new();
        for (group, some) in join_all(all).await.concat() {
            sums.entry(group).or_default().add(&some);
        }
        sums
    }

    /// All groups that are known here, as `/metrics` shows them.
    pub async fn moments(&self, now: TimestampMs) -> GroupMoments {
        let mut sums = self.sums().await;
        let summaries = self.summaries().await.unwrap_or_default();
        let coordinated: BTreeMap<GroupId, GroupSummary> =
            summaries.into_iter().map(|one| (one.group_id, one)).collect();
        let routes = Arc::clone(&self.routes.borrow());
        let groups = routes.groups(None).map(|(name, topic)| {
            let id = GroupId::of(topic.id);
            let summary = coordinated.get(&id);
            GroupMoment {
                name: name.to_string(),
                coordinated: summary.map(|one| (one.members, one.generation)),
                sums: sums.remove(&id).unwrap_or_default(),
            }
        });
        GroupMoments { groups: groups.collect(), now }
    }

    /// The same of one group; none when a shard cannot tell now, or all of it takes more than
    /// `looks_max` looks at shards. And how many there were.
    pub async fn sums_of(&self, group: GroupId, looks_max: usize) -> (Option<GroupSums>, usize) {
        let (mut sums, mut looks) = (GroupSums::default(), 0);
        for shard in self.shards.led().iter() {
            let mut from = Some(SumsPlace { group, behind: None });
            while let Some(place) = from {
                if looks >= looks_max {
                    return (None, looks);
                }
                looks += 1;
                let Ok(page) = sums_page(shard, place, true).await else { return (None, looks) };
                page.sums.iter().for_each(|(_, some)| sums.add(some));
                from = page.next;
            }
        }
        (Some(sums), looks)
    }

    /// Removes a group that has no members.
    ///
    /// # Errors
    /// What to answer.
    pub async fn delete(&self, ask: DeleteGroup) -> Result<DeleteGroupReply, ErrorReply> {
        let DeleteGroup { group, group_id } = ask;
        let handle = self.coordinator(&group, group_id)?;
        asked(&handle, |reply| CoordinatorAsk::MayGo { reply }).await?;
        let id = handle.group;
        let (port, answer) = reply::port();
        let _ = self.link.try_put(LinkRequest::DeleteGroup { group, id, reply: port }); // as above
        answer.await.unwrap_or_else(|_dropped| Err(unavailable()))?;
        Ok(DeleteGroupReply { group_id: id })
    }
}

async fn sums_page(
    shard: &ShardHandle,
    from: SumsPlace,
    is_one: bool,
) -> Result<GroupSumsPage, ErrorReply> {
    let (port, answer) = reply::port();
    let ask = ShardRequest::GroupSums { from, is_one, reply: port };
    let _ = shard.inbox.try_put(ask); // refused: its port is dropped
    let page = answer.await.map_err(|_dropped| unavailable())?;
    page.map_err(|error| error.to_reply())
}

/// Asks a coordinator.
async fn asked<T: Send + 'static>(
    handle: &GroupHandle,
    ask: impl FnOnce(Port<Result<T, CoordinatorError>>) -> CoordinatorAsk,
) -> Result<T, ErrorReply> {
    let (port, answer) = reply::port();
    let _ = handle.asks.try_put(ask(port)); // refused: its port is dropped
    match answer.await {
        Ok(answer) => answer.map_err(|error| error.to_reply()),
        Err(_dropped) => Err(unavailable()),
    }
}

/// Whether a group may be named so, by whoever asks from outside.
pub(crate) fn check_name(group: &GroupName) -> Result<(), ErrorReply> {
    if !group.is_reserved() {
        return Ok(());
    }
    let text = format!("{group} is no group: the names of producers are kept there");
    Err(ErrorReply::new(ErrorCode::InvalidName, text))
}

fn unknown_group(group: &GroupName) -> ErrorReply {
    ErrorReply::new(ErrorCode::UnknownGroup, format!("there is no group {group}"))
}

fn unavailable() -> ErrorReply {
    let error = ErrorReply::new(ErrorCode::Unavailable, "the group's coordinator has no room");
    error.with_retry_after_ms(RETRY_AFTER_MS)
}
