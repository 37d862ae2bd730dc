//! Parameters from which a generator can make no workload.
//!
//! A generator takes for granted what is checked here: that there is something to choose from where
//! it chooses, and that sizes do not overflow. Zero stays allowed where it means *nothing* or
//! *never*.
#![forbid(unsafe_code)]

use super::Generator;
use crate::generators::Adversary;

/// The largest size a generator may come to; that of a distribution's range is as large.
const MOST_BYTES: u64 = 1 << 48;

/// What is wrong with the parameters of `generator`: which one, why, and what is allowed.
pub(super) fn check(generator: &Generator) -> Result<(), String> {
    match generator {
        Generator::Cells(spec) => some("cells", spec.cells, "a worker exchanges one of its cells"),
        Generator::Batches(spec) => some("objects", spec.objects, "a batch consists of objects"),
        Generator::Ring(spec) => some("cells", spec.cells, "a worker exchanges one of its cells"),
        Generator::Stress(spec) => {
            some("transfers", spec.transfers, "threads swap objects through so many places")
        }
        Generator::Growth(spec) => {
            some("buffers", spec.buffers, "a worker fills buffers one after the other")?;
            let factor = (1.0..=1024.0).contains(&spec.factor);
            allowed(factor, "factor", spec.factor, "a buffer never shrinks", "1 to 1024")?;
            at_most("step", spec.step, MOST_BYTES)?;
            at_most("full", spec.full.largest(), MOST_BYTES)?;
            at_most("first", spec.first.largest(), MOST_BYTES)
        }
        Generator::Profile(spec) => {
            let why = "objects above it are left out";
            allowed(spec.largest > 0, "largest", spec.largest, why, "1 or more")
        }
        Generator::Adversary(spec) => adversary(spec),
        Generator::Server(spec) => {
            some("connections", spec.connections, "a request comes in on one of them")
        }
        Generator::ForkServer(spec) => {
            some("objects", spec.objects, "the parent exchanges one of its objects")
        }
        Generator::Handoff(_)
        | Generator::Pool(_)
        | Generator::Writes(_)
        | Generator::Lifetimes(_) => Ok(()),
    }
}

fn adversary(spec: &Adversary) -> Result<(), String> {
    let why = "one of the living objects is exchanged";
    match *spec {
        Adversary::Robson { smallest, steps, .. } => {
            at_most("smallest", smallest, MOST_BYTES)?;
            let most = MOST_BYTES.ilog2() - smallest.max(1).ilog2() + 1;
            let why = "the last objects would be larger than 2^48 bytes";
            allowed(steps <= most, "steps", steps, why, &format!("at most {most}"))
        }
        Adversary::Sawtooth { .. } => Ok(()),
        Adversary::PlateauDrain { objects, .. } => some("objects", objects, why),
        Adversary::SizeDrift { smallest, largest, objects, .. } => {
            at_most("smallest", smallest, MOST_BYTES)?;
            at_most("largest", largest, MOST_BYTES)?;
            some("objects", objects, why)
        }
    }
}

fn some(name: &str, number: u32, why: &str) -> Result<(), String> {
    allowed(number > 0, name, number, why, "1 or more")
}

fn at_most(name: &str, bytes: u64, most: u64) -> Result<(), String> {
    allowed(bytes <= most, name, bytes, "no object is so large", &format!("at most {most}"))
}

fn allowed(
    holds: bool,
    name: &str,
    value: impl std::fmt::Display,
    why: &str,
    range: &str,
) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => {
            Err(format!("`{name}` of the generator is {value}, but {why}: allowed is {range}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use traces::EventSource;

    use crate::spec::{SourceOptions, Spec, SpecError};

    /// Every generator with small parameters, each of which is set to zero in turn.
    const GENERATORS: &[&[(&str, &str)]] = &[
        &[("kind", "'cells'"), ("cells", "4"), ("bytes", "'fixed 8'"), ("exchanges", "9")],
        &[
            ("kind", "'cells'"),
            ("cells", "4"),
            ("bytes", "'fixed 8'"),
            ("exchanges", "9"),
            ("most_bytes", "64"),
            ("generations", "2"),
            ("toggles", "true"),
            ("skewed", "true"),
        ],
        &[
            ("kind", "'batches'"),
            ("objects", "4"),
            ("bytes", "'fixed 8'"),
            ("order", "'mixed'"),
            ("batches", "3"),
            ("kept_one_in", "2"),
            ("most_bytes", "64"),
            ("shared", "true"),
        ],
        &[
            ("kind", "'handoff'"),
            ("bytes", "'fixed 8'"),
            ("batch", "3"),
            ("depth", "2"),
            ("batches", "3"),
            ("most_bytes", "64"),
        ],
        &[
            ("kind", "'ring'"),
            ("bytes", "'fixed 8'"),
            ("cells", "4"),
            ("exchanges", "3"),
            ("hand_over_every", "2"),
            ("hand_over", "2"),
            ("loops", "3"),
        ],
        &[("kind", "'stress'"), ("allocations", "90"), ("retained", "30"), ("transfers", "5")],
        &[
            ("kind", "'pool'"),
            ("bytes", "'fixed 8'"),
            ("objects", "4"),
            ("left_behind", "0.5"),
            ("released_after", "2"),
            ("rounds", "3"),
        ],
        &[
            ("kind", "'writes'"),
            ("bytes", "'fixed 8'"),
            ("times", "3"),
            ("objects", "3"),
            ("inherited", "true"),
        ],
        &[
            ("kind", "'lifetimes'"),
            ("bytes", "'fixed 8'"),
            ("lifetime", "'uniform 0..9'"),
            ("immortal", "0.1"),
            ("callocs", "0.1"),
            ("reallocs", "0.1"),
            ("allocations", "50"),
            ("phase", "20"),
        ],
        &[
            ("kind", "'growth'"),
            ("buffers", "2"),
            ("first", "'fixed 8'"),
            ("full", "'fixed 64'"),
            ("factor", "1.5"),
            ("step", "8"),
            ("filled", "3"),
        ],
        &[
            ("kind", "'profile'"),
            ("table", "'builtin'"),
            ("heap_bytes", "65536"),
            ("largest", "4096"),
            ("cross", "0.1"),
            ("exchanges", "9"),
        ],
        &[
            ("kind", "'adversary'"),
            ("shape", "'robson'"),
            ("smallest", "2"),
            ("steps", "3"),
            ("step_bytes", "64"),
            ("keep", "2"),
        ],
        &[
            ("kind", "'adversary'"),
            ("shape", "'sawtooth'"),
            ("bytes", "'fixed 8'"),
            ("objects", "4"),
            ("stays", "0.5"),
            ("ramps", "2"),
        ],
        &[
            ("kind", "'adversary'"),
            ("shape", "'plateau-drain'"),
            ("bytes", "'fixed 8'"),
            ("objects", "4"),
            ("exchanges", "9"),
            ("stays", "0.5"),
        ],
        &[
            ("kind", "'adversary'"),
            ("shape", "'size-drift'"),
            ("smallest", "8"),
            ("largest", "64"),
            ("objects", "4"),
            ("exchanges", "9"),
        ],
        &[
            ("kind", "'server'"),
            ("connections", "3"),
            ("connection_bytes", "'fixed 8'"),
            ("requests", "9"),
            ("request_objects", "'fixed 3'"),
            ("request_bytes", "'fixed 8'"),
            ("answer_bytes", "'fixed 8'"),
            ("phase", "3"),
            ("burst", "2"),
            ("turnover", "0.5"),
        ],
        &[
            ("kind", "'fork-server'"),
            ("objects", "4"),
            ("bytes", "'fixed 8'"),
            ("children", "2"),
            ("exchanges", "3"),
        ],
    ];

    /// A workload whose generator has `fields`, of which those that `set` names have its value.
    fn parse(
        fields: &[(&str, &str)],
        set: impl Fn(&str) -> Option<String>,
    ) -> Result<Spec, String> {
        let mut text =
            "name = 'n'\nquestion = 'q'\nbias = 'b'\nseed = 1\nthreads = 2\nrounds = 2\n\
                        short = 1.0\nverify = { allocations = 0, frees = 0 }\n[generator]\n"
                .to_owned();
        for (name, value) in fields {
            let value = set(name).unwrap_or_else(|| (*value).to_owned());
            text.push_str(&format!("{name} = {value}\n"));
        }
        match Spec::parse(&text, "test") {
            Ok(spec) => Ok(spec),
            Err(SpecError::Nonsense { what, .. }) => Err(what),
            Err(error) => panic!("{error:?} in\n{text}"),
        }
    }

    /// Whether the workload comes to its end.
    fn runs(spec: &Spec) {
        let options = SourceOptions { folded: false, ..SourceOptions::default() };
        let mut source = spec.source(&options).unwrap();
        let mut events = 0;
        while source.next_event().unwrap().is_some() {
            events += 1;
            assert!(events < 100_000, "{:?}", spec.generator);
        }
    }

    /// A zero of the kind of number that `value` is; `None` where it is none.
    fn zero(value: &str) -> Option<&'static str> {
        match (value.parse::<u64>(), value.parse::<f64>()) {
            (Ok(_), _) => Some("0"),
            (_, Ok(_)) => Some("0.0"),
            _ if value.starts_with("'fixed") => Some("'fixed 0'"),
            _ => None,
        }
    }

    #[test]
    fn a_parameter_of_zero_is_refused_by_name_or_makes_a_workload_that_ends() {
        let mut refused = Vec::new();
        for fields in GENERATORS {
            runs(&parse(fields, |_| None).unwrap());
            for (name, value) in *fields {
                let Some(zero) = zero(value) else { continue };
                match parse(fields, |field| (field == *name).then(|| zero.to_owned())) {
                    Ok(spec) => runs(&spec),
                    Err(what) => {
                        assert!(what.contains(&format!("`{name}`")), "{what}");
                        assert!(what.contains("allowed is 1"), "{what}");
                        refused.push(*name);
                    }
                }
            }
        }
        let expected = [
            "cells",
            "cells",
            "objects",
            "cells",
            "transfers",
            "buffers",
            "factor",
            "largest",
            "objects",
            "objects",
            "connections",
            "objects",
        ];
        assert_eq!(refused, expected);
    }

    #[test]
    fn sizes_that_would_overflow_are_refused_and_the_largest_allowed_are_not() {
        let find = |name: &str| {
            let wanted = format!("'{name}'");
            *GENERATORS.iter().find(|fields| fields.iter().any(|f| f.1 == wanted)).unwrap()
        };
        let cases = [
            ("robson", "steps", "48", true),
            ("robson", "steps", "49", false),
            ("robson", "steps", "64", false),
            ("robson", "smallest", "9223372036854775807", false),
            ("size-drift", "largest", "281474976710656", true),
            ("size-drift", "largest", "281474976710657", false),
            ("growth", "step", "281474976710657", false),
            ("growth", "step", "281474976710656", true),
            ("growth", "factor", "1024.0", true),
            ("growth", "factor", "1e300", false),
            ("growth", "factor", "nan", false),
            ("growth", "full", "'fixed 9223372036854775807'", false),
        ];
        for (kind, name, value, fine) in cases {
            let spec = parse(find(kind), |field| (field == name).then(|| value.to_owned()));
            match spec {
                Ok(spec) if fine => runs(&spec),
                Err(what) if !fine => assert!(what.contains(&format!("`{name}`")), "{what}"),
                other => panic!("{kind}, {name} = {value}: {other:?}"),
            }
        }
    }
}
