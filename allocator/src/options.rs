//! Settings, from `ALLOCATOR_OPTIONS=name=value,name=value` or from the C face.
//!
//! Read once, in the first slow call, without allocating. Ignored in processes that run with more
//! rights than their caller. A name or value that is not understood is reported in one line on
//! standard error and passed over; so are those of classic mode, whatever mode is chosen.

use core::ffi::{CStr, c_char};

use crate::os;

pub(crate) mod settings;

use settings::Settings;

/// How memory that is free is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPolicy {
    /// Kept for half a second, up to a quarter above the recent peak.
    Balanced,
    /// Given back soon: at most 1/8 of the peak stays.
    Low,
}

/// Who serves requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Thread heaps over slabs, bitmap spans and mappings.
    Production,
    /// One boundary-tag heap, or arenas of them, as `placement`, `lock` and their like choose.
    Classic,
}

/// What hardened builds do at run time; each can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardening {
    /// `canary=on|off`: bytes behind and in front of an object are looked at when it is freed.
    Canary = 1,
    /// `zero=on|off`: a freed object is set to zero. Cannot be switched on after the first allocation.
    Zero = 2,
    /// `quarantine=on|off`: a freed block waits before it is handed out again.
    Quarantine = 4,
    /// `shuffle=on|off`: the blocks of a page are handed out in no order that could be guessed.
    Shuffle = 8,
    /// `guard=on|off|N`: touching some slices of each segment ends the process; with a number, one
    /// in N of those slices.
    Guard = 16,
    /// `copies=on|off`: `memcpy`, `memmove` and `memset` write to one live object only.
    Copies = 32,
}

/// The bits of all [`Hardening`].
const ALL_HARDENING: u32 = 63;

/// What is in force, where fast paths look. Not from `sync`: loom's atomics cannot stand in a static.
static HARDENING: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(ALL_HARDENING);

/// Whether a hardened build does this; always false in others.
#[inline(always)]
pub fn hardening(what: Hardening) -> bool {
    cfg!(feature = "hardened")
        && HARDENING.load(core::sync::atomic::Ordering::Relaxed) & what as u32 != 0
}

/// Of so many guards one is put up. As `HARDENING`, a static of core's.
static GUARD_ONE_IN: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(1);
/// Guards asked for so far.
#[cfg(feature = "hardened")]
static GUARDS: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Whether every guard is to be put up.
#[cfg(feature = "hardened")]
pub(crate) fn guards_all() -> bool {
    use core::sync::atomic::Ordering::Relaxed;
    hardening(Hardening::Guard) && GUARD_ONE_IN.load(Relaxed) <= 1
}

/// Whether the guard that could be put up now should be.
#[cfg(feature = "hardened")]
pub(crate) fn guard_is_due() -> bool {
    use core::sync::atomic::Ordering::Relaxed;
    let one_in = GUARD_ONE_IN.load(Relaxed).max(1);
    hardening(Hardening::Guard) && GUARDS.fetch_add(1, Relaxed).is_multiple_of(one_in)
}

/// When the library writes a report of itself to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Only when a function asks for it.
    Never,
    /// When the process ends by `exit` or by returning from `main`.
    Exit,
    /// When the process gets SIGUSR1.
    Usr1,
    /// When the process gets SIGUSR2.
    Usr2,
}

/// Everything that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `mode=production|classic`; counts only before the first allocation.
    pub mode: Mode,
    /// `memory=balanced|low`
    pub memory: MemoryPolicy,
    /// `sbrk=on|off`: whether small requests grow the program break. Unset: where this library
    /// serves malloc for the whole process. Counts only before the first allocation.
    pub sbrk: Option<bool>,
    /// `purge=calls|thread`: whether a thread of the allocator's own gives free memory back while
    /// the program makes no calls. Without it that happens on the way of slow calls.
    pub purge_thread: bool,
    /// `huge_pages=off|on`: whether memory taken from now on asks for huge pages.
    pub huge_pages: bool,
    /// `report=never|exit|usr1|usr2`; counts only before the first allocation, in the C face.
    pub report: Report,
    /// `sample=BYTES|off`: one allocation in so many allocated bytes is noted with its callers; 0: none.
    pub sample: usize,
    /// `sample_prefix=PATH`: where profiles go that nobody asks for by name.
    pub sample_prefix: Prefix,
    /// Bits of [`Hardening`]: what a hardened build does. Other builds do not know the options.
    hardening: u32,
    /// Of so many guards a hardened build puts one up.
    guard_one_in: u32,
}

impl Options {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Options {
        mode: Mode::Production,
        memory: MemoryPolicy::Balanced,
        sbrk: None,
        purge_thread: false,
        huge_pages: false,
        report: Report::Never,
        sample: 0,
        sample_prefix: Prefix::DEFAULT,
        hardening: ALL_HARDENING,
        guard_one_in: 1,
    };

    /// The settings of `ALLOCATOR_OPTIONS`.
    pub(crate) fn from_environment() -> Self {
        let mut options = Self::DEFAULT;
        for_each_setting(|setting| options.set(setting) || is_of_classic_mode(setting));
        options
    }

    /// Applies one `name=value`; false if it is not understood.
    pub(crate) fn set(&mut self, setting: &[u8]) -> bool {
        match setting {
            b"mode=production" => self.mode = Mode::Production,
            b"mode=classic" => self.mode = Mode::Classic,
            b"memory=balanced" => self.memory = MemoryPolicy::Balanced,
            b"memory=low" => self.memory = MemoryPolicy::Low,
            b"purge=calls" => self.purge_thread = false,
            b"purge=thread" => self.purge_thread = true,
            b"huge_pages=off" => self.huge_pages = false,
            b"huge_pages=on" => self.huge_pages = true,
            b"report=never" => self.report = Report::Never,
            b"report=exit" => self.report = Report::Exit,
            b"report=usr1" => self.report = Report::Usr1,
            b"report=usr2" => self.report = Report::Usr2,
            b"sbrk=on" => self.sbrk = Some(true),
            b"sbrk=off" => self.sbrk = Some(false),
            b"sample=off" => self.sample = 0,
            _ => return self.set_by_name(setting),
        }
        true
    }

    fn set_by_name(&mut self, setting: &[u8]) -> bool {
        if let Some(value) = setting.strip_prefix(b"sample=") {
            return bytes(value, &mut self.sample);
        }
        if let Some(path) = setting.strip_prefix(b"sample_prefix=") {
            return self.sample_prefix.set(path);
        }
        cfg!(feature = "hardened") && self.set_hardening(setting)
    }

    fn set_hardening(&mut self, setting: &[u8]) -> bool {
        let named: [(&[u8], Hardening); 6] = [
            (b"canary", Hardening::Canary),
            (b"zero", Hardening::Zero),
            (b"quarantine", Hardening::Quarantine),
            (b"shuffle", Hardening::Shuffle),
            (b"guard", Hardening::Guard),
            (b"copies", Hardening::Copies),
        ];
        for (name, what) in named {
            let value = setting.strip_prefix(name);
            if let (Hardening::Guard, Some([b'=', digits @ ..])) = (what, value)
                && let Some(one_in) = positive(digits)
            {
                self.hardening |= what as u32;
                self.guard_one_in = one_in;
                return true;
            }
            match value {
                Some(b"=on") => {
                    self.hardening |= what as u32;
                    if what == Hardening::Guard {
                        self.guard_one_in = 1;
                    }
                }
                Some(b"=off") => self.hardening &= !(what as u32),
                _ => continue,
            }
            return true;
        }
        false
    }

    /// What counts only before the first allocation. `owned`: what holds while `sbrk` is not set.
    pub(crate) fn for_the_start(&self, owned: bool) -> (Mode, bool, Report) {
        (self.mode, self.sbrk.unwrap_or(owned), self.report)
    }

    /// Whether these may follow `before` once objects were freed: `zero` cannot come on, since what was freed
    /// without it is not zero and would be taken for written to.
    pub(crate) fn may_follow(&self, before: &Self) -> bool {
        self.hardening & !before.hardening & Hardening::Zero as u32 == 0
    }

    /// Puts what fast paths look at in force.
    pub(crate) fn publish(&self) {
        HARDENING.store(self.hardening, core::sync::atomic::Ordering::Relaxed);
        GUARD_ONE_IN.store(self.guard_one_in, core::sync::atomic::Ordering::Relaxed);
    }
}

/// The beginning of a file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; Self::LONGEST],
    /// 0 for the default.
    length: usize,
}

impl Prefix {
    /// Bytes at most.
    pub const LONGEST: usize = 200;

    /// `allocator`, in the current directory.
    pub const DEFAULT: Self = Prefix { bytes: [0; Self::LONGEST], length: 0 };

    /// The path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self.length {
            0 => b"allocator",
            length => self.bytes.get(..length).unwrap_or(&[]),
        }
    }

    fn set(&mut self, path: &[u8]) -> bool {
        let fits =
            self.bytes.get_mut(..path.len()).filter(|_| !path.is_empty() && !path.contains(&0));
        let Some(place) = fits else { return false };
        place.copy_from_slice(path);
        self.length = path.len();
        true
    }
}

/// A decimal number with an optional `k`, `m` or `g`, for 2^10, 2^20 or 2^30.
pub(crate) fn bytes(value: &[u8], to: &mut usize) -> bool {
    let (digits, unit) = match value.split_last() {
        Some((b'k' | b'K', rest)) => (rest, 1usize << 10),
        Some((b'm' | b'M', rest)) => (rest, 1 << 20),
        Some((b'g' | b'G', rest)) => (rest, 1 << 30),
        _ => (value, 1),
    };
    let Some(number) = decimal(digits).and_then(|number| number.checked_mul(unit)) else {
        return false;
    };
    *to = number;
    true
}

/// A number of digits alone: no sign.
fn decimal(digits: &[u8]) -> Option<usize> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// A decimal number from 1 to 4294967295.
fn positive(digits: &[u8]) -> Option<u32> {
    decimal(digits).and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0)
}

/// Whether a setting is one of classic mode's own, with a value that it has.
pub(crate) fn is_of_classic_mode(setting: &[u8]) -> bool {
    let mut nobodys = Settings::DEFAULT;
    nobodys.set(setting)
}

unsafe extern "C" {
    /// As `getenv`, but null in a process with more rights than its caller.
    fn secure_getenv(name: *const c_char) -> *mut c_char;
}

/// Calls `apply` with each `name=value` of `ALLOCATOR_OPTIONS`; what it does not understand
/// (false) is reported in one line.
pub(crate) fn for_each_setting(mut apply: impl FnMut(&[u8]) -> bool) {
    // SAFETY: libc's environment, which it hides in a process with more rights than its caller; a
    // concurrent setenv is the program's own race, as with any getenv in a library.
    let value = unsafe {
        let value = secure_getenv(c"ALLOCATOR_OPTIONS".as_ptr());
        if value.is_null() {
            return;
        }
        CStr::from_ptr(value)
    };
    for setting in value.to_bytes().split(|&byte| byte == b',') {
        if !setting.is_empty() && !apply(setting) {
            os::write_stderr(complaint(setting, &mut [0; LINE]));
        }
    }
}

/// Bytes of a line that names a setting, at most.
const LINE: usize = 512;

/// The line that names `setting`, with `?` for each control character and a long one cut. It is
/// written by one call, so that nothing another thread or process writes comes in between.
fn complaint<'line>(setting: &[u8], line: &'line mut [u8; LINE]) -> &'line [u8] {
    const SAYS: &[u8] = b"allocator: ALLOCATOR_OPTIONS: not understood, ignored: ";
    const CUT: &[u8] = b"...\n";
    let (shown, end) = match setting.get(..LINE - SAYS.len() - CUT.len()) {
        Some(start) if start.len() < setting.len() => (start, CUT),
        _ => (setting, &b"\n"[..]),
    };
    let shown = shown.iter().map(|&byte| if byte.is_ascii_control() { b'?' } else { byte });
    let text = SAYS.iter().copied().chain(shown).chain(end.iter().copied());
    let mut length = 0;
    for (to, byte) in line.iter_mut().zip(text) {
        *to = byte;
        length += 1;
    }
    line.get(..length).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_understood_or_refused() {
        let mut options = Options::DEFAULT;
        assert!(options.set(b"memory=low"));
        assert!(options.set(b"sbrk=off"));
        assert!(options.set(b"purge=thread"));
        assert!(options.set(b"huge_pages=on"));
        let wanted = Options {
            memory: MemoryPolicy::Low,
            sbrk: Some(false),
            purge_thread: true,
            huge_pages: true,
            ..Options::DEFAULT
        };
        assert_eq!(options, wanted);
        for (value, bytes) in [("512K", 512 << 10), ("1", 1), ("2m", 2 << 20), ("off", 0), ("0", 0)]
        {
            assert!(options.set(std::format!("sample={value}").as_bytes()));
            assert_eq!(options.sample, bytes);
        }
        assert_eq!(options.sample_prefix.as_bytes(), b"allocator");
        assert!(options.set(b"sample_prefix=/tmp/a"));
        assert_eq!(options.sample_prefix.as_bytes(), b"/tmp/a");
        for wrong in [
            "sample=",
            "sample=-1",
            "sample=+5",
            "sample=+5k",
            "sample=k",
            "sample_prefix=",
            &"sample_prefix=x".repeat(99),
        ] {
            assert!(!options.set(wrong.as_bytes()), "{wrong}");
        }
        for (setting, one_in) in
            [(&b"guard=1"[..], 1), (b"guard=64", 64), (b"guard=4294967295", !0)]
        {
            assert_eq!(options.set(setting), cfg!(feature = "hardened"));
            assert!(options.guard_one_in == one_in || !cfg!(feature = "hardened"));
        }
        for wrong in [&b"guard=0"[..], b"guard=+1", b"guard=", b"guard=1k", b"canary=2"] {
            assert!(!options.set(wrong));
        }
        for wrong in [&b"memory=lower"[..], b"memory", b"=", b"sbrk=1"] {
            assert!(!options.set(wrong));
        }
    }

    #[test]
    fn of_all_switches_zero_alone_cannot_come_on_while_the_process_runs() {
        for name in ["canary", "zero", "quarantine", "shuffle", "guard", "copies"] {
            let on = Options::DEFAULT;
            let mut off = on;
            assert_eq!(off.set(std::format!("{name}=off").as_bytes()), cfg!(feature = "hardened"));
            assert!(off.may_follow(&on) && off.may_follow(&off) && on.may_follow(&on));
            assert!(on.may_follow(&off) || name == "zero" && cfg!(feature = "hardened"));
            assert!(!on.may_follow(&off) || name != "zero" || on == off);
        }
    }

    #[test]
    fn a_setting_that_is_not_understood_is_named_in_one_line_and_a_long_one_is_cut() {
        let line = |setting: &[u8]| complaint(setting, &mut [0; LINE]).to_vec();
        let said = b"allocator: ALLOCATOR_OPTIONS: not understood, ignored: ";
        assert_eq!(line(b"a\nb=\x1b"), [&said[..], b"a?b=?\n"].concat());
        let fits = LINE - said.len() - 4;
        for length in [0, 1, fits - 1, fits] {
            let setting = std::vec![b'x'; length];
            assert_eq!(line(&setting), [&said[..], &setting, b"\n"].concat());
        }
        for length in [fits + 1, fits + 4, 100_000] {
            let cut = line(&std::vec![b'x'; length]);
            assert_eq!(cut, [&said[..], &std::vec![b'x'; fits], b"...\n"].concat());
            assert_eq!(cut.len(), LINE);
        }
    }
}
