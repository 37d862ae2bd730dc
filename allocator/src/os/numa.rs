//! Which memory node a thread runs on.
//!
//! On a machine of one node no call is made: every answer is node 0.

use super::syscall;

/// Nodes told apart; threads on higher ones share the last.
pub(crate) const MAX_NODES: usize = 8;

/// The nodes of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topology {
    nodes: u32,
    current: fn() -> u32,
}

impl Topology {
    /// A machine of one node.
    pub(crate) const fn single() -> Self {
        Topology { nodes: 1, current: || 0 }
    }

    /// A made-up machine: `nodes` nodes, where `current` tells a thread its own.
    #[cfg(test)]
    pub(crate) const fn fake(nodes: u32, current: fn() -> u32) -> Self {
        Topology { nodes, current }
    }

    /// Reads /sys/devices/system/node/possible once.
    pub(crate) fn discover() -> Self {
        let mut buffer = [0u8; 64];
        let Some(text) = syscall::read_file(c"/sys/devices/system/node/possible", &mut buffer)
        else {
            return Self::single();
        };
        Topology { nodes: highest_node(text) + 1, current: syscall::current_node }
    }

    /// The node of the calling thread, below [`MAX_NODES`].
    pub(crate) fn current(&self) -> u32 {
        if self.nodes <= 1 { 0 } else { (self.current)().min(MAX_NODES as u32 - 1) }
    }

    /// Whether memory need be bound to nodes at all.
    pub(crate) fn many(&self) -> bool {
        self.nodes > 1
    }
}

/// The largest number in a list such as `0-1,4`.
fn highest_node(text: &[u8]) -> u32 {
    text.split(|byte| !byte.is_ascii_digit())
        .map(|digits| {
            digits.iter().fold(0u32, |n, &digit| {
                n.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
            })
        })
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_node_of_a_list_is_found() {
        assert_eq!(highest_node(b"0\n"), 0);
        assert_eq!(highest_node(b"0-3\n"), 3);
        assert_eq!(highest_node(b"0,2-11,5"), 11);
        assert_eq!(highest_node(b""), 0);
    }

    #[test]
    fn a_single_node_is_never_asked_for() {
        let topology = Topology::fake(1, || unreachable!("no call on one node"));
        assert_eq!(topology.current(), 0);
        assert!(!topology.many());
    }
}
