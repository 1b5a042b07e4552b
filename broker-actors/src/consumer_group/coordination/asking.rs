//! Dividing by a function of the members' own program: one of them is asked, and its answer is the target
//! for as long as the field is the one that it was asked about.
//!
//! A member that does not answer in time, has no such function or answers what cannot be is passed by; the
//! one that answered last is asked first, those that were silent last. A field that changes while a member
//! is asked is another question, and no more time for the same member. Where nobody has a usable answer the queues are divided as by the
//! sticky strategy: a group whose programs fail works on.

use std::collections::BTreeSet;

use grus_protocol::ids::{MemberId, QueueKey};
use grus_protocol::message::{AssignTopic, DivideMember, DivideQueues, DivideTopic};
use thiserror::Error;

use super::super::field::Field;
use super::super::strategy::{Target, by_sticky};
use super::{Coordination, News, NoMember};

/// How long one member is waited for.
const ANSWER_MS_MAX: u64 = 3_000;
/// So many members are asked.
const ASKED_MAX: usize = 3;

/// A question that is not answered yet.
#[derive(Debug)]
struct Question {
    number: u64,
    field: Field,
    asked: MemberId,
    /// It has been told.
    is_told: bool,
    until_ms: u64,
    tried: BTreeSet<MemberId>,
}

/// What is asked and answered.
#[derive(Debug, Default)]
pub(super) struct OwnStrategy {
    question: Option<Question>,
    /// The field that was divided last, and how.
    answer: Option<(Field, Target)>,
    /// Who had a usable answer last.
    answered: Option<MemberId>,
    /// Who was asked and has not said anything since, and how long that is waited for.
    waited_for: Option<(MemberId, u64)>,
    /// Members that did not answer in time, and have not since.
    silent: BTreeSet<MemberId>,
    asked: u64,
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnswerRefusal {
    /// Who answers is no member.
    #[error("no member of the group: join it again")]
    NoMember,
    /// It does not divide what was asked.
    #[error("not each queue of the question has a member that subscribes to its topic")]
    Unusable,
}

impl Coordination {
    /// How the field is divided by the members' own function; none: one of them is being asked, and the
    /// rebalance waits for its answer.
    pub(super) fn own_division(&mut self, field: &Field, now_ms: u64) -> Option<Target> {
        if let Some((known, target)) = &self.own.answer
            && known == field
        {
            return Some(target.clone());
        }
        if self.own.question.as_ref().is_some_and(|question| question.field == *field) {
            return None;
        }
        self.ask_next(field.clone(), BTreeSet::new(), now_ms)
    }

    /// Asks the next member; the division, where nobody is left to be asked.
    fn ask_next(&mut self, field: Field, tried: BTreeSet<MemberId>, now_ms: u64) -> Option<Target> {
        let members = self.book.members();
        self.own.silent.retain(|member| members.contains_key(member));
        let silent = &self.own.silent;
        let last = self.own.answered.filter(|member| members.contains_key(member));
        let heard = members.keys().filter(|member| !silent.contains(member));
        let mut candidates = last.into_iter().chain(heard.chain(silent).copied());
        let next = candidates.find(|member| !tried.contains(member) && !self.is_leaving(*member));
        let Some(asked) = next.filter(|_| tried.len() < ASKED_MAX && !field.is_empty()) else {
            let owner = |queue| self.book.grants().get(&queue).map(|grant| grant.member);
            let target = by_sticky(&field, owner);
            self.own.question = None;
            if !field.is_empty() {
                self.news.push(News::DividedWithoutAnswer);
            }
            self.own.answer = Some((field, target.clone()));
            return Some(target);
        };
        self.own.asked += 1;
        let waited_for = self.own.waited_for.filter(|(member, _)| *member == asked);
        let until_ms = waited_for.map_or(now_ms + ANSWER_MS_MAX, |(_, until_ms)| until_ms);
        self.own.waited_for = Some((asked, until_ms));
        let (number, is_told) = (self.own.asked, false);
        self.own.question = Some(Question { number, field, asked, is_told, until_ms, tried });
        self.news.push(News::Changed(asked));
        None
    }

    /// Whether a member has a question to answer that it was not told.
    pub(super) fn is_to_be_asked(&self, member: MemberId) -> bool {
        let question = self.own.question.as_ref();
        question.is_some_and(|question| question.asked == member && !question.is_told)
    }

    /// The question for a member, once.
    pub(super) fn question_for(&mut self, member: MemberId) -> Option<DivideQueues> {
        if !self.is_to_be_asked(member) {
            return None;
        }
        let question = self.own.question.as_mut()?;
        question.is_told = true;
        let question = &*question;
        let described = |(member, record): (&MemberId, &super::super::records::MemberRecord)| {
            let (client_id, instance) = (record.client_id.clone(), record.instance.clone());
            DivideMember { member: *member, client_id, instance }
        };
        let owner = |topic, queue| {
            let grant = self.book.grants().get(&QueueKey { topic, queue });
            grant.map_or(MemberId::NONE, |grant| grant.member)
        };
        let topics = question.field.topics().map(|topic| DivideTopic {
            topic: topic.name.clone(),
            topic_id: topic.id,
            queues: topic.queues.clone(),
            owners: topic.queues.iter().map(|queue| owner(topic.id, *queue)).collect(),
            members: topic.members.clone(),
        });
        Some(DivideQueues {
            question: question.number,
            members: self.book.members().iter().map(described).collect(),
            topics: topics.collect(),
        })
    }

    /// A member has answered a question; `None`: it has no function for that.
    ///
    /// # Errors
    /// See [`AnswerRefusal`]. Another member is asked then.
    pub fn answered(
        &mut self,
        member: MemberId,
        number: u64,
        topics: Option<&[AssignTopic]>,
        now_ms: u64,
    ) -> Result<(), AnswerRefusal> {
        if !self.book.members().contains_key(&member) {
            return Err(AnswerRefusal::NoMember);
        }
        self.is_heard_of(member, now_ms);
        let is_it = |question: &mut Question| question.number == number && question.asked == member;
        let Some(question) = self.own.question.take_if(is_it) else {
            return Ok(()); // it is over
        };
        let target = topics.map(|topics| target_of(&question.field, topics));
        if let Some(Some(target)) = target {
            self.own.answered = Some(member);
            self.own.answer = Some((question.field, target));
            self.rebalance_at_ms = Some(now_ms);
            return Ok(());
        }
        self.pass_by(question, now_ms);
        if target.is_some() { Err(AnswerRefusal::Unusable) } else { Ok(()) }
    }

    /// A member has said something, be it to a question that is over: it is given time anew.
    fn is_heard_of(&mut self, member: MemberId, now_ms: u64) {
        self.own.silent.remove(&member);
        if self.own.waited_for.take_if(|(asked, _)| *asked == member).is_some()
            && let Some(question) = self.own.question.as_mut().filter(|one| one.asked == member)
        {
            question.until_ms = now_ms + ANSWER_MS_MAX;
            self.own.waited_for = Some((member, question.until_ms));
        }
    }

    /// Nothing is to be heard of who was asked: another one is, or nobody.
    fn pass_by(&mut self, question: Question, now_ms: u64) {
        let Question { field, asked, mut tried, .. } = question;
        tried.insert(asked);
        if self.ask_next(field, tried, now_ms).is_some() {
            self.rebalance_at_ms = Some(now_ms);
        }
    }

    /// Time has passed for a question; or whoever was asked is gone.
    pub(super) fn look_at_question(&mut self, now_ms: u64) {
        let members = self.book.members();
        let is_over = |question: &mut Question| {
            question.until_ms <= now_ms || !members.contains_key(&question.asked)
        };
        if let Some(question) = self.own.question.take_if(is_over) {
            self.own.silent.insert(question.asked);
            self.own.waited_for = None;
            self.pass_by(question, now_ms);
        }
    }

    /// When a question is over.
    pub(super) fn question_ends_ms(&self) -> Option<u64> {
        self.own.question.as_ref().map(|question| question.until_ms)
    }
}

impl From<NoMember> for AnswerRefusal {
    fn from(_: NoMember) -> Self {
        Self::NoMember
    }
}

/// What a member has answered, as a target; none when it does not divide the field.
fn target_of(field: &Field, answer: &[AssignTopic]) -> Option<Target> {
    let mut target = Target::new();
    for topic in field.topics() {
        let of_it = answer.iter().find(|one| one.topic_id == topic.id)?;
        if of_it.members.len() != topic.queues.len() {
            return None;
        }
        for (queue, member) in topic.queues.iter().zip(&of_it.members) {
            topic.members.binary_search(member).ok()?;
            target.insert(QueueKey { topic: topic.id, queue: *queue }, *member);
        }
    }
    Some(target)
}
