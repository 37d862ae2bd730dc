//! The allocator against a shadow heap: every object is filled, watched, and compared before it is freed.
//!
//! The shadow knows every live object by address. Each allocation must lie apart from all of them, be aligned, hold at
//! least what was asked for; each object must still hold its pattern when it is resized or freed. Orders of freeing
//! are properties of their own: last in first out, first in first out, random, and by another thread.
//!
//! `SHADOW_OPERATIONS` sets how many random operations the long walk makes (default 300,000).

use allocator::heap;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

/// An object as the shadow knows it.
#[derive(Clone, Copy, Debug)]
struct Object {
    address: *mut u8,
    size: usize,
    fill: u8,
}

// SAFETY: an Object is the sole owner of its bytes; sending it hands them over.
unsafe impl Send for Object {}

/// Live objects by address.
#[derive(Default)]
struct Shadow {
    live: BTreeMap<usize, Object>,
    next_fill: u8,
}

impl Shadow {
    fn allocate(&mut self, size: usize, alignment: usize) -> Object {
        let address = if alignment <= 16 {
            heap::allocate(size)
        } else {
            heap::allocate_aligned(alignment, size)
        };
        self.adopt(address, size, alignment)
    }

    fn allocate_zeroed(&mut self, size: usize) -> Object {
        let address = heap::allocate_zeroed(size);
        assert!(!address.is_null());
        // SAFETY: `size` bytes were just allocated at `address`.
        let bytes = unsafe { std::slice::from_raw_parts(address, size) };
        assert!(bytes.iter().all(|&byte| byte == 0), "{size} bytes of calloc are zero");
        self.adopt(address, size, 16)
    }

    /// Checks a new object against everything that lives, fills it, and takes it in.
    fn adopt(&mut self, address: *mut u8, size: usize, alignment: usize) -> Object {
        assert!(!address.is_null(), "{size} bytes");
        assert_eq!(
            address.addr() % alignment.max(16),
            0,
            "{size} bytes at a multiple of {alignment}"
        );
        // SAFETY: just allocated.
        let usable = unsafe { heap::usable_size(address) };
        assert!(usable >= size, "{usable} usable bytes for {size}");
        let end = address.addr() + usable.max(1);
        if let Some((_, before)) = self.live.range(..end).next_back() {
            // SAFETY: a live object.
            let usable = unsafe { heap::usable_size(before.address) };
            assert!(
                before.address.addr() + usable.max(1) <= address.addr(),
                "{before:?} overlaps {address:?}+{size}"
            );
        }
        self.next_fill = self.next_fill.wrapping_add(1);
        let object = Object { address, size, fill: self.next_fill };
        // SAFETY: `usable` bytes belong to the object.
        unsafe { address.write_bytes(object.fill, usable) };
        self.live.insert(address.addr(), object);
        object
    }

    fn forget(&mut self, object: Object) {
        object.check(object.size);
        assert!(self.live.remove(&object.address.addr()).is_some(), "{object:?} is live");
    }

    fn free(&mut self, object: Object) {
        self.forget(object);
        // SAFETY: live until this line, forgotten above.
        unsafe { heap::deallocate(object.address) };
    }

    fn resize(&mut self, object: Object, size: usize) -> Object {
        self.forget(object);
        // SAFETY: live until this line, and `size` is not 0.
        let address = unsafe { heap::reallocate(object.address, size) };
        let moved = Object { address, ..object };
        moved.check(object.size.min(size));
        self.adopt(address, size, 16)
    }
}

impl Object {
    /// The first `size` bytes still hold the pattern.
    fn check(&self, size: usize) {
        // SAFETY: at least `size` bytes belong to this live object.
        let bytes = unsafe { std::slice::from_raw_parts(self.address, size) };
        assert!(bytes.iter().all(|&byte| byte == self.fill), "{self:?} keeps its pattern");
    }
}

/// Sizes as programs ask for them: mostly small, some at every boundary between the heap's layers.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 0..300_usize,
        6 => 0..2_000_usize,
        3 => 900..9_000_usize,
        2 => 8_000..150_000_usize,
        1 => 100_000..1_200_000_usize,
        1 => prop::sample::select(vec![1008, 1009, 1024, 1025, 4096, 32_768, 65_536, 131_072, 524_288, 1 << 20, (1 << 20) + 1]),
    ]
}

fn alignment() -> impl Strategy<Value = usize> {
    prop_oneof![8 => Just(16_usize), 1 => (5..13_u32).prop_map(|power| 1 << power)]
}

fn allocations() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((size(), alignment()), 1..200)
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize, usize),
    Zeroed(usize),
    Free(prop::sample::Index),
    Resize(prop::sample::Index, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (size(), alignment()).prop_map(|(size, alignment)| Step::Allocate(size, alignment)),
        1 => size().prop_map(Step::Zeroed),
        4 => any::<prop::sample::Index>().prop_map(Step::Free),
        2 => (any::<prop::sample::Index>(), size()).prop_map(|(index, size)| Step::Resize(index, size + 1)),
    ];
    prop::collection::vec(step, 1..400)
}

/// Makes one step.
fn take(shadow: &mut Shadow, live: &mut Vec<Object>, step: &Step) {
    match step {
        Step::Allocate(size, alignment) => live.push(shadow.allocate(*size, *alignment)),
        Step::Zeroed(size) => live.push(shadow.allocate_zeroed(*size)),
        Step::Free(index) if !live.is_empty() => {
            let object = live.swap_remove(index.index(live.len()));
            shadow.free(object);
        }
        Step::Resize(index, size) if !live.is_empty() => {
            let at = index.index(live.len());
            live[at] = shadow.resize(live[at], *size);
        }
        _ => {}
    }
}

#[track_caller]
fn sound() {
    if let Err(fault) = heap::check() {
        panic!("the heap is damaged: {fault:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn objects_freed_last_in_first_out_never_overlap(requests in allocations()) {
        let mut shadow = Shadow::default();
        let mut stack: Vec<Object> = requests.iter().map(|&(size, alignment)| shadow.allocate(size, alignment)).collect();
        while let Some(object) = stack.pop() {
            shadow.free(object);
        }
        sound();
    }

    #[test]
    fn objects_freed_first_in_first_out_never_overlap(requests in allocations()) {
        let mut shadow = Shadow::default();
        let queue: Vec<Object> = requests.iter().map(|&(size, alignment)| shadow.allocate(size, alignment)).collect();
        for object in queue {
            shadow.free(object);
        }
        sound();
    }

    #[test]
    fn objects_allocated_resized_and_freed_in_random_order_never_overlap(steps in steps()) {
        let mut shadow = Shadow::default();
        let mut live = Vec::new();
        for step in &steps {
            take(&mut shadow, &mut live, step);
        }
        sound();
        for object in live {
            shadow.free(object);
        }
        sound();
    }

    #[test]
    fn objects_freed_by_another_thread_are_reused_without_overlap(requests in allocations()) {
        let mut shadow = Shadow::default();
        let (to_other, objects) = mpsc::channel::<Object>();
        let other = thread::spawn(move || {
            for object in objects {
                object.check(object.size);
                // SAFETY: the sender forgot the object when it sent it.
                unsafe { heap::deallocate(object.address) };
            }
        });
        let mut kept = Vec::new();
        for (n, &(size, alignment)) in requests.iter().cycle().take(requests.len() * 3).enumerate() {
            let object = shadow.allocate(size, alignment);
            if n % 3 == 0 {
                kept.push(object);
            } else {
                shadow.forget(object);
                to_other.send(object).expect("the other thread listens");
            }
        }
        drop(to_other);
        other.join().expect("frees only");
        for object in kept {
            shadow.free(object);
        }
        sound();
    }
}

#[test]
fn a_long_random_walk_agrees_with_the_shadow_heap() {
    let operations: u64 = std::env::var("SHADOW_OPERATIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300_000);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).expect("48 bits")
    };
    let mut shadow = Shadow::default();
    let mut live: Vec<Object> = Vec::new();
    for operation in 0..operations {
        let size = match random() % 100 {
            0 => random() % 3_000_000,
            1..=4 => random() % 200_000,
            5..=14 => random() % 20_000,
            _ => random() % 1_100,
        };
        // Grows to 3,000 objects and shrinks to 300, again and again.
        let growing = operation / 20_000 % 2 == 0;
        match random() % 8 {
            0 if !live.is_empty() => {
                let at = random() % live.len();
                live[at] = shadow.resize(live[at], size + 1);
            }
            1 => live.push(shadow.allocate_zeroed(size)),
            2 => live.push(shadow.allocate(size, 16 << (random() % 9))),
            3 | 4 if growing => live.push(shadow.allocate(size, 16)),
            _ if !live.is_empty() => {
                let object = live.swap_remove(random() % live.len());
                shadow.free(object);
            }
            _ => {}
        }
        if live.len() > 3_000 {
            for object in live.drain(300..) {
                shadow.free(object);
            }
        }
    }
    sound();
    for object in live {
        shadow.free(object);
    }
    sound();
}
