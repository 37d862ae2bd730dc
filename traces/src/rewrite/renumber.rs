//! New numbers for the objects and threads of a stream that leaves some of another's out.
#![forbid(unsafe_code)]

use crate::event::{ObjectId, Op, ThreadId};
use crate::import::IntMap;

/// Gives dense numbers in order of birth; forgets an object when it is released.
#[derive(Default)]
pub(super) struct Renumber {
    objects: IntMap<u64, ObjectId>,
    births: u64,
    threads: IntMap<u64, ThreadId>,
    thread_births: u32,
}

impl Renumber {
    /// The thread that stands for `key`, and whether this is its birth.
    pub(super) fn thread(&mut self, key: u64) -> (ThreadId, bool) {
        if let Some(&thread) = self.threads.get(&key) {
            return (thread, false);
        }
        let thread = ThreadId(self.thread_births);
        self.thread_births += 1;
        self.threads.insert(key, thread);
        (thread, true)
    }

    /// The thread that stands for `key`, if it was born.
    pub(super) fn known_thread(&self, key: u64) -> Option<ThreadId> {
        self.threads.get(&key).copied()
    }

    /// `op` with new numbers; `key` tells apart objects of several streams. `None` if it is about
    /// an object that was left out.
    pub(super) fn op(&mut self, op: Op, key: impl Fn(ObjectId) -> u64) -> Option<Op> {
        let known = |map: &IntMap<u64, ObjectId>, object: Option<ObjectId>| match object {
            None => Some(None),
            Some(object) => map.get(&key(object)).copied().map(Some),
        };
        Some(match op {
            Op::Malloc { object, size } => Op::Malloc { object: self.born(object, &key), size },
            Op::Calloc { object, count, size } => {
                Op::Calloc { object: self.born(object, &key), count, size }
            }
            Op::Aligned { object, align, size, api } => {
                Op::Aligned { object: self.born(object, &key), align, size, api }
            }
            Op::Realloc { old, object, size } => {
                // A chain whose beginning was left out begins here.
                let before = known(&self.objects, old).unwrap_or(None);
                if let Some(released) = op.released() {
                    self.objects.remove(&key(released));
                }
                if before.is_none() && old.is_some() && object.is_none() {
                    return None;
                }
                Op::Realloc { old: before, object: self.born(object, &key), size }
            }
            Op::Free { object, stated_size } => {
                let known = known(&self.objects, object)?;
                if let Some(object) = object {
                    self.objects.remove(&key(object));
                }
                Op::Free { object: known, stated_size }
            }
            Op::UsableSize { object } => Op::UsableSize { object: known(&self.objects, object)? },
            Op::Access { object, bytes, times } => {
                let object = known(&self.objects, Some(object))??;
                Op::Access { object, bytes, times }
            }
            Op::ThreadStart { .. } | Op::ThreadEnd | Op::Fork { .. } | Op::Marker { .. } => op,
        })
    }

    fn born(
        &mut self,
        object: Option<ObjectId>,
        key: impl Fn(ObjectId) -> u64,
    ) -> Option<ObjectId> {
        let object = object?;
        let new = ObjectId::from_index(self.births);
        self.births += 1;
        self.objects.insert(key(object), new);
        Some(new)
    }
}
