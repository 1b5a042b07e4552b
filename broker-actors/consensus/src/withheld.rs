//! Who gets nothing of a log that is damaged. openraft begins to read for every member as soon as this one leads,
//! before anybody can look whether that can be read, and an entry that cannot ends this replica. A voter is needed,
//! whatever it lacks; a learner is part of no majority: it waits until it has said that it has all that is damaged
//! here, or until another one leads.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use crate::types::NodeId;

/// Up to which entry this log is damaged, where that member is a learner.
type DamageFor = Box<dyn Fn(NodeId) -> Option<u64>>;

/// See the module documentation.
#[derive(Default)]
pub(crate) struct Withheld {
    /// Not known before openraft has started; nobody is spoken to before that.
    damage_for: OnceCell<DamageFor>,
    /// Up to which entry each has the log on disk, as it has said last.
    has: RefCell<BTreeMap<NodeId, Option<u64>>>,
}

impl Withheld {
    /// From here on this says who is in question. Once.
    pub(crate) fn judge_by(&self, damage_for: impl Fn(NodeId) -> Option<u64> + 'static) {
        let _ = self.damage_for.set(Box::new(damage_for));
    }

    /// A member has said up to which entry it has the log on disk.
    pub(crate) fn said(&self, node: NodeId, durable: Option<u64>) {
        self.has.borrow_mut().insert(node, durable);
    }

    /// Whether nothing may be read for that member.
    pub(crate) fn is_from(&self, node: NodeId) -> bool {
        let damage = self.damage_for.get().and_then(|damage_for| damage_for(node));
        damage.is_some_and(|end| self.has.borrow().get(&node).copied().flatten() < Some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_gets_nothing_of_a_damaged_log_before_it_has_what_is_damaged() {
        let withheld = Withheld::default();
        assert!(!withheld.is_from(4), "nothing is known");
        withheld.judge_by(|node| (node == 4).then_some(50));
        assert!(withheld.is_from(4) && !withheld.is_from(2), "a voter gets what there is");
        for (durable, expected) in [(Some(49), true), (Some(50), false), (None, true)] {
            withheld.said(4, durable);
            assert_eq!(withheld.is_from(4), expected, "it has {durable:?}");
        }
    }
}
