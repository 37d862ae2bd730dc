//! Where generators put their events.

use traces::{AlignedApi, Event, ObjectId, Op, ThreadId};

/// Collects events, numbers objects and threads.
#[derive(Debug, Default)]
pub struct Emitter {
    pub(crate) events: Vec<Event>,
    objects: u64,
    threads: u32,
}

impl Emitter {
    /// An event of `thread`.
    pub fn op(&mut self, thread: u32, op: Op) {
        self.events.push(Event { thread: ThreadId(thread), time_ns: None, op });
    }

    fn object(&mut self) -> ObjectId {
        self.objects += 1;
        ObjectId::from_index(self.objects - 1)
    }

    /// A thread is born; its number. The first is the program's main thread.
    pub fn birth(&mut self, parent: Option<u32>) -> u32 {
        let thread = self.threads;
        self.threads += 1;
        self.op(thread, Op::ThreadStart { parent: parent.map(ThreadId) });
        thread
    }

    /// The threads that do the work: the main thread itself if there is to be one, else children
    /// of it, while it waits.
    pub fn workers(&mut self, count: u32) -> Vec<u32> {
        let main = self.birth(None);
        if count <= 1 {
            return vec![main];
        }
        (0..count).map(|_| self.birth(Some(main))).collect()
    }

    /// A thread ends.
    pub fn end(&mut self, thread: u32) {
        self.op(thread, Op::ThreadEnd);
    }

    /// A thread ends and `other` takes note: it releases a small object that the thread allocated
    /// last, its result. This is how a stream says that a thread was joined.
    pub fn join(&mut self, thread: u32, other: u32) {
        let result = self.malloc(thread, 16);
        self.end(thread);
        self.free(other, result);
    }

    /// `malloc(size)`
    pub fn malloc(&mut self, thread: u32, size: u64) -> ObjectId {
        let object = self.object();
        self.op(thread, Op::Malloc { object: Some(object), size });
        object
    }

    /// `calloc(count, size)`
    pub fn calloc(&mut self, thread: u32, count: u64, size: u64) -> ObjectId {
        let object = self.object();
        self.op(thread, Op::Calloc { object: Some(object), count, size });
        object
    }

    /// `realloc(old, size)`
    pub fn realloc(&mut self, thread: u32, old: ObjectId, size: u64) -> ObjectId {
        let object = self.object();
        self.op(thread, Op::Realloc { old: Some(old), object: Some(object), size });
        object
    }

    /// `memalign(align, size)`
    pub fn memalign(&mut self, thread: u32, align: u64, size: u64) -> ObjectId {
        let object = self.object();
        let api = AlignedApi::Memalign;
        self.op(thread, Op::Aligned { object: Some(object), align, size, api });
        object
    }

    /// `free(object)`
    pub fn free(&mut self, thread: u32, object: ObjectId) {
        self.op(thread, Op::Free { object: Some(object), stated_size: None });
    }

    /// `free(object)` with its size.
    pub fn free_sized(&mut self, thread: u32, object: ObjectId, size: u64) {
        self.op(thread, Op::Free { object: Some(object), stated_size: Some(size) });
    }

    /// The program writes to an object.
    pub fn access(&mut self, thread: u32, object: ObjectId, bytes: u64, times: u32) {
        self.op(thread, Op::Access { object, bytes, times });
    }
}
