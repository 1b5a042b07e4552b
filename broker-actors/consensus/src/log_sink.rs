//! The index of a log, as the machine that applies its entries sees it.

use std::cell::RefCell;
use std::rc::Rc;

use grus_log::{Disk, Log, Run};
use grus_protocol::ids::TopicId;

use crate::machine::IndexSink;

/// The index of the log, as the machine sees it.
pub(crate) struct LogSink<'a, D: Disk>(pub(crate) &'a Rc<RefCell<Log<D>>>);

impl<D: Disk> IndexSink for LogSink<'_, D> {
    fn add(&mut self, run: Run) {
        self.0.borrow_mut().index_add(run);
    }

    fn drop_topic(&mut self, topic: TopicId) {
        self.0.borrow_mut().index_drop(topic);
    }
}
