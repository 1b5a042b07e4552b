//! What a subscription is sent over, as a queue sees it.

use grus_mailbox::Port;
use grus_protocol::error::ErrorReply;

use super::sifting::Marks;
use super::{Fetched, FetchedBatch};

/// The receiving end of one subscription. Dropped without a word, as by the panic of its queue, it
/// tells the subscriber to come again.
pub trait Subscriber: Send {
    /// Asks for a turn: room in the subscriber's output for one frame. A dropped port means that
    /// there is none for now.
    fn ask_turn(&self, turn: Port<PushTurn>);
    /// As many of the batches, from the first on, as the subscriber can read. Those whose time to live
    /// is over are left without bytes, but for those that are `in_hands`.
    ///
    /// # Errors
    /// When it cannot read the first one.
    fn readable(
        &self,
        fetched: Fetched,
        in_hands: &dyn Fn(&FetchedBatch) -> bool,
    ) -> Result<Fetched, ErrorReply>;
    /// Sends batches; uses the turn up.
    fn deliver(&self, fetched: Fetched, turn: PushTurn);
    /// Sends batches to a member of a group, with what of them is for it; uses the turn up.
    fn deliver_group(&self, fetched: Fetched, marks: Marks, turn: PushTurn);
    /// Tells the subscriber that its subscription is over.
    fn end(self: Box<Self>, error: ErrorReply);
    /// Lets go without a word: the subscriber has ended it itself.
    fn dismiss(self: Box<Self>);
    /// Whether nobody is there any more.
    fn is_gone(&self) -> bool;
}

/// Room in a subscriber's output for one frame, until it is dropped.
#[derive(Debug)]
pub struct PushTurn {
    _over: Port<()>,
}

impl PushTurn {
    /// A turn; `over` is called when it is used up or given back.
    pub fn new(over: impl FnOnce() + Send + 'static) -> Self {
        Self { _over: Port::call(move |_| over()) }
    }
}
