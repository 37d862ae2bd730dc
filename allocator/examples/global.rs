//! A program whose every `Box`, `Vec` and `String` lives in our allocator: a word count over threads.
//!
//! ```text
//! cargo run --release -p allocator --example global
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::collections::BTreeMap;
use std::thread;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn count(text: &str) -> BTreeMap<String, usize> {
    let mut words = BTreeMap::new();
    for word in text.split_whitespace() {
        *words.entry(word.to_lowercase()).or_default() += 1;
    }
    words
}

fn main() {
    let page =
        "The objects of one thread are freed by another and nobody has to mind the difference "
            .repeat(2000);
    let counters: Vec<_> =
        (0..4).map(|_| page.clone()).map(|page| thread::spawn(move || count(&page))).collect();
    let mut total: BTreeMap<String, usize> = BTreeMap::new();
    for counter in counters {
        // These maps were allocated by threads that are gone by now.
        for (word, times) in counter.join().expect("counting does not panic") {
            *total.entry(word).or_default() += times;
        }
    }
    for (word, times) in &total {
        println!("{times:6} {word}");
    }
    assert_eq!(total["the"], 4 * 2 * 2000);
}
