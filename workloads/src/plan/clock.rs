//! Vector clocks: which waits are implied by earlier ones.
//!
//! Each thread has a clock that says, for every other thread, how many of that thread's places are
//! known to be done before its own next place. A wait for a place already known is left out, which
//! on real traces removes all but one or two per hundred operations.
//!
//! Cost: clocks share what they have in common ([`Known`]), so a birth costs the way to one entry,
//! and a wait the entries that differ, in time and memory, however many threads there ever were.
//! What a thread knew at an earlier place is kept for its last [`KEPT`] changes; asked for an older
//! one, the clock forgets what follows from it, which can only add an unnecessary wait, never lose
//! a needed one.
//!
//! Source: Mattern, "Virtual Time and Global States of Distributed Systems" (1989).
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::known::Known;

/// How many changes of a thread's clock stay known.
const KEPT: usize = 64;
/// How many of one that ended.
const KEPT_AT_END: usize = 8;

/// The clocks of all threads.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    now: Vec<Known>,
    /// Per thread, in ascending order: from this place on, this was known.
    history: Vec<VecDeque<(u64, Known)>>,
}

impl Clocks {
    /// Adds a thread that begins after `parent` has done `places` of its places.
    pub(crate) fn birth(&mut self, parent: Option<(u32, u64)>) {
        let mut known = Known::default();
        if let Some((parent, places)) = parent {
            known = self.now[parent as usize].clone();
            known.raise(parent, places);
        }
        self.history.push(VecDeque::from([(0, known.clone())]));
        self.now.push(known);
    }

    /// A thread ended: few ask for what it knew long before.
    pub(crate) fn end(&mut self, thread: u32) {
        let history = &mut self.history[thread as usize];
        history.drain(..history.len().saturating_sub(KEPT_AT_END));
        history.shrink_to_fit();
    }

    /// Whether `thread` knows that the first `places` places of `other` are done.
    pub(crate) fn knows(&self, thread: u32, other: u32, places: u64) -> bool {
        thread == other || self.now[thread as usize].places(other) >= places
    }

    /// `thread`, about to do its place number `own`, waits until `other` has done `places`.
    pub(crate) fn wait(&mut self, thread: u32, own: u64, other: u32, places: u64) {
        debug_assert_ne!(thread, other);
        let mine = &mut self.now[thread as usize];
        // What `other` knew when it did its last awaited place.
        let theirs = self.history[other as usize].iter().rev().find(|(from, _)| *from < places);
        if let Some((_, theirs)) = theirs {
            mine.join(theirs);
        }
        mine.raise(other, places);
        let snapshot = mine.clone();
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
        let mut all = Known::default();
        for &t in threads {
            all.join(&self.now[t as usize]);
            all.raise(t, places[t as usize]);
        }
        for &t in threads {
            self.now[t as usize] = all.clone();
            self.history[t as usize] = VecDeque::from([(places[t as usize], all.clone())]);
        }
    }

    /// Entries that all clocks, and what is kept of their past, take in memory.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        let past = self.history.iter().flatten().map(|(_, known)| known);
        super::known::entries(self.now.iter().chain(past))
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
