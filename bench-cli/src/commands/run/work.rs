//! What is run of a subject: the same work under all allocators, or under each an amount of its own.
#![forbid(unsafe_code)]

use super::slug;
use crate::allocators::Allocator;
use crate::results::{OwnWork, Subject};
use crate::subjects::Prepared;

/// The plans of one subject: one for all allocators, or one for each in their order. Never none.
#[derive(Clone, Debug)]
pub(super) struct Work(Vec<Prepared>);

impl Work {
    /// The same for all allocators.
    pub(super) fn of_all(plan: Prepared) -> Self {
        Work(vec![plan])
    }

    /// One for each of the allocators, of which there is at least one; a single one is that of all.
    pub(super) fn of_each(plans: Vec<Prepared>) -> Self {
        debug_assert!(!plans.is_empty());
        Work(plans)
    }

    /// The plan of the allocator at this place.
    pub(super) fn of(&self, allocator: usize) -> &Prepared {
        &self.0[allocator.min(self.0.len() - 1)]
    }

    /// One of the plans: name, threads and order are the same in all.
    pub(super) fn any(&self) -> &Prepared {
        self.of(0)
    }

    fn rename(&mut self, name: &str) {
        for plan in &mut self.0 {
            name.clone_into(&mut plan.name);
            name.clone_into(&mut plan.note.name);
        }
    }

    /// What the manifest says of it.
    pub(super) fn note(&self, allocators: &[Allocator]) -> Subject {
        let any = self.any().note.clone();
        if self.0.len() == 1 {
            return any;
        }
        let own = allocators.iter().zip(&self.0).map(|(allocator, plan)| OwnWork {
            allocator: allocator.name.clone(),
            scale: plan.note.scale,
            stream_hash: plan.note.stream_hash.clone(),
            events: plan.note.events,
        });
        let own_work = own.collect();
        Subject { scale: None, stream_hash: None, events: None, own_work, ..any }
    }
}

/// Calls subjects of one name by the texts that asked for them, as traces of one file name in two folders.
pub(super) fn tell_apart(work: &mut [Work], texts: &[String]) {
    let names: Vec<String> = work.iter().map(|work| work.any().name.clone()).collect();
    for ((work, name), text) in work.iter_mut().zip(&names).zip(texts) {
        if names.iter().filter(|other| *other == name).count() > 1 {
            work.rename(text);
        }
    }
}

/// What the names of a subject's runs begin with: short and safe, and no other's with as many threads. No slug
/// holds a `~`.
pub(super) fn label(work: &[Work], place: usize) -> String {
    let of = |work: &Work| (slug(&work.any().name), work.any().threads);
    let own = of(&work[place]);
    match work[..place].iter().any(|earlier| of(earlier) == own) {
        true => format!("{}~{place}", own.0),
        false => own.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::{self, Amount, Settings};

    #[test]
    fn each_allocator_has_its_own_plan_and_line_in_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let plan = |factor| {
            let settings = Settings { amount: Amount::Times(factor), ..Settings::default() };
            subjects::resolve("pair-64").unwrap().prepare(&settings, folder.path()).unwrap()
        };
        let allocators =
            [Allocator::system(), Allocator { name: "b".into(), ..Allocator::system() }];
        let own = Work::of_each(vec![plan(0.01), plan(0.03)]);
        assert_eq!(own.of(1).counts.operations, 3 * own.of(0).counts.operations);
        let note = own.note(&allocators);
        assert_eq!((note.scale, &note.stream_hash), (None, &None));
        let scales: Vec<_> =
            note.own_work.iter().map(|w| (w.allocator.as_str(), w.scale)).collect();
        assert_eq!(scales, [("system", Some(0.01)), ("b", Some(0.03))]);
        assert_ne!(note.own_work[0].stream_hash, note.own_work[1].stream_hash);

        let same = Work::of_all(plan(0.01));
        assert_eq!(same.of(0).plan, same.of(1).plan);
        let note = same.note(&allocators);
        assert!(note.scale == Some(0.01) && note.own_work.is_empty(), "{note:?}");
    }
}
