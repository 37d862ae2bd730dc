//! Vector clocks: which waits are implied by earlier ones.
//!
//! Each thread has a clock that says, for every other thread, how many of that thread's places are
//! known to be done before its own next place. A wait for a place already known is left out, which
//! on real traces removes all but one or two per hundred operations.
//!
//! Cost: a wait costs one pass over the threads. What a thread knew at an earlier place is kept for
//! its last [`KEPT`] changes; asked for an older one, the clock forgets what follows from it, which
//! can only add an unnecessary wait, never lose a needed one.
//!
//! Source: Mattern, "Virtual Time and Global States of Distributed Systems" (1989).
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::rc::Rc;

/// How many changes of a thread's clock stay known.
const KEPT: usize = 64;

/// What one thread knows: per thread, the number of places known to be done. Missing = 0.
type Known = Rc<Vec<u64>>;

/// The clocks of all threads.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    now: Vec<Known>,
    /// Per thread, in ascending order: from this place on, this was known.
    history: Vec<VecDeque<(u64, Known)>>,
}

fn at(known: &[u64], thread: usize) -> u64 {
    known.get(thread).copied().unwrap_or(0)
}

fn raise(known: &mut Known, thread: usize, places: u64) {
    let known = Rc::make_mut(known);
    if known.len() <= thread {
        known.resize(thread + 1, 0);
    }
    known[thread] = known[thread].max(places);
}

impl Clocks {
    /// Adds a thread that begins after `parent` has done `places` of its places.
    pub(crate) fn birth(&mut self, parent: Option<(u32, u64)>) {
        let mut known = match parent {
            Some((parent, _)) => Rc::clone(&self.now[parent as usize]),
            None => Rc::default(),
        };
        if let Some((parent, places)) = parent {
            raise(&mut known, parent as usize, places);
        }
        self.history.push(VecDeque::from([(0, Rc::clone(&known))]));
        self.now.push(known);
    }

    /// Whether `thread` knows that the first `places` places of `other` are done.
    pub(crate) fn knows(&self, thread: u32, other: u32, places: u64) -> bool {
        thread == other || at(&self.now[thread as usize], other as usize) >= places
    }

    /// `thread`, about to do its place number `own`, waits until `other` has done `places`.
    pub(crate) fn wait(&mut self, thread: u32, own: u64, other: u32, places: u64) {
        debug_assert_ne!(thread, other);
        // What `other` knew when it did its last awaited place.
        let theirs = self.history[other as usize]
            .iter()
            .rev()
            .find(|(from, _)| *from < places)
            .map(|(_, known)| Rc::clone(known));
        let mine = &mut self.now[thread as usize];
        let known = Rc::make_mut(mine);
        if let Some(theirs) = theirs {
            if known.len() < theirs.len() {
                known.resize(theirs.len(), 0);
            }
            for (a, b) in known.iter_mut().zip(theirs.iter()) {
                *a = (*a).max(*b);
            }
        }
        raise(mine, other as usize, places);
        let snapshot = Rc::clone(mine);
        let history = &mut self.history[thread as usize];
        match history.back_mut() {
            Some((from, known)) if *from == own => *known = snapshot,
            _ => history.push_back((own, snapshot)),
        }
        if history.len() > KEPT {
            history.pop_front();
        }
    }

    /// A barrier of `threads`, of which each has done as many of its places as `places` says:
    /// each of them knows what any of them knew, and what each of them did.
    pub(crate) fn meet(&mut self, threads: &[u32], places: &[u64]) {
        let mut all = vec![0; places.len()];
        for &t in threads {
            for (a, &b) in all.iter_mut().zip(self.now[t as usize].iter()) {
                *a = b.max(*a);
            }
        }
        for &t in threads {
            all[t as usize] = places[t as usize];
        }
        let all = Rc::new(all);
        for &t in threads {
            self.now[t as usize] = Rc::clone(&all);
            self.history[t as usize] = VecDeque::from([(places[t as usize], Rc::clone(&all))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_implies_what_the_awaited_thread_knew_by_then_and_not_what_it_learnt_later() {
        let mut clocks = Clocks::default();
        clocks.birth(None);
        for _ in 0..3 {
            clocks.birth(Some((0, 1)));
        }
        clocks.wait(1, 5, 0, 10);
        clocks.wait(1, 9, 3, 7);
        clocks.wait(2, 4, 1, 6);
        assert!(clocks.knows(2, 1, 6) && !clocks.knows(2, 1, 7));
        assert!(clocks.knows(2, 0, 10), "thread 1 knew it before its place 6");
        assert!(!clocks.knows(2, 3, 1), "thread 1 learnt it at its place 9 only");
    }

    #[test]
    fn a_child_knows_what_its_parent_knew() {
        let mut clocks = Clocks::default();
        clocks.birth(None);
        clocks.birth(Some((0, 3)));
        clocks.wait(0, 4, 1, 2);
        clocks.birth(Some((0, 5)));
        assert!(clocks.knows(2, 0, 5) && clocks.knows(2, 1, 2) && !clocks.knows(2, 0, 6));
    }

    #[test]
    fn a_forgotten_past_only_costs_a_wait() {
        let mut clocks = Clocks::default();
        clocks.birth(None);
        clocks.birth(Some((0, 1)));
        clocks.birth(Some((0, 1)));
        for i in 0..200 {
            clocks.wait(1, i * 10, 0, i * 3 + 2);
        }
        clocks.wait(2, 0, 1, 11);
        assert!(clocks.knows(2, 1, 11));
        assert!(!clocks.knows(2, 0, 5), "what thread 1 knew at place 10 is no longer kept");
    }
}
