//! What the codec promises: any legal stream is read back equal, and no bytes at all can make a
//! decoder panic.

use proptest::prelude::*;
use trace_format::v1::{Call, Codec, DecodeError, EncodeError, Form, Record};

/// Sizes of every magnitude.
fn sizes() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
}

/// A call as a program might make it, before object numbers are known: `object` here says only
/// whether there is one (births) or how far back it lies (references).
fn calls() -> impl Strategy<Value = Call> {
    let forms = prop::sample::select(vec![
        Form::Memalign,
        Form::AlignedAlloc,
        Form::PosixMemalign,
        Form::Valloc,
        Form::Pvalloc,
        Form::CxxNew,
    ]);
    prop_oneof![
        (0u64..2, sizes()).prop_map(|(object, size)| Call::Malloc { object, size }),
        (0u64..2, sizes(), sizes()).prop_map(|(object, count, size)| Call::Calloc {
            object,
            count,
            size
        }),
        (0u64..9, 0u64..2, sizes()).prop_map(|(old, object, size)| Call::Realloc {
            old,
            object,
            size
        }),
        (0u64..2, sizes(), 0u32..64, any::<bool>(), sizes(), forms).prop_map(
            |(object, odd, log2, power, size, form)| {
                let align = if power { 1 << log2 } else { odd };
                Call::Aligned { object, align, size, form }
            }
        ),
        (0u64..9, prop::option::of(sizes()))
            .prop_map(|(object, stated_size)| Call::Free { object, stated_size }),
        (0u64..9).prop_map(|object| Call::UsableSize { object }),
        prop::option::of(any::<u32>()).prop_map(|parent| Call::ThreadStart { parent }),
        Just(Call::ThreadEnd),
        any::<u32>().prop_map(|child| Call::Fork { child }),
        any::<u64>().prop_map(|value| Call::Marker { value }),
        (1u64..9, sizes(), any::<u32>()).prop_map(|(object, bytes, times)| Call::Access {
            object,
            bytes,
            times
        }),
    ]
}

/// Gives births the next number and makes references point at something born.
fn number(call: &mut Call, next: &mut u64) {
    let back = |distance: &mut u64, next: u64| *distance = next.saturating_sub(*distance) % next;
    match call {
        Call::Free { object, .. } | Call::UsableSize { object } => back(object, *next),
        Call::Realloc { old, .. } => back(old, *next),
        Call::Access { object, .. } if *next == 1 => *call = Call::Marker { value: *object },
        Call::Access { object, .. } => *object = next.saturating_sub(*object).max(1),
        _ => {}
    }
    match call {
        Call::Malloc { object, .. }
        | Call::Calloc { object, .. }
        | Call::Realloc { object, .. }
        | Call::Aligned { object, .. }
            if *object != 0 =>
        {
            *object = *next;
            *next += 1;
        }
        _ => {}
    }
}

fn streams() -> impl Strategy<Value = (u64, Vec<Record>)> {
    let records = prop::collection::vec((0u32..4, any::<u64>(), calls()), 0..200);
    (1u64..1 << 40, records).prop_map(|(first, parts)| {
        let mut next = first;
        let records = parts.into_iter().map(|(thread, time, mut call)| {
            number(&mut call, &mut next);
            Record { thread: thread * 0x2aaa_aaaa, time_ns: time, call }
        });
        (first, records.collect())
    })
}

proptest! {
    #[test]
    fn a_stream_is_read_back_equal((first, records) in streams(), times: bool, base: u64) {
        let mut bytes = Vec::new();
        let mut writer = Codec::new(times, first, base);
        for record in &records {
            writer.encode(record, |b| bytes.extend_from_slice(b)).expect("a legal stream");
        }
        let mut reader = Codec::new(times, first, base);
        let mut input = &bytes[..];
        for record in &records {
            let mut expected = *record;
            if !times {
                expected.time_ns = base;
            }
            prop_assert_eq!(reader.decode(&mut input), Ok(expected));
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(reader.next_object(), writer.next_object());
    }

    #[test]
    fn arbitrary_bytes_end_in_an_error_or_in_the_end(
        bytes in prop::collection::vec(any::<u8>(), 0..400), times: bool, first in 1u64..100,
    ) {
        let mut codec = Codec::new(times, first, 0);
        let mut input = &bytes[..];
        while !input.is_empty() {
            let before = input.len();
            if codec.decode(&mut input).is_err() {
                break;
            }
            prop_assert!(input.len() < before);
        }
    }

    #[test]
    fn a_record_cut_anywhere_is_no_record((first, records) in streams(), cut in any::<prop::sample::Index>()) {
        prop_assume!(!records.is_empty());
        let mut codec = Codec::new(true, first, 0);
        for record in &records[..1] {
            let mut bytes = Vec::new();
            codec.encode(record, |b| bytes.extend_from_slice(b)).expect("a legal stream");
            let cut = cut.index(bytes.len());
            let mut reader = Codec::new(true, first, 0);
            prop_assert_eq!(reader.decode(&mut &bytes[..cut]), Err(DecodeError::Truncated));
        }
    }
}

#[test]
fn a_birth_out_of_order_and_a_use_before_birth_are_refused() {
    let mut codec = Codec::new(false, 5, 0);
    let record = |call| Record { thread: 0, time_ns: 0, call };
    let refused = codec.encode(&record(Call::Malloc { object: 6, size: 1 }), |_| ());
    assert_eq!(refused, Err(EncodeError::Birth { object: 6, next: 5 }));
    let refused = codec.encode(&record(Call::Free { object: 5, stated_size: None }), |_| ());
    assert_eq!(refused, Err(EncodeError::Reference { object: 5, next: 5 }));
    codec.encode(&record(Call::Malloc { object: 5, size: 1 }), |_| ()).expect("the next number");
    codec.encode(&record(Call::Free { object: 5, stated_size: None }), |_| ()).expect("born now");
}

#[test]
fn a_common_call_takes_three_bytes_and_one_more_where_the_thread_changes() {
    let mut codec = Codec::new(true, 1, 0);
    let mut lengths = Vec::new();
    let calls = [
        Call::Malloc { object: 1, size: 64 },
        Call::Malloc { object: 2, size: 64 },
        Call::Free { object: 1, stated_size: None },
    ];
    for (i, call) in calls.into_iter().enumerate() {
        let record = Record { thread: 7, time_ns: 40 * (i as u64 + 1), call };
        codec.encode(&record, |b| lengths.push(b.len())).expect("a legal stream");
    }
    assert_eq!(lengths, [4, 3, 3]);
}
