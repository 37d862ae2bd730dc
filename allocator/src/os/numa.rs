//! Which memory node a thread runs on.
//!
//! On a machine of one node no call is made: every answer is node 0.
//!
//! Where there are more nodes than are told apart, those from the last number on share it. Its memory is bound
//! to none of them: each page comes from the node of the thread that touches it first.

use super::syscall;
use crate::sync::{AtomicBool, Ordering};

/// Numbers of nodes told apart; nodes from the last on share that.
pub(crate) const MAX_NODES: usize = 8;
const LAST: u32 = MAX_NODES as u32 - 1;

/// Whether this machine has nodes above [`LAST`].
static LAST_IS_SHARED: AtomicBool = AtomicBool::new(false);

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
        let topology = match syscall::read_file(c"/sys/devices/system/node/online", &mut buffer) {
            Some(text) => Self::of_list(text, syscall::current_node),
            None => Self::single(),
        };
        LAST_IS_SHARED.store(topology.shares_last(), Ordering::Relaxed);
        topology
    }

    /// Whether the last number that is told apart stands for more nodes than one.
    const fn shares_last(&self) -> bool {
        self.nodes as usize > MAX_NODES
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
        if self.nodes <= 1 { 0 } else { (self.current)().min(LAST) }
    }

    /// Whether memory need be bound to nodes at all.
    pub(crate) fn many(&self) -> bool {
        self.nodes > 1
    }
}

/// The node that the kernel is to take memory of number `node` from, as a bit; `None` where more than one node
/// has that number.
pub(super) fn mask_of(node: u32) -> Option<u64> {
    mask(node, LAST_IS_SHARED.load(Ordering::Relaxed))
}

/// As [`mask_of`], where that is known.
const fn mask(node: u32, last_is_shared: bool) -> Option<u64> {
    if node > LAST || node == LAST && last_is_shared { None } else { Some(1 << node) }
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
    use std::borrow::ToOwned;
    use std::println;
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::os::{Kernel, Linux};

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
    fn memory_of_nodes_that_share_a_number_is_bound_to_none_of_them() {
        let machine = |nodes| Topology::fake(nodes, || 9);
        for nodes in [1, 2, 7, 8] {
            assert!(!machine(nodes).shares_last(), "{nodes} nodes: each has its number");
        }
        assert!(machine(9).shares_last() && machine(64).shares_last());
        assert!(Topology::of_list(b"0-3,8\n", || 8).shares_last(), "nodes 7 and 8");
        // A thread on node 9 gets a number that there is, and memory that is not bound to another node.
        let number = machine(12).current();
        assert!((number as usize) < MAX_NODES && mask(number, true).is_none());
        for node in 0..LAST {
            assert_eq!([true, false].map(|shared| mask(node, shared)), [Some(1 << node); 2]);
        }
        assert_eq!(mask(LAST, false), Some(1 << 7), "the eighth of eight nodes has it alone");
        assert_eq!(mask(LAST + 1, false), None);
    }

    /// The policy that the kernel states for each of `addresses` in /proc/self/numa_maps: of the mapping that
    /// begins there, or else of the one before.
    fn policies<const N: usize>(addresses: [usize; N]) -> Option<[String; N]> {
        let maps = std::fs::read_to_string("/proc/self/numa_maps").ok()?;
        let mappings: Vec<(usize, &str)> = maps
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let start = usize::from_str_radix(words.next()?, 16).ok()?;
                Some((start, words.next()?))
            })
            .collect();
        Some(addresses.map(|address| {
            let before = mappings.iter().filter(|(start, _)| *start <= address);
            before.max().map_or("unmapped", |(_, policy)| policy).to_owned()
        }))
    }

    #[test]
    fn the_kernel_prefers_the_node_that_a_range_was_bound_to_there_and_nowhere_else() {
        let (part, kernel) = (64 << 10, Linux);
        let start = kernel.map(0, 3 * part).expect("memory");
        let ranges = [start, start + part, start + 2 * part];
        let before = policies(ranges);
        if let Err(error) = kernel.bind(ranges[1], part, 0) {
            // Not for these arguments, where the process may have memory of node 0.
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let has_node_0 = status.contains("Mems_allowed_list:\t0");
            assert!([libc::ENOSYS, libc::EPERM].contains(&error.errno) || !has_node_0, "{error}");
            println!("skipped: {error}");
        } else if let Some((before, found)) = before.zip(policies(ranges)) {
            // Mostly "default", unless the process was started with another policy.
            assert_eq!(found, [&before[0], "prefer:0", &before[2]]);
        } else {
            println!("skipped: no /proc/self/numa_maps on this machine");
        }
        // SAFETY: the range is this test's.
        unsafe {
            // Its pages are of use as before.
            core::ptr::with_exposed_provenance_mut::<u8>(ranges[1]).write_bytes(1, part);
            kernel.unmap(start, 3 * part).expect("it was mapped");
        }
    }

    #[test]
    fn a_single_node_is_never_asked_for() {
        let topology = Topology::fake(1, || unreachable!("no call on one node"));
        assert_eq!(topology.current(), 0);
        assert!(!topology.many());
    }
}
