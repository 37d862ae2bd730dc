//! What can be chosen for classic mode, and how options spell it.
//!
//! Owns nothing. Options are `name=value` pairs, as `ALLOCATOR_OPTIONS` holds them.
#![forbid(unsafe_code)]

use super::bytes;

/// A placement strategy, chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementChoice {
    /// `first-fit`: the lowest address that fits.
    FirstFit,
    /// `first-fit-lifo`: the block freed last that fits.
    FirstFitLifo,
    /// `next-fit`: the next address behind the last one used.
    NextFit,
    /// `best-fit`: the smallest block that fits.
    BestFit,
    /// `worst-fit`: the largest block.
    WorstFit,
    /// `quick-fit`: one freed with exactly this size, else first fit.
    QuickFit,
    /// `segregated`: one of the smallest class that surely fits.
    Segregated,
    /// `buddy`: powers of two.
    Buddy,
    /// `slab`: slots of fixed sizes.
    Slab,
}

impl PlacementChoice {
    /// Every choice, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::FirstFit,
        Self::FirstFitLifo,
        Self::NextFit,
        Self::BestFit,
        Self::WorstFit,
        Self::QuickFit,
        Self::Segregated,
        Self::Buddy,
        Self::Slab,
    ];

    /// As options spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstFit => "first-fit",
            Self::FirstFitLifo => "first-fit-lifo",
            Self::NextFit => "next-fit",
            Self::BestFit => "best-fit",
            Self::WorstFit => "worst-fit",
            Self::QuickFit => "quick-fit",
            Self::Segregated => "segregated",
            Self::Buddy => "buddy",
            Self::Slab => "slab",
        }
    }
}

/// What keeps threads apart, chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockChoice {
    /// `global`: one heap, one lock.
    Global,
    /// `arena`: a heap and a lock per processor, up to 16.
    Arena,
    /// `none`: no lock. For programs of one thread; with more the heap breaks.
    None,
}

impl LockChoice {
    /// As options spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Arena => "arena",
            Self::None => "none",
        }
    }
}

/// Everything that can be chosen for classic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `placement=…`
    pub placement: PlacementChoice,
    /// `lock=global|arena|none`
    pub lock: LockChoice,
    /// `cache=on|off`: a cache per thread in front of the heap.
    pub cache: bool,
    /// `coalesce=deferred|immediate`
    pub deferred: bool,
    /// `mmap_threshold=BYTES`: requests of this size and more get a mapping of their own.
    pub mmap_threshold: usize,
    /// `trim_threshold=BYTES`: a free block of this size at the end of a region is given back.
    pub trim_threshold: usize,
    /// `top_pad=BYTES`: how much the pool grows at least, and keeps when it is trimmed.
    pub top_pad: usize,
    /// Whether the pool may grow the program break. Not an option of its own: `sbrk=on|off` is.
    pub sbrk: bool,
}

impl Settings {
    /// Segregated fits, one lock, no cache, immediate coalescing; mappings of their own from 128 KiB, trimming from 256 KiB.
    pub const DEFAULT: Self = Self {
        placement: PlacementChoice::Segregated,
        lock: LockChoice::Global,
        cache: false,
        deferred: false,
        mmap_threshold: 128 << 10,
        trim_threshold: 256 << 10,
        top_pad: 128 << 10,
        sbrk: true,
    };

    /// Applies one `name=value`; `false` if it is not understood.
    pub fn set(&mut self, setting: &[u8]) -> bool {
        let Some(split) = setting.iter().position(|&byte| byte == b'=') else { return false };
        let (name, value) = (setting.get(..split), setting.get(split + 1..));
        let (Some(name), Some(value)) = (name, value) else { return false };
        match name {
            b"placement" => {
                let found = PlacementChoice::ALL.iter().find(|p| p.name().as_bytes() == value);
                found.is_some_and(|&found| {
                    self.placement = found;
                    true
                })
            }
            b"lock" => {
                let choices = [LockChoice::Global, LockChoice::Arena, LockChoice::None];
                let found = choices.into_iter().find(|lock| lock.name().as_bytes() == value);
                found.is_some_and(|found| {
                    self.lock = found;
                    true
                })
            }
            b"cache" => switch(value, b"on", b"off", &mut self.cache),
            b"coalesce" => switch(value, b"deferred", b"immediate", &mut self.deferred),
            b"mmap_threshold" => bytes(value, &mut self.mmap_threshold),
            b"trim_threshold" => bytes(value, &mut self.trim_threshold),
            b"top_pad" => bytes(value, &mut self.top_pad),
            _ => false,
        }
    }
}

fn switch(value: &[u8], yes: &[u8], no: &[u8], to: &mut bool) -> bool {
    if value == yes || value == no {
        *to = value == yes;
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_understood_by_its_name_and_nothing_else_is() {
        let mut settings = Settings::DEFAULT;
        for placement in PlacementChoice::ALL {
            let text = std::format!("placement={}", placement.name());
            assert!(settings.set(text.as_bytes()));
            assert_eq!(settings.placement, placement);
        }
        for setting in ["lock=arena", "cache=on", "coalesce=deferred", "mmap_threshold=64k"] {
            assert!(settings.set(setting.as_bytes()), "{setting}");
        }
        assert_eq!((settings.lock, settings.cache), (LockChoice::Arena, true));
        assert_eq!((settings.deferred, settings.mmap_threshold), (true, 65_536));
        let before = settings;
        for wrong in ["", "=", "lock", "lock=", "cache=yes", "placement=fast", "top_pad=-1", "x=1"]
        {
            assert!(!settings.set(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(settings, before);
    }
}
