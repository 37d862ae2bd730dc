//! Which slot an object gets, and when a slot may be given again.
//!
//! A slot is the 8 bytes where a replay keeps an object's address. Whoever releases an object reads
//! its slot, so a slot may be given again only after that read, *under the waits of the plan*: else
//! a fast producer overwrites an address before its slow consumer has read it.
//!
//! Cost: constant per birth. A thread's own slots come back last in, first out, so that a loop of
//! pairs stays in one cache line; new slots are dealt out by cache lines, so that two threads share
//! none.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::clock::Clocks;

/// Slots a thread keeps for itself before it offers them to all.
const OWN: usize = 64;
/// Slots dealt out at a time: one cache line of addresses.
const LINE: u32 = 8;
/// Offers looked at per birth.
const LOOKS: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Offer {
    slot: u32,
    by: u32,
    /// Places of `by` that include the release.
    places: u64,
}

/// All slots of a plan under construction.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    next: u32,
    own: Vec<VecDeque<Offer>>,
    fresh: Vec<(u32, u32)>,
    offered: VecDeque<Offer>,
}

impl Slots {
    /// How many slots there are.
    pub(crate) fn len(&self) -> u32 {
        self.next
    }

    /// Adds a thread.
    pub(crate) fn birth(&mut self) {
        self.own.push(VecDeque::new());
        self.fresh.push((0, 0));
    }

    /// A thread ended: what it kept is offered to all.
    pub(crate) fn death(&mut self, thread: u32) {
        let own = std::mem::take(&mut self.own[thread as usize]);
        self.offered.extend(own);
    }

    /// A slot for an object that `thread` is about to give birth to; `None` if all numbers are
    /// taken.
    pub(crate) fn take(&mut self, thread: u32, clocks: &Clocks) -> Option<u32> {
        let t = thread as usize;
        if let Some(offer) = self.own[t].pop_back() {
            return Some(offer.slot);
        }
        for _ in 0..LOOKS.min(self.offered.len()) {
            let offer = self.offered.pop_front()?;
            if clocks.knows(thread, offer.by, offer.places) {
                return Some(offer.slot);
            }
            self.offered.push_back(offer);
        }
        let (next, end) = &mut self.fresh[t];
        if next == end {
            if u64::from(self.next) + u64::from(LINE) > super::record::FIELD_MAX {
                return None;
            }
            (*next, *end) = (self.next, self.next + LINE);
            self.next += LINE;
        }
        *next += 1;
        Some(*next - 1)
    }

    /// `thread` released the object of `slot` at its place number `place`.
    pub(crate) fn give(&mut self, slot: u32, thread: u32, place: u64) {
        let own = &mut self.own[thread as usize];
        own.push_back(Offer { slot, by: thread, places: place + 1 });
        if own.len() > OWN
            && let Some(oldest) = own.pop_front()
        {
            self.offered.push_back(oldest);
        }
    }

    /// Takes every slot out that is free now, for the seam of a body.
    pub(crate) fn rebuild(&mut self, keep: impl Fn(u32) -> bool) {
        for own in &mut self.own {
            own.retain(|offer| keep(offer.slot));
        }
        self.offered.retain(|offer| keep(offer.slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_released_elsewhere_is_given_again_only_once_the_release_is_known() {
        let mut clocks = Clocks::default();
        let mut slots = Slots::default();
        clocks.birth(None);
        slots.birth();
        clocks.birth(Some((0, 0)));
        slots.birth();
        let first = slots.take(0, &clocks).unwrap();
        slots.give(first, 1, 9);
        slots.death(1);
        let second = slots.take(0, &clocks).unwrap();
        assert_ne!(first, second, "thread 1 may still have to read the slot");
        clocks.wait(0, 3, 1, 10);
        assert_eq!(slots.take(0, &clocks), Some(first));
    }

    #[test]
    fn two_threads_share_no_cache_line_of_new_slots() {
        let mut clocks = Clocks::default();
        let mut slots = Slots::default();
        for parent in [None, Some((0, 0))] {
            clocks.birth(parent);
            slots.birth();
        }
        let a = slots.take(0, &clocks).unwrap();
        let b = slots.take(1, &clocks).unwrap();
        assert_ne!(a / LINE, b / LINE);
    }
}
