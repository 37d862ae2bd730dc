//! What one thread knows of all others: how many of their places are done.
//!
//! A tree of [`FAN`] branches by the thread's number, of which versions share the parts that they
//! have in common: a copy costs a counter, a change the way from the root, and joining two stops
//! wherever they are the same part.
//!
//! Source: Driscoll, Sarnak, Sleator, Tarjan, "Making Data Structures Persistent" (1989).
#![forbid(unsafe_code)]

use std::rc::Rc;

const BITS: u32 = 4;
/// Entries of one node.
const FAN: usize = 1 << BITS;

/// Number of places known to be done, per thread. Missing = 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    root: Option<Rc<Node>>,
    /// Levels above the leaves: threads below `FAN` to the power of one more have their place.
    height: u32,
}

#[derive(Clone, Debug)]
enum Node {
    Inner([Option<Rc<Node>>; FAN]),
    Leaf([u64; FAN]),
}

impl Known {
    /// Places of `thread` known to be done.
    pub(crate) fn places(&self, thread: u32) -> u64 {
        if thread.checked_shr(BITS * (self.height + 1)).unwrap_or(0) > 0 {
            return 0;
        }
        let mut next = self.root.as_deref();
        for level in (0..=self.height).rev() {
            next = match next {
                Some(Node::Inner(nodes)) => nodes[branch(thread, level)].as_deref(),
                Some(Node::Leaf(places)) => return places[branch(thread, level)],
                None => return 0,
            };
        }
        0
    }

    /// From now on at least `places` of `thread` are known to be done.
    pub(crate) fn raise(&mut self, thread: u32, places: u64) {
        if self.places(thread) >= places {
            return;
        }
        while thread.checked_shr(BITS * (self.height + 1)).unwrap_or(0) > 0 {
            self.grow();
        }
        let mut level = self.height;
        let mut node = self.root.get_or_insert_with(|| empty(level));
        loop {
            match Rc::make_mut(node) {
                Node::Leaf(known) => {
                    known[branch(thread, 0)] = places;
                    return;
                }
                Node::Inner(nodes) => {
                    let place = &mut nodes[branch(thread, level)];
                    level -= 1;
                    node = place.get_or_insert_with(|| empty(level));
                }
            }
        }
    }

    /// From now on whatever `other` knows is known too.
    pub(crate) fn join(&mut self, other: &Known) {
        let mut other = other.clone();
        while self.height < other.height {
            self.grow();
        }
        while other.height < self.height {
            other.grow();
        }
        self.root = joined(self.root.as_ref(), other.root.as_ref());
    }

    /// Adds a level at the root.
    fn grow(&mut self) {
        if let Some(root) = self.root.take() {
            let mut nodes = [const { None }; FAN];
            nodes[0] = Some(root);
            self.root = Some(Rc::new(Node::Inner(nodes)));
        }
        self.height += 1;
    }
}

/// Which entry of a node on this level leads to `thread`.
fn branch(thread: u32, level: u32) -> usize {
    (thread >> (BITS * level)) as usize % FAN
}

fn empty(level: u32) -> Rc<Node> {
    Rc::new(if level == 0 { Node::Leaf([0; FAN]) } else { Node::Inner([const { None }; FAN]) })
}

fn same(a: Option<&Rc<Node>>, b: Option<&Rc<Node>>) -> bool {
    a.map(Rc::as_ptr) == b.map(Rc::as_ptr)
}

/// The larger of both at every entry; one of the two itself where that is all of it.
fn joined(a: Option<&Rc<Node>>, b: Option<&Rc<Node>>) -> Option<Rc<Node>> {
    let (Some(first), Some(second)) = (a, b) else { return a.or(b).cloned() };
    if Rc::ptr_eq(first, second) {
        return a.cloned();
    }
    let (is_first, is_second, node) = match (&**first, &**second) {
        (Node::Leaf(x), Node::Leaf(y)) => {
            let most: [u64; FAN] = std::array::from_fn(|i| x[i].max(y[i]));
            (most == *x, most == *y, Node::Leaf(most))
        }
        (Node::Inner(x), Node::Inner(y)) => {
            let nodes: [_; FAN] = std::array::from_fn(|i| joined(x[i].as_ref(), y[i].as_ref()));
            let are = |all: &[Option<Rc<Node>>; FAN]| {
                nodes.iter().zip(all).all(|(a, b)| same(a.as_ref(), b.as_ref()))
            };
            (are(x), are(y), Node::Inner(nodes.clone()))
        }
        // Both stand on one level.
        _ => return a.cloned(),
    };
    match (is_first, is_second) {
        (true, _) => a.cloned(),
        (_, true) => b.cloned(),
        _ => Some(Rc::new(node)),
    }
}

/// Entries in the memory of all of these together.
#[cfg(test)]
pub(crate) fn entries<'a>(all: impl Iterator<Item = &'a Known>) -> usize {
    fn visit(node: &Rc<Node>, seen: &mut std::collections::HashSet<*const Node>) {
        if let (true, Node::Inner(nodes)) = (seen.insert(Rc::as_ptr(node)), &**node) {
            nodes.iter().flatten().for_each(|node| visit(node, seen));
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.filter_map(|known| known.root.as_ref()).for_each(|root| visit(root, &mut seen));
    seen.len() * FAN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u32 = (1 << 24) - 1;

    fn built(entries: &[(u32, u64)]) -> Known {
        let mut known = Known::default();
        entries.iter().for_each(|&(thread, places)| known.raise(thread, places));
        known
    }

    proptest! {
        #[test]
        fn two_joined_know_the_larger_of_what_each_knew(
            a in prop::collection::vec((0u32..600, 1u64..9), 0..40),
            b in prop::collection::vec((prop_oneof![0u32..600, 0..=MOST], 1u64..9), 0..40),
        ) {
            let (first, second) = (built(&a), built(&b));
            let mut both = first.clone();
            both.join(&second);
            let known = |all: &[(u32, u64)], thread| {
                all.iter().filter(|e| e.0 == thread).map(|e| e.1).max().unwrap_or(0)
            };
            for thread in (0..610).chain(b.iter().map(|e| e.0)).chain([MOST, u32::MAX]) {
                let (x, y) = (known(&a, thread), known(&b, thread));
                prop_assert_eq!(first.places(thread), x);
                prop_assert_eq!(second.places(thread), y);
                prop_assert_eq!(both.places(thread), x.max(y));
            }
        }
    }
}
