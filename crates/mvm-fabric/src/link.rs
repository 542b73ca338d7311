//! Ports, the VLANs they belong to, the directions between them, and how a set of directions is named.
//!
//! What is done to a direction is in `links`.

use std::sync::Arc;

/// One port of a switch or node of a simulated network, valid for the one that handed it out and those
/// restored from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub(crate) u32);

impl Port {
    /// The position of the port in its switch, counted from zero in the order of attaching.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a port-based VLAN: frames pass only between ports of one number, as if each were a switch of its own.
///
/// Ports are untagged members (IEEE 802.1Q, 3.2): the number is never seen in a frame.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Vlan(pub u16);

impl Vlan {
    /// What ports belong to for which nothing is said.
    pub const DEFAULT: Vlan = Vlan(1);
}

/// One direction of a pair of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The ingress port, where frames come from.
    pub from: Port,
    /// The egress port, where frames go.
    pub to: Port,
}

impl Link {
    /// The other direction of the same pair.
    pub fn reverse(self) -> Link {
        Link {
            from: self.to,
            to: self.from,
        }
    }
}

/// Which directions an impairment is for.
///
/// Where several scopes with an impairment name a direction, the most specific one counts, and it counts as
/// a whole: link, then from, then to, then all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every direction, of ports added later, too.
    All,
    /// Every direction that begins at a port.
    From(Port),
    /// Every direction that ends at a port.
    To(Port),
    /// One direction.
    Link(Link),
}

impl Scope {
    /// Tells whether the scope names a direction.
    pub fn contains(self, link: Link) -> bool {
        match self {
            Scope::All => true,
            Scope::From(port) => link.from == port,
            Scope::To(port) => link.to == port,
            Scope::Link(one) => link == one,
        }
    }
}

/// A port could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddPortError {
    /// Another port has the name.
    #[error("the name {name:?} is taken by another port")]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The segment is full.
    #[error("all {ports_max} ports are in use")]
    TooManyPorts {
        /// The bound from [`Limits`](crate::Limits).
        ports_max: usize,
    },
}

/// Links could not be changed; nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The port belongs to another switch.
    #[error("port number {} is not of this switch, which has {ports}", port.index())]
    UnknownPort {
        /// The port given.
        port: Port,
        /// How many ports there are.
        ports: usize,
    },
    /// Both ends of a link are the same port.
    #[error("{name:?} has no link to itself")]
    SamePort {
        /// The name of the port.
        name: Arc<str>,
    },
    /// A port is in two groups of a partition, or twice in one.
    #[error("{name:?} is named twice in the partition")]
    NamedTwice {
        /// The name of the port.
        name: Arc<str>,
    },
    /// The bridge of a partition is not among the nodes to be parted.
    #[error("{name:?} is to be the bridge and is not among the nodes of the partition")]
    BridgeElsewhere {
        /// The name of the port.
        name: Arc<str>,
    },
    /// The partition makes no sense with so few nodes.
    #[error("{nodes} nodes are too few for this partition, which takes {nodes_min}")]
    TooFewNodes {
        /// How many nodes are named.
        nodes: usize,
        /// How many it takes.
        nodes_min: usize,
    },
}
