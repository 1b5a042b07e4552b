//! Whether this member may vote, stand, and take a leader's entries.
//!
//! Two rules, both about what a restart forgets:
//! * A member withholds its vote, and does not stand, for one election timeout after its start:
//!   before it stopped it may have granted a leader a lease that still runs.
//! * A member of a `replicated` shard that lost its kernel's memory (an *amnesiac*) may have
//!   acknowledged entries it no longer has. It neither votes nor stands, and takes entries from a
//!   leader only after that leader has agreed that its log went back. It is sound again once its
//!   durable log has reached a read index taken after that. When every voter is such a member,
//!   there is nobody left who remembers more: they elect normally.
//!
//! A member that lost its log as a whole (a *blank* one) has forgotten its votes, too. It asks to be taken
//! back only by a leader that a majority of the others has just confirmed: one that leads by a vote it
//! does not remember may otherwise lead beside the one it follows. For the same reason it votes with
//! others that lost their kernel only when all of them are blank.

use std::time::Duration;

use crate::types::RaftVote;

/// What a member remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everything it ever acknowledged.
    Sound,
    /// Perhaps less than it acknowledged.
    Amnesiac,
    /// Perhaps less, but so do all other voters: it votes again.
    Reunited,
}

impl Standing {
    pub(crate) fn code(self) -> u8 {
        match self {
            Standing::Sound => 0,
            Standing::Amnesiac => 1,
            Standing::Reunited => 2,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Standing::Sound),
            1 => Some(Standing::Amnesiac),
            2 => Some(Standing::Reunited),
            _ => None,
        }
    }
}

/// The state behind the two rules. Times are since the start of the group.
#[derive(Debug)]
pub(crate) struct Ballot {
    hold: Duration,
    standing: Standing,
    /// It has forgotten its votes, too, and nobody has taken it back yet.
    is_blank: bool,
    rejoined: Option<RaftVote>,
    sound_at: Option<u64>,
}

impl Ballot {
    /// `hold` is one election timeout, 0 for the only voter of its group.
    pub(crate) fn new(hold: Duration, amnesiac: bool) -> Self {
        let standing = if amnesiac { Standing::Amnesiac } else { Standing::Sound };
        Self { hold, standing, is_blank: false, rejoined: None, sound_at: None }
    }

    /// Of a member whose log, which had been written, is empty.
    pub(crate) fn blank(hold: Duration) -> Self {
        Self { is_blank: true, ..Self::new(hold, true) }
    }

    /// Whether it has forgotten its votes, too.
    pub(crate) fn is_blank(&self) -> bool {
        self.is_blank
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether a vote may be given, or asked for, `since_start` after the start.
    pub(crate) fn may_vote(&self, since_start: Duration) -> bool {
        self.votes_in(since_start) == Some(Duration::ZERO)
    }

    /// How long a vote is still withheld, `since_start` after the start. Of an amnesiac nobody knows.
    pub(crate) fn votes_in(&self, since_start: Duration) -> Option<Duration> {
        let sane = self.standing != Standing::Amnesiac;
        sane.then(|| self.hold.saturating_sub(since_start))
    }

    /// Whether entries of the leader with this vote may be taken.
    pub(crate) fn may_follow(&self, leader: &RaftVote) -> bool {
        self.standing != Standing::Amnesiac || self.rejoined.as_ref() == Some(leader)
    }

    /// The leader with this vote has agreed that our log went back.
    pub(crate) fn rejoined(&mut self, leader: RaftVote) {
        self.rejoined = Some(leader);
        self.sound_at = None;
    }

    /// Something of the leader with this vote has been taken: our vote, on disk, is that one's from here on. Not
    /// before: until then an older leader would find us without any vote.
    pub(crate) fn followed(&mut self, leader: &RaftVote) {
        if self.rejoined.as_ref() == Some(leader) {
            self.is_blank = false;
        }
    }

    /// The only voter of its group: there is nobody it could have promised anything.
    pub(crate) fn alone(&mut self) {
        self.hold = Duration::ZERO;
        self.standing = Standing::Sound;
    }

    /// Whether a read index is still to be asked for.
    pub(crate) fn wants_read_index(&self) -> bool {
        let follows = match self.standing {
            Standing::Sound => false,
            Standing::Amnesiac => self.rejoined.is_some(),
            Standing::Reunited => true,
        };
        follows && self.sound_at.is_none()
    }

    /// A read index taken by the leader after we rejoined, or after all voters elected it.
    pub(crate) fn read_index(&mut self, leader: &RaftVote, index: u64) {
        if self.standing == Standing::Reunited || self.rejoined.as_ref() == Some(leader) {
            self.sound_at = Some(index);
        }
    }

    /// The log is durable up to `durable`. True when this makes the member sound.
    pub(crate) fn durable(&mut self, durable: Option<u64>) -> bool {
        if self.standing == Standing::Sound || self.sound_at.is_none() || durable < self.sound_at {
            return false;
        }
        self.standing = Standing::Sound;
        true
    }

    /// All voters have been asked. True when this lets an amnesiac vote again.
    pub(crate) fn voters(&mut self, answers: impl IntoIterator<Item = Option<Standing>>) -> bool {
        let all_lost = answers
            .into_iter()
            .all(|answer| matches!(answer, Some(Standing::Amnesiac | Standing::Reunited)));
        if self.standing != Standing::Amnesiac || !all_lost {
            return false;
        }
        self.standing = Standing::Reunited;
        true
    }

    /// The operator accepts the loss: a voter that is missing for good held no more than we do.
    pub(crate) fn accept_loss(&mut self) {
        if self.standing == Standing::Amnesiac {
            self.standing = Standing::Reunited;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;

    const HOLD: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(2);

    fn vote(term: u64) -> RaftVote {
        RaftVote { leader_id: LeaderId { term, voted_for: 1 }, committed: true }
    }

    #[test]
    fn no_vote_before_one_election_timeout_has_passed() {
        let ballot = Ballot::new(HOLD, false);
        assert!(!ballot.may_vote(Duration::from_millis(999)));
        assert!(ballot.may_vote(HOLD));
        assert!(Ballot::new(Duration::ZERO, false).may_vote(Duration::ZERO));
    }

    #[test]
    fn an_amnesiac_follows_only_the_leader_it_rejoined_and_votes_when_it_has_caught_up() {
        let mut ballot = Ballot::new(HOLD, true);
        assert!(!ballot.may_vote(LATER) && !ballot.may_follow(&vote(3)));
        ballot.rejoined(vote(3));
        assert!(ballot.may_follow(&vote(3)) && !ballot.may_follow(&vote(4)));
        assert!(!ballot.durable(Some(100)), "no read index yet");
        assert!(ballot.wants_read_index());
        ballot.read_index(&vote(3), 50);
        assert!(!ballot.durable(Some(49)) && !ballot.may_vote(LATER));
        assert!(ballot.durable(Some(50)) && ballot.may_vote(LATER));
        assert_eq!(ballot.standing(), Standing::Sound);
    }

    #[test]
    fn a_new_leader_needs_a_new_rejoin_and_an_old_read_index_does_not_count() {
        let mut ballot = Ballot::new(HOLD, true);
        ballot.rejoined(vote(3));
        ballot.rejoined(vote(4));
        ballot.read_index(&vote(3), 1);
        assert!(!ballot.durable(Some(9)));
    }

    #[test]
    fn amnesiacs_elect_only_when_every_voter_is_one() {
        let mut ballot = Ballot::new(HOLD, true);
        assert!(!ballot.voters([Some(Standing::Amnesiac), None]), "one voter is not reachable");
        assert!(!ballot.voters([Some(Standing::Amnesiac), Some(Standing::Sound)]));
        assert!(!ballot.may_vote(LATER));
        assert!(ballot.voters([Some(Standing::Amnesiac), Some(Standing::Reunited)]));
        assert!(ballot.may_vote(LATER) && ballot.may_follow(&vote(9)));
        assert!(ballot.wants_read_index());
        ballot.read_index(&vote(9), 7);
        assert!(!ballot.durable(Some(6)) && ballot.durable(Some(7)));
        assert_eq!(ballot.standing(), Standing::Sound);
    }

    #[test]
    fn a_blank_member_is_one_until_it_has_followed_a_leader_that_has_taken_it_back() {
        let mut ballot = Ballot::blank(HOLD);
        assert_eq!((ballot.standing(), ballot.is_blank()), (Standing::Amnesiac, true));
        assert!(!ballot.may_vote(LATER) && !ballot.may_follow(&vote(3)));
        ballot.rejoined(vote(3));
        assert!(ballot.is_blank() && ballot.may_follow(&vote(3)) && !ballot.may_vote(LATER));
        // Before that one has sent anything, another one turns up, perhaps an older one: it needs its majority, too.
        ballot.rejoined(vote(2));
        ballot.followed(&vote(3));
        assert!(ballot.is_blank());
        ballot.followed(&vote(2));
        assert!(!ballot.is_blank() && !ballot.may_vote(LATER));
    }
}
