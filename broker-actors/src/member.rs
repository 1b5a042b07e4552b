//! Member: a shard's ear for the other members of its group.
//!
//! ```text
//! Connection of another broker --FromPeer--> [Member] --handle--> consensus
//!           ^--------- reply port --------------'  '---Settled--> Replicas
//! ```
//!
//! * Owns: who is to be a member, since when the one that is to lead has kept up, and whether this one may lead
//!   (not while its broker is drained, or about to stop); what consensus has not answered yet is a future of its room.
//! * Lives on: its shard's core arbiter.
//! * Inbox: [`FromPeer`] in bytes, held until consensus has answered it, also when that took so long that
//!   nobody waits any more; [`HandOver`]; [`GiveBack`]; [`Aim`]; [`Tick`].
//! * Talks to: consensus; Replicas, as long as the routes do not know who the members are, and where this member
//!   is a copy of before others came.
//! * Stops: with its shard; whoever still asks is told by a dropped port.
//! * If it panics: it is rebuilt; peers ask again, and Replicas tells it again who is wanted.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use grus_consensus::{Approach, ChangeError, GivenBack, Group, NodeId, is_install};
use grus_log::Disk;
use grus_mailbox::{ActorSpec, Credit, Host, HostHandle, Inbox, Place, Port, Receive, Resident};
use grus_mailbox::{Room, Tick, Weigh};
use grus_protocol::ids::{BrokerId, ShardId, Term};

use crate::drained::DrainedNow;
use crate::shard::ShardMachine;

/// Bytes of messages that may wait for an answer.
pub const FROM_PEER_BYTES_MAX: u32 = 64 << 20;
/// Requests to give a shard away that may be under way.
pub const HAND_OVERS_MAX: u32 = 4;
/// Who asks has given up long before: a member that is mute must not use up what a connection, which serves all
/// shards, may have under way.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The same for the chunk of a snapshot, which may install it.
const INSTALL_MAX: Duration = Duration::from_mins(1);
/// Lists of who is wanted that may wait.
pub const AIMS_MAX: u32 = 2;
/// How often a step is tried that could not be taken.
const STEP_PERIOD: Duration = Duration::from_millis(500);
/// How long the member that is to lead must have kept up without a break before it is given leadership back: one that
/// was just started may be stopped again.
pub const CALM_MS: u64 = 10_000;
/// What the smallest message counts, in bytes: it bounds how many are under way.
const MESSAGE_BYTES_MIN: u32 = 2_048;

/// What another member says.
#[derive(Debug)]
pub struct FromPeer {
    /// The message.
    pub message: Bytes,
    /// Gets the answer.
    pub reply: Port<Bytes>,
}

impl Weigh for FromPeer {
    fn weight(&self) -> u32 {
        u32::try_from(self.message.len()).unwrap_or(u32::MAX).max(MESSAGE_BYTES_MIN)
    }
}

/// Why a shard is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An operator moves the leader: whoever takes over gives nothing back by itself.
    Moved,
    /// This member is not to lead again before it is started anew.
    Retired,
    /// Its broker is drained: this member is not to lead before that is undone.
    Drained,
}

/// Gives the shard to another member, if this one leads it.
#[derive(Debug)]
pub struct HandOver {
    /// To whom; none: to the one that has most of the log.
    pub to: Option<BrokerId>,
    /// Why.
    pub why: Reason,
    /// Gets whether another member leads, once that is known.
    pub reply: Port<bool>,
}

impl Weigh for HandOver {}

/// Gives the shard back to the member that is to lead it, if this one leads it and all is well.
#[derive(Debug)]
pub struct GiveBack {
    /// To whom.
    pub to: BrokerId,
    /// Gets what came of it.
    pub reply: Port<GivenBack>,
}

impl Weigh for GiveBack {}

/// Who is to be a member of the group; whoever leads it sees to that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aim {
    /// All of them; none: those that are.
    pub wanted: BTreeSet<NodeId>,
    /// The members, as whoever wants that knew them.
    pub members: BTreeSet<NodeId>,
    /// Index of that list of members: what is wanted of another list is not begun before that one is known.
    pub members_at: u64,
    /// Who is to lead when all is well; none: nobody rather than another.
    pub first: Option<NodeId>,
}

impl Weigh for Aim {}

/// The members as they are, as the leader says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The shard.
    pub shard: ShardId,
    /// The leader's term.
    pub term: Term,
    /// The members.
    pub members: Vec<BrokerId>,
    /// Index of the entry that they are of.
    pub at: u64,
}

impl Weigh for Settled {}

/// The group has got other members since, though this one, which runs, knows of nobody else: it is one of
/// before they came, and must not go on. Told again as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgrown {
    /// The shard.
    pub shard: ShardId,
}

impl Weigh for Outgrown {}

/// Whom a member tells what.
#[derive(Debug, Clone)]
pub struct Tells {
    /// Who the members are.
    pub settled: Inbox<Settled>,
    /// That this one is of before.
    pub outgrown: Inbox<Outgrown>,
}

/// A step was taken towards what is wanted, or could not be.
struct Stepped(Result<Approach, ChangeError>);

impl Weigh for Stepped {}

/// The way to a member of a shard's group.
#[derive(Debug, Clone)]
pub struct MemberDoor {
    /// The group, see [`ShardMessage::group`](grus_protocol::message::ShardMessage).
    pub group: u64,
    /// Takes what other members say.
    pub inbox: Inbox<FromPeer>,
    /// Has it give its shard away.
    pub hand_over: Inbox<HandOver>,
}

/// Whether a member may lead where another one could, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayLead {
    Yes,
    NotWhileDrained,
    /// Before it is started anew.
    NoMore,
}

/// See the module documentation.
pub struct Member<D: Disk> {
    shard: ShardId,
    group: Group<ShardMachine, D>,
    tells: Tells,
    aim: Aim,
    /// Whether it is a copy of before others came: it takes nobody in, and is about to be stopped.
    is_outgrown: bool,
    is_stepping: bool,
    /// Why the last step was not taken.
    waits_for: Option<ChangeError>,
    /// Who could be given leadership back, and since when, in milliseconds.
    calm: Option<(NodeId, u64)>,
    /// Whether the broker is drained.
    drained: DrainedNow,
    /// What consensus was told.
    may_lead: MayLead,
}

impl<D: Disk> Member<D> {
    /// Starts it on the current thread, which must be `place`, that of the group. While `drained` says that the
    /// broker is, it does not lead where another one can.
    #[must_use]
    pub fn start(
        place: &Place,
        shard: ShardId,
        group: Group<ShardMachine, D>,
        tells: Tells,
        drained: DrainedNow,
    ) -> HostHandle<Self> {
        let spec = ActorSpec::new("Member", format!("shard-{shard}"));
        Host::spawn_local(place, spec, move || Self {
            shard,
            group: group.clone(),
            tells: tells.clone(),
            aim: Aim::default(),
            is_outgrown: false,
            is_stepping: false,
            waits_for: None,
            calm: None,
            drained: drained.clone(),
            may_lead: MayLead::Yes,
        })
    }

    /// Takes the next step towards what is wanted, where this member leads. A change that is half made is
    /// finished, whoever wants what: its group needs two majorities meanwhile.
    fn step(&mut self, room: &mut Room<'_, Self>) {
        if self.is_outgrown || self.is_stepping || !self.group.status().ready {
            return;
        }
        let members = self.group.members();
        let is_known = members.index.is_none_or(|at| at <= self.aim.members_at);
        let wanted = match (members.is_settled, is_known) {
            (false, _) => members.goal,
            (true, false) => return self.tell(),
            (true, true) if self.aim.wanted.is_empty() => return,
            (true, true) => self.aim.wanted.clone(),
        };
        self.is_stepping = true;
        let group = self.group.clone();
        room.spawn_into(async move { Stepped(group.approach(&wanted).await) });
    }

    /// Tells who the members are.
    fn tell(&self) {
        let members = self.group.members();
        let Some(at) = members.index.filter(|_| members.is_settled) else { return };
        let settled = Settled {
            shard: self.shard,
            term: Term(self.group.status().term),
            members: members.voters.iter().copied().map(BrokerId).collect(),
            at,
        };
        let _ = self.tells.settled.try_put(settled); // told again until the routes know it
    }
}

impl<D: Disk> Member<D> {
    /// Has consensus lead again, or no more, where the broker was drained since, or that was undone.
    fn follow_drained(&mut self) {
        let is_drained = *self.drained.borrow();
        match self.may_lead {
            MayLead::Yes if is_drained => {
                self.may_lead = MayLead::NotWhileDrained;
                self.group.retire();
            }
            MayLead::NotWhileDrained if !is_drained => {
                self.may_lead = MayLead::Yes;
                self.group.unretire();
            }
            MayLead::Yes | MayLead::NotWhileDrained | MayLead::NoMore => {}
        }
    }

    /// Looks whether the one that is to lead keeps up.
    fn look_at_first(&mut self, now_ms: u64) {
        let first = self.aim.first.filter(|_| !self.is_outgrown);
        let first = first.filter(|first| self.group.may_give_back(*first));
        let begun = self.calm.filter(|(known, _)| Some(*known) == first);
        self.calm = first.map(|first| begun.unwrap_or((first, now_ms)));
    }

    fn is_calm(&self, to: NodeId, now_ms: u64) -> bool {
        self.calm.is_some_and(|(first, since_ms)| {
            first == to && now_ms.saturating_sub(since_ms) >= CALM_MS
        })
    }
}

impl<D: Disk> Resident for Member<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.follow_drained();
        room.tick_every(STEP_PERIOD);
    }
}

impl<D: Disk> Receive<Aim> for Member<D> {
    fn receive(&mut self, aim: Aim, _: Credit, room: &mut Room<'_, Self>) {
        self.is_outgrown = self.group.is_outgrown(&aim.members, aim.members_at);
        self.aim = aim;
        if self.is_outgrown {
            let told = Outgrown { shard: self.shard };
            let _ = self.tells.outgrown.try_put(told); // full: the next aim comes soon
            return;
        }
        self.step(room);
    }
}

impl<D: Disk> Receive<Tick> for Member<D> {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        self.follow_drained();
        self.look_at_first(tick.monotonic_ms);
        self.step(room);
    }
}

impl<D: Disk> Receive<Stepped> for Member<D> {
    fn receive(&mut self, Stepped(result): Stepped, _: Credit, room: &mut Room<'_, Self>) {
        self.is_stepping = false;
        let shard = self.shard;
        match result {
            Ok(Approach::There) => self.tell(),
            Ok(Approach::HandedOver) => tracing::info!(%shard, "it is no longer to be led here"),
            Ok(Approach::Step) => {
                let members = self.group.members();
                tracing::info!(%shard, voters = ?members.voters, learners = ?members.learners,
                    wanted = ?self.aim.wanted, "its members change");
                self.waits_for = None;
                self.step(room);
            }
            Err(ChangeError::Propose(_)) => {} // another one leads, or nobody
            Err(why) => {
                let kind = |why: &ChangeError| (std::mem::discriminant(why), why.advice());
                if self.waits_for.as_ref().map(kind) != Some(kind(&why)) {
                    tracing::warn!(%shard, %why, wanted = ?self.aim.wanted, "its members wait to change");
                }
                self.waits_for = Some(why);
            }
        }
    }
}

impl<D: Disk> Receive<FromPeer> for Member<D> {
    fn receive(&mut self, msg: FromPeer, credit: Credit, room: &mut Room<'_, Self>) {
        let FromPeer { message, reply } = msg;
        let group = self.group.clone();
        let is_install = is_install(std::slice::from_ref(&message));
        let limit = if is_install { INSTALL_MAX } else { ANSWER_MAX };
        // Futures are polled first in the order in which they are spawned: appends stay in order.
        room.spawn(async move {
            let mut handling = std::pin::pin!(group.handle(message));
            if let Ok(answer) = tokio::time::timeout(limit, handling.as_mut()).await {
                reply.send(answer);
            } else {
                drop(reply); // its connection is let go of; what is under way here stays counted here
                handling.await;
            }
            drop(credit);
        });
    }
}

impl<D: Disk> Receive<HandOver> for Member<D> {
    fn receive(&mut self, msg: HandOver, credit: Credit, room: &mut Room<'_, Self>) {
        let HandOver { to, why, reply } = msg;
        let group = self.group.clone();
        match why {
            Reason::Moved => {}
            Reason::Retired => {
                self.may_lead = MayLead::NoMore;
                group.retire();
            }
            Reason::Drained => self.follow_drained(),
        }
        let to = to.map(|broker| broker.0);
        room.spawn(async move {
            let is_done = match why {
                Reason::Moved => group.move_leader(to).await,
                Reason::Retired | Reason::Drained => group.hand_over(to).await,
            };
            reply.send(is_done);
            drop(credit);
        });
    }
}

impl<D: Disk> Receive<GiveBack> for Member<D> {
    fn receive(&mut self, msg: GiveBack, credit: Credit, room: &mut Room<'_, Self>) {
        let GiveBack { to: BrokerId(to), reply } = msg;
        if !self.is_calm(to, room.clock().monotonic_ms()) {
            return reply.send(GivenBack::NotNow);
        }
        let group = self.group.clone();
        room.spawn(async move {
            reply.send(group.give_back(to).await);
            drop(credit);
        });
    }
}
