//! The identities a producer stamps its batches with, and asks for.
//!
//! A producer without a name has one identity for all brokers, and any broker gives it.
//!
//! One with a name is given a *life* by the broker that leads the shard of the names: an id that all
//! lives of the name have, and epochs that this life has for itself. Under the first it tells each
//! broker whose queues it sends to that it is there, and sends nothing to a queue before its broker has
//! refused all earlier lives. A queue that goes on under a fresh identity takes the next epoch and asks
//! nobody, so that one whose time is over never becomes the newest by asking; only when all are used
//! up does it ask for more, and goes on being told of by the first, which shuts out nothing of its own.
//!
//! An older broker knows a name by itself alone. Once one has said so, a named producer asks each
//! broker it sends to, over whichever connection: connections come and go, and one may lead elsewhere
//! when it is opened again. Asking again raises the epoch there, which shuts out whatever is under way
//! with the one before: so it asks again only when nothing of it is under way at that broker, and sends
//! nothing there meanwhile.

use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{InitProducer, NameScope};
use grus_protocol::{BrokerId, ErrorCode, ErrorDetail, ProducerEpoch, ProducerName};

use super::lane::Identity;
use crate::backoff::Backoff;
use crate::error::Refusal;
use crate::route::{Ask, LinkId};

/// Whom an identity is from: a broker, or any. A life of a name is from no broker: whoever leads the
/// shard of the names gives it.
pub(crate) type Source = Option<BrokerId>;

/// Who knows the producer by its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Whoever is sent to: it has no name.
    AsItComes,
    /// All brokers, by a life of its name.
    ByLife,
    /// Each broker for itself.
    ByBroker,
}

#[derive(Debug)]
struct Given {
    source: Source,
    ask: Ask,
    newest: Option<Newest>,
}

/// The newest identity and its number; numbers only grow. Those behind it, as many as it has epochs,
/// are of its further epochs.
#[derive(Debug, Clone, Copy)]
struct Newest {
    number: u64,
    identity: Identity,
    epochs: u32,
}

impl Newest {
    /// The identity of a number, if it is one of these.
    fn at(&self, number: u64) -> Option<Identity> {
        let further = u32::try_from(number.checked_sub(self.number)?).ok()?;
        let epoch = self.identity.epoch.0.checked_add(further)?;
        let identity = Identity { epoch: ProducerEpoch(epoch), ..self.identity };
        (further < self.epochs).then_some(identity)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Identities {
    known: Known,
    name: Option<ProducerName>,
    given: Vec<Given>,
    numbers: u64,
    /// The number behind those that lanes have had which are forgotten.
    unused: u64,
    /// The last number that a lane had.
    used: u64,
    /// The first that its life was given, by which it is told of.
    life: Option<Identity>,
    /// Who gives lives, as far as was told.
    home: Option<BrokerAddress>,
    /// Who gives lives was asked without a rest: two brokers, of which each says that the other one does, are
    /// not asked in turn so.
    has_hurried: bool,
    backoff: Backoff,
    last_refusal: Option<Refusal>,
}

impl Identities {
    pub(super) fn new(name: Option<ProducerName>, backoff: Backoff) -> Self {
        // One with a name shuts out its earlier life as soon as it can, not when it first has something
        // to send.
        let (known, ask) = match &name {
            Some(_) => (Known::ByLife, Ask::NotBefore(0)),
            None => (Known::AsItComes, Ask::Rest),
        };
        Self {
            known,
            name,
            given: vec![Given { source: None, ask, newest: None }],
            numbers: 0,
            unused: 0,
            used: 0,
            life: None,
            home: None,
            has_hurried: false,
            backoff,
            last_refusal: None,
        }
    }

    /// Whether each broker knows it by another identity.
    pub(super) fn is_by_broker(&self) -> bool {
        self.known == Known::ByBroker
    }

    /// Whether brokers must be told of its life before it sends to them.
    pub(super) fn is_by_life(&self) -> bool {
        self.known == Known::ByLife
    }

    /// Where the identity for a queue of this broker comes from.
    pub(super) fn source(&self, broker: BrokerId) -> Source {
        self.is_by_broker().then_some(broker)
    }

    fn at(&mut self, source: Source) -> &mut Given {
        let index = self.given.iter().position(|given| given.source == source);
        let index = index.unwrap_or_else(|| {
            self.given.push(Given { source, ask: Ask::Rest, newest: None });
            self.given.len() - 1
        });
        &mut self.given[index]
    }

    /// The newest identity, as whoever gave it knows it.
    pub(super) fn newest(&self, source: Source) -> Option<Identity> {
        let given = self.given.iter().find(|given| given.source == source)?;
        given.newest.map(|newest| newest.identity)
    }

    /// An identity that a lane which had number `had` last never had, and its number; none while another
    /// one is asked for that shuts it out.
    pub(super) fn above(&mut self, source: Source, had: u64) -> Option<(u64, Identity)> {
        let given = self.given.iter().find(|given| given.source == source)?;
        if self.is_by_broker() && given.ask != Ask::Rest {
            return None;
        }
        let newest = given.newest?;
        let number = newest.number.max(self.unused).max(had + 1);
        let identity = newest.at(number)?;
        self.used = self.used.max(number);
        Some((number, identity))
    }

    /// Another identity is needed.
    pub(super) fn want(&mut self, source: Source) {
        self.at(source).ask.want();
    }

    /// What a broker must be asked before anything is sent to it: for its own identity if there is none
    /// yet, or to be told of the life once there is one, if `is_new` to it.
    pub(super) fn want_at(&mut self, broker: BrokerId, is_new: bool) {
        let is_wanted = match self.known {
            Known::AsItComes => false,
            Known::ByLife => is_new && self.life.is_some(),
            Known::ByBroker => self.at(Some(broker)).newest.is_none(),
        };
        if is_wanted {
            self.want(Some(broker));
        }
    }

    /// Whom to ask now, and over which connection, if that matters. `way` leads to a broker.
    pub(super) fn poll(
        &mut self,
        now_ms: u64,
        way: impl Fn(BrokerId) -> Option<LinkId>,
    ) -> Option<(Source, Option<LinkId>)> {
        self.given.iter_mut().find_map(|given| {
            let over = match given.source {
                None => None,
                Some(broker) => Some(way(broker)?),
            };
            given.ask.poll(now_ms).then_some((given.source, over))
        })
    }

    /// What to ask, and whom, where that was told.
    pub(super) fn question(&self, source: Source) -> (InitProducer, Option<BrokerAddress>) {
        let name = self.name.clone();
        match (self.known, source, name, self.life) {
            (Known::ByLife, None, Some(name), _) => {
                (InitProducer::next_life(name), self.home.clone())
            }
            (Known::ByLife, Some(_), name, Some(Identity { producer, epoch })) => {
                let (scope, producer_id, producer_epoch) = (NameScope::Announce, producer, epoch);
                (InitProducer { name, scope, producer_id, producer_epoch }, None)
            }
            (_, _, name, _) => (InitProducer::of_the_broker(name), None),
        }
    }

    /// An answer came: an identity and how many epochs it has for itself, none where the broker knows it
    /// by itself. The refusal is given back when it is final.
    pub(super) fn answered(
        &mut self,
        source: Source,
        answer: Result<(Identity, u32), Refusal>,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        match answer {
            Ok((_, 0)) if self.is_by_life() && source.is_none() => {
                // An older broker. What it gave is of no use to others, nor asked of it here.
                self.known = Known::ByBroker;
                self.given.clear();
                self.backoff.succeeded();
                self.last_refusal = None;
                Ok(())
            }
            Ok((identity, epochs)) => {
                self.backoff.succeeded();
                self.last_refusal = None;
                let number = self.numbers + 1;
                self.numbers += u64::from(epochs.max(1));
                if self.is_by_life() && source.is_none() {
                    self.life = self.life.or(Some(identity));
                }
                let given = self.at(source);
                given.ask = Ask::Rest;
                given.newest = Some(Newest { number, identity, epochs: epochs.max(1) });
                Ok(())
            }
            // Asked for twice, it is given twice, which does no harm.
            Err(refusal) if refusal.retriable || refusal.code == ErrorCode::OutcomeUnknown => {
                let wait_ms = self.backoff.failed();
                let has_other_home = source.is_none() && self.is_told_home(&refusal);
                let hurries = has_other_home && !self.has_hurried;
                if source.is_none() {
                    self.has_hurried = hurries;
                }
                let wait_ms = if hurries { 0 } else { wait_ms };
                self.at(source).ask = Ask::NotBefore(now_ms + wait_ms);
                self.last_refusal = Some(refusal);
                Ok(())
            }
            Err(refusal) => {
                self.at(source).ask = Ask::Rest;
                Err(refusal)
            }
        }
    }

    /// Notes who gives lives, as the refusal says, or that nobody knows; whether that is another one.
    fn is_told_home(&mut self, refusal: &Refusal) -> bool {
        let told = match &refusal.detail {
            Some(ErrorDetail::Leader(address)) => Some(address.clone()),
            _ => None,
        };
        let is_new = told.is_some() && told != self.home;
        self.home = told;
        is_new
    }

    /// Why there is none yet, as the last broker said.
    pub(super) fn last_refusal(&self) -> Option<&Refusal> {
        self.last_refusal.as_ref()
    }

    /// Which sequences are taken is forgotten: no identity is used again. A life goes on, under epochs
    /// that nothing was sent by.
    pub(super) fn forget(&mut self) {
        self.unused = self.used + 1;
        if !self.is_by_life() {
            self.given.iter_mut().for_each(|given| given.newest = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::{ErrorReply, ProducerId};

    use super::*;

    const HOME: Source = None;

    fn identities(name: Option<&str>) -> Identities {
        let name = name.map(|name| ProducerName::try_from(name).unwrap());
        Identities::new(name, Backoff::new(20, 1_000, 1))
    }

    fn identity(epoch: u32) -> Identity {
        Identity { producer: ProducerId(7), epoch: ProducerEpoch(epoch) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for a look that may find none")]
    fn all(broker: BrokerId) -> Option<LinkId> {
        Some(LinkId(u32::try_from(broker.0).unwrap()))
    }

    #[test]
    fn where_brokers_know_names_by_themselves_each_is_asked_and_only_where_it_is_connected() {
        let mut named = identities(Some("billing"));
        assert_eq!(named.poll(0, |_| None), Some((HOME, None)));
        named.answered(HOME, Ok((identity(9), 0)), 0).unwrap();
        assert!(named.is_by_broker(), "an older broker has answered");
        let (one, two) = (Some(BrokerId(1)), Some(BrokerId(2)));
        let way = |broker: BrokerId| (broker == BrokerId(2)).then_some(LinkId(7));
        named.want_at(BrokerId(1), true);
        named.want_at(BrokerId(2), true);
        assert_eq!(named.poll(0, way), Some((two, Some(LinkId(7)))));
        assert_eq!(named.poll(0, way), None);
        assert_eq!(named.question(two).0.scope, NameScope::Broker);
        named.answered(two, Ok((identity(4), 0)), 0).unwrap();
        assert_eq!(named.above(two, 0), Some((1, identity(4))));
        assert_eq!(named.above(two, 1), None, "it had that one");
        assert_eq!(named.above(one, 0), None);
        named.want(two);
        assert_eq!(named.above(two, 0), None, "the old one is given to nobody any more");
        named.want_at(BrokerId(2), true);
        assert_eq!(named.poll(0, all), Some((one, Some(LinkId(1)))));
        assert_eq!(named.poll(0, all), Some((two, Some(LinkId(2)))));
    }

    #[test]
    fn a_life_is_asked_for_where_the_names_are_and_each_broker_is_told_of_its_first_epoch() {
        let mut named = identities(Some("billing"));
        named.want_at(BrokerId(2), true);
        assert_eq!(named.poll(0, all), Some((HOME, None)));
        assert_eq!(named.poll(0, all), None, "there is nothing to tell yet");
        assert_eq!(named.question(HOME).0.scope, NameScope::Life);
        let at = BrokerAddress { id: BrokerId(3), host: "h".into(), port: 1 };
        let told = ErrorReply::new(ErrorCode::NotLeader, "").with_detail(ErrorDetail::Leader(at));
        named.answered(HOME, Err(told.clone().into()), 0).unwrap();
        assert_eq!(named.poll(0, all), Some((HOME, None)), "another one is asked at once");
        assert_eq!(named.question(HOME).1.unwrap().id, BrokerId(3));
        named.answered(HOME, Err(told.into()), 0).unwrap();
        assert_eq!(named.poll(0, all), None, "the same one is not");
        assert_eq!(named.poll(1_000, all), Some((HOME, None)));
        named.answered(HOME, Ok((identity(512), 256)), 0).unwrap();

        let told_of = |named: &Identities| {
            let told = named.question(Some(BrokerId(2))).0;
            (told.scope, told.producer_id, told.producer_epoch)
        };
        named.want_at(BrokerId(2), false);
        assert_eq!(named.poll(0, all), None);
        named.want_at(BrokerId(2), true);
        assert_eq!(named.poll(0, all), Some((Some(BrokerId(2)), Some(LinkId(2)))));
        let first = (NameScope::Announce, ProducerId(7), ProducerEpoch(512));
        assert_eq!(told_of(&named), first);
        let (mut had, mut epochs) = (0, Vec::new());
        while let Some((number, identity)) = named.above(HOME, had) {
            had = number;
            epochs.push(identity.epoch.0);
        }
        assert_eq!(epochs, (512..768).collect::<Vec<_>>(), "all are its own");
        assert_eq!(named.above(HOME, 0).unwrap().1, identity(512), "of each queue");
        named.answered(HOME, Ok((identity(1_024), 256)), 0).unwrap();
        assert_eq!(named.above(HOME, had).unwrap().1, identity(1_024));
        assert_eq!(told_of(&named), first, "more would shut out what is under way");
        named.forget();
        assert_eq!(named.above(HOME, 0).unwrap().1, identity(1_025), "but none again");
    }

    #[test]
    fn two_that_each_say_the_other_one_gives_lives_are_not_asked_in_turn_without_a_rest() {
        let mut named = identities(Some("billing"));
        let told = |id| {
            let at = BrokerAddress { id: BrokerId(id), host: "h".into(), port: 1 };
            ErrorReply::new(ErrorCode::NotLeader, "").with_detail(ErrorDetail::Leader(at))
        };
        assert_eq!(named.poll(0, all), Some((HOME, None)));
        let (mut now_ms, mut asked) = (0, 0);
        while now_ms < 10_000 {
            named.answered(HOME, Err(told(1 + asked % 2).into()), now_ms).unwrap();
            asked += 1;
            while named.poll(now_ms, all).is_none() {
                now_ms += 1;
            }
        }
        assert!((10..60).contains(&asked), "{asked} times in ten seconds");
        assert_eq!(named.question(HOME).1.unwrap().id, BrokerId(1 + (asked - 1) % 2));
    }

    #[test]
    fn a_refusal_is_waited_out_and_kept_for_those_who_time_out() {
        let mut any = identities(None);
        any.want(None);
        assert_eq!(any.poll(0, |_| None), Some((None, None)));
        let full = Refusal::from(ErrorReply::new(ErrorCode::StorageFull, "disk is full"));
        any.answered(None, Err(full.clone()), 0).unwrap();
        assert_eq!(any.last_refusal(), Some(&full));
        assert_eq!(any.poll(1, |_| None), None);
        assert_eq!(any.poll(1_000, |_| None), Some((None, None)));
        let open = Refusal::from(ErrorReply::new(ErrorCode::OutcomeUnknown, "a leader fell"));
        any.answered(None, Err(open), 1_000).unwrap();
        assert_eq!(any.poll(2_000, |_| None), Some((None, None)));
        let fatal = Refusal::from(ErrorReply::new(ErrorCode::Unauthorized, ""));
        assert!(any.answered(None, Err(fatal), 0).is_err());
    }
}
