//! What a shard's consensus is told of its group when it starts.

use grus_consensus::{NoPeers, NodeId, Timings};

/// Who else is in a shard's group, and the way to them.
#[derive(Debug)]
pub struct Membership<P> {
    /// The founding voters with their addresses. Empty when this member waits to be added to a
    /// group that exists.
    pub founders: Vec<(NodeId, String)>,
    /// Whether the group is known to have had other members since it was founded: see
    /// [`grus_consensus::GroupConfig::has_others`].
    pub has_others: bool,
    /// Whether this member has noted before that it takes part: see [`grus_consensus::GroupConfig::has_begun`].
    pub has_begun: bool,
    /// Who may have come to the group unheard of: see [`grus_consensus::GroupConfig::others`].
    pub others: Vec<NodeId>,
    /// The way to the others.
    pub peers: P,
    /// Timings of elections.
    pub timings: Timings,
}

impl Membership<NoPeers> {
    /// A group of one.
    pub(super) fn alone(node: NodeId) -> Self {
        let founders = vec![(node, String::new())];
        Self {
            founders,
            has_others: false,
            has_begun: false,
            others: Vec::new(),
            peers: NoPeers,
            timings: Timings::ALONE,
        }
    }
}

impl<P> Membership<P> {
    pub(super) fn is_alone(&self, node: NodeId) -> bool {
        matches!(&self.founders[..], [(founder, _)] if *founder == node)
    }
}
