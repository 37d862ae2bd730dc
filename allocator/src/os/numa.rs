//! Which memory node a thread runs on.
//!
//! On a machine of one node no call is made: every answer is node 0.

use super::syscall;

/// Nodes told apart; threads on higher ones share the last.
pub(crate) const MAX_NODES: usize = 8;

/// The nodes of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topology {
    /// The highest number and 1, or 1 where there is one node.
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

    /// Reads /sys/devices/system/node/online once: firmware may call many more nodes possible.
    pub(crate) fn discover() -> Self {
        let mut buffer = [0u8; 64];
        match syscall::read_file(c"/sys/devices/system/node/online", &mut buffer) {
            Some(text) => Self::of_list(text, syscall::current_node),
            None => Self::single(),
        }
    }

    /// The machine with the nodes of a list such as `0-1,4`. Its numbers need not begin at 0: a machine
    /// whose only node is node 1 has one node.
    fn of_list(text: &[u8], current: fn() -> u32) -> Self {
        if text.iter().any(|byte| matches!(byte, b'-' | b',')) {
            Topology { nodes: highest_node(text).saturating_add(1), current }
        } else {
            Self::single()
        }
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
    fn only_a_list_of_more_than_one_node_makes_many() {
        let nodes = |text: &[u8]| Topology::of_list(text, || 4).nodes;
        assert_eq!([&b"0\n"[..], b"1\n", b"7", b"\n", b""].map(nodes), [1; 5]);
        assert_eq!([&b"0-1\n"[..], b"0,4", b"2-3,7\n"].map(nodes), [2, 5, 8]);
        assert_eq!(Topology::of_list(b"1\n", || 1).current(), 0);
        assert_eq!(Topology::of_list(b"0,4\n", || 4).current(), 4);
    }

    #[test]
    fn a_single_node_is_never_asked_for() {
        let topology = Topology::fake(1, || unreachable!("no call on one node"));
        assert_eq!(topology.current(), 0);
        assert!(!topology.many());
    }
}
