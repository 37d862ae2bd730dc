//! The profile as text: gperftools' heap profile, version 2, which `pprof` and `jeprof` read.
//!
//! ```text
//! heap profile: LIVE: BYTES [EVER: BYTES] @ heap_v2/MEAN
//!   LIVE: BYTES [EVER: BYTES] @ 0xRETURN 0xRETURN …
//!
//! MAPPED_LIBRARIES:
//! …/proc/self/maps…
//! ```
//!
//! Counts are of samples; a reader multiplies each site's by 1 / (1 - exp(-size / MEAN)), for its mean
//! size. Addresses are those of this process, which is why its maps follow.
//!
//! Source: gperftools, docs/heapprofile.html; pprof's `profile/legacy_profile.go` (`parseHeap`).

#![forbid(unsafe_code)]

use core::ffi::CStr;

use super::{Site, for_each_site, sites};
use crate::os::{File, OsError};

/// Bytes on their way to a file.
struct Text {
    file: File,
    bytes: [u8; 1024],
    used: usize,
    failed: Option<OsError>,
}

impl Text {
    fn put(&mut self, text: &[u8]) -> &mut Self {
        for &byte in text {
            if self.used == self.bytes.len() {
                self.flush();
            }
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = byte;
                self.used += 1;
            }
        }
        self
    }

    fn number(&mut self, value: u64, base: u64) -> &mut Self {
        let mut digits = [0u8; 20]; // u64::MAX has 20
        let (mut rest, mut first) = (value, digits.len());
        for digit in digits.iter_mut().rev() {
            let low = rest.checked_rem(base).unwrap_or(0) as u8;
            *digit = if low < 10 { b'0' + low } else { b'a' + low - 10 };
            rest = rest.checked_div(base).unwrap_or(0);
            first -= 1;
            if rest == 0 {
                break;
            }
        }
        self.put(digits.get(first..).unwrap_or(&[]))
    }

    fn counts(&mut self, [live, live_bytes, ever, bytes]: [u64; 4]) -> &mut Self {
        self.number(live, 10).put(b": ").number(live_bytes, 10).put(b" [");
        self.number(ever, 10).put(b": ").number(bytes, 10).put(b"] @")
    }

    fn flush(&mut self) {
        let bytes = self.bytes.get(..self.used).unwrap_or(&[]);
        if self.failed.is_none() {
            self.failed = self.file.write(bytes).err();
        }
        self.used = 0;
    }
}

fn counts(site: &Site) -> [u64; 4] {
    [site.live_objects, site.live_bytes, site.objects, site.bytes]
}

/// Writes the profile to a new file, or over an old one. Allocates nothing.
///
/// # Errors
/// The error number of the system call that failed; `ENODATA` if nothing was ever sampled because
/// sampling was never on.
pub fn dump(path: &CStr) -> Result<(), i32> {
    if !sites::exist() {
        return Err(libc::ENODATA);
    }
    let file = File::create(path).map_err(|error| error.errno)?;
    let mut sum = [0u64; 4];
    for_each_site(|site| {
        for (sum, count) in sum.iter_mut().zip(counts(site)) {
            *sum += count;
        }
    });
    let mut text = Text { file, bytes: [0; 1024], used: 0, failed: None };
    text.put(b"heap profile: ")
        .counts(sum)
        .put(b" heap_v2/")
        .number(mean_of_profile(), 10)
        .put(b"\n");
    for_each_site(|site| {
        text.put(b"  ").counts(counts(site));
        for &address in site.stack() {
            text.put(b" 0x").number(address as u64, 16);
        }
        text.put(b"\n");
    });
    text.put(b"\nMAPPED_LIBRARIES:\n");
    copy_maps(&mut text).map_err(|error| error.errno)?;
    text.flush();
    text.failed.map_or(Ok(()), |error| Err(error.errno))
}

/// The mean distance that the samples were taken with, also after sampling was switched off.
fn mean_of_profile() -> u64 {
    super::LAST_MEAN.load(crate::sync::Ordering::Relaxed) as u64
}

fn copy_maps(text: &mut Text) -> Result<(), OsError> {
    let maps = File::open(c"/proc/self/maps")?;
    let mut buffer = [0; 1024];
    loop {
        let bytes = maps.read(&mut buffer)?;
        if bytes.is_empty() {
            return Ok(());
        }
        text.put(bytes);
    }
}
