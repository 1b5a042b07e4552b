//! What may become a topic. Pure.

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::message::{CreateTopic, TopicKind, TopicSettings};

/// What decides about topics that nobody made by hand.
#[derive(Debug, Clone)]
pub struct TopicPolicy {
    /// Whether the first use of a topic makes it.
    pub auto_create: bool,
    /// How it is made then.
    pub settings: TopicSettings,
    /// Most queues of a topic.
    pub queues_max: u32,
}

impl TopicPolicy {
    /// Whether a topic may be made as asked for.
    ///
    /// # Errors
    /// What to answer.
    pub fn check(&self, ask: &CreateTopic) -> Result<(), ErrorReply> {
        if ask.name.is_system() {
            let text = format!("{} is a system name", ask.name);
            return Err(ErrorReply::new(ErrorCode::InvalidName, text));
        }
        if ask.settings.kind == TopicKind::DeadLetter {
            let text = "dead letters belong to a group: join it, and they have a topic";
            return Err(ErrorReply::new(ErrorCode::InvalidSettings, text));
        }
        if ask.settings.queues > self.queues_max {
            return Err(self.too_many_queues());
        }
        Ok(())
    }

    /// What to answer to whoever wants too many queues.
    #[must_use]
    pub fn too_many_queues(&self) -> ErrorReply {
        let text = format!("a topic has at most {} queues", self.queues_max);
        ErrorReply::new(ErrorCode::InvalidSettings, text)
    }
}
