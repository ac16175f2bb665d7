//! Memory that tells when somebody touches what isn't theirs: between two pages that can't be read or written, with a
//! pattern in what is left over beside it.
//!
//! A plugin that reads or writes into a guard page, or writes to memory that is read-only for it, ends the process by a
//! signal. [`report_faults`] has a handler say first which buffer it was, and how far from it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::system::{self, Access, page_bytes};
use crate::{Fault, Outcome};

/// What fills the bytes beside a buffer.
const CANARY: u8 = 0xc5;

/// How many buffers the handler of faults can know at once.
const MAX_REGIONS: usize = 4096;

/// Where a buffer lies between its guard pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It begins right after the first: what is before it can't be touched.
    Low,
    /// It ends right before the second, as far as its alignment allows: what is after it can't be touched.
    High,
}

/// A buffer between guard pages.
pub(crate) struct Guarded {
    /// The mapping: a guard page, pages with the buffer in them, a guard page.
    base: *mut u8,
    total: usize,
    /// The buffer's first byte, counted from `base`.
    start: usize,
    len: usize,
    region: Option<&'static Region>,
    what: &'static str,
}

// SAFETY: it owns its mapping, like a Box of bytes.
unsafe impl Send for Guarded {}
// SAFETY: as for Send; through a shared reference it only gives its address away.
unsafe impl Sync for Guarded {}

/// What the handler of faults knows about a buffer.
struct Region {
    /// The mapping's first byte, or 0: unused.
    base: AtomicUsize,
    end: AtomicUsize,
    buffer: AtomicUsize,
    buffer_end: AtomicUsize,
    what: AtomicUsize,
    what_len: AtomicUsize,
}

static REGIONS: [Region; MAX_REGIONS] = [const {
    Region {
        base: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        buffer: AtomicUsize::new(0),
        buffer_end: AtomicUsize::new(0),
        what: AtomicUsize::new(0),
        what_len: AtomicUsize::new(0),
    }
}; MAX_REGIONS];

impl Guarded {
    /// A buffer of `len` bytes, each `fill`; `align` is a power of two, at most a page. `what` it is, for messages.
    pub(crate) fn new(
        what: &'static str,
        len: usize,
        align: usize,
        place: Place,
        fill: u8,
    ) -> Result<Self, Outcome> {
        let none = || Outcome::Skipped(format!("this machine has no {len} bytes of memory for {what}"));
        let page = page_bytes();
        let inner = len.max(1).checked_next_multiple_of(page).ok_or_else(none)?;
        let total = inner.checked_add(2 * page).ok_or_else(none)?;
        let base = system::reserve(total).ok_or_else(none)?;
        let start = match place {
            Place::Low => page,
            Place::High => page + ((inner - len) & !(align - 1)),
        };
        let mut made = Self { base, total, start, len, region: None, what };
        if !made.protect(Access::Write) {
            return Err(none());
        }
        // SAFETY: the pages between the guards, writable since the last statement.
        unsafe {
            if len < inner {
                std::slice::from_raw_parts_mut(made.base.add(page), inner).fill(CANARY);
            }
            std::slice::from_raw_parts_mut(made.base.add(start), len).fill(fill);
        }
        made.register();
        Ok(made)
    }

    /// A read-only copy of bytes.
    pub(crate) fn copy_of(
        what: &'static str,
        bytes: &[u8],
        align: usize,
        place: Place,
    ) -> Result<Self, Outcome> {
        let mut made = Self::new(what, bytes.len(), align, place, 0)?;
        made.bytes_mut().copy_from_slice(bytes);
        made.read_only();
        Ok(made)
    }

    /// From now on, writing to it ends the process.
    pub(crate) fn read_only(&self) {
        // Where that fails, it stays writable, and less is found.
        self.protect(Access::Read);
    }

    /// It may be written to again.
    pub(crate) fn writable(&self) {
        self.protect(Access::Write);
    }

    fn protect(&self, access: Access) -> bool {
        let page = page_bytes();
        // SAFETY: the pages between the guards are this buffer's own.
        unsafe { system::protect(self.base.add(page), self.total - 2 * page, access) }
    }

    /// Where it begins.
    pub(crate) fn pointer(&self) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.base.add(self.start) }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is in it; while nobody else writes to it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: its own bytes, readable for as long as it lives.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len) }
    }

    /// What is in it, to be written; while it is writable.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: its own bytes, borrowed alone; callers write before they make it read-only.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len) }
    }

    /// As float32.
    pub(crate) fn floats(&self) -> Vec<f32> {
        let four = |bytes: &[u8]| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.bytes().chunks_exact(4).map(four).collect()
    }

    /// Fails where something wrote beside it, between its ends and the guard pages.
    pub(crate) fn check_beside(&self) -> Result<(), Outcome> {
        let page = page_bytes();
        // SAFETY: the pages between the guards are readable.
        let inner = unsafe { std::slice::from_raw_parts(self.base.add(page), self.total - 2 * page) };
        let begin = self.start - page;
        let (before, after) = (&inner[..begin], &inner[begin + self.len..]);
        if let Some(back) = before.iter().rev().position(|byte| *byte != CANARY) {
            return Err(self.wrote_beside(format!("{} bytes before it", back + 1)));
        }
        match after.iter().position(|byte| *byte != CANARY) {
            Some(past) => Err(self.wrote_beside(format!("{past} bytes after its end"))),
            None => Ok(()),
        }
    }

    fn wrote_beside(&self, place: String) -> Outcome {
        let sentence = format!("it wrote beside {} of {} bytes, {place}", self.what, self.len);
        Outcome::Failed(Fault::WritesOutside, sentence)
    }

    fn register(&mut self) {
        let base = self.base as usize;
        let free = |region: &&Region| {
            region.base.compare_exchange(0, base, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        self.region = REGIONS.iter().find(free);
        if let Some(region) = self.region {
            region.buffer.store(self.pointer() as usize, Ordering::Relaxed);
            region.buffer_end.store(self.pointer() as usize + self.len, Ordering::Relaxed);
            region.what.store(self.what.as_ptr() as usize, Ordering::Relaxed);
            region.what_len.store(self.what.len(), Ordering::Relaxed);
            region.end.store(base + self.total, Ordering::Release);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(region) = self.region {
            region.end.store(0, Ordering::Release);
            region.base.store(0, Ordering::Release);
        }
        // SAFETY: the mapping is this buffer's own, and it goes.
        unsafe { system::release(self.base, self.total) };
    }
}

/// Where a plugin touched memory that wasn't its own.
#[derive(Clone, Copy, Debug)]
pub struct Violation {
    what: &'static str,
    /// Whether it wrote; `None` where the system doesn't say.
    wrote: Option<bool>,
    place: Touched,
}

#[derive(Clone, Copy, Debug)]
enum Touched {
    Before(usize),
    After(usize),
    Inside,
}

impl Violation {
    /// The fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match (self.wrote, self.place) {
            (Some(false), _) | (None, Touched::Before(_) | Touched::After(_)) => Fault::ReadsOutside,
            _ => Fault::WritesOutside,
        }
    }
}

/// A sentence. It takes no memory, so that a signal handler may write it.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = match self.wrote {
            Some(true) => "wrote to",
            Some(false) => "read from",
            None => "touched",
        };
        match self.place {
            Touched::Before(bytes) => write!(f, "it {did} memory {bytes} bytes before {}", self.what),
            Touched::After(bytes) => {
                write!(f, "it {did} memory {bytes} bytes after the end of {}", self.what)
            }
            Touched::Inside => write!(f, "it {did} {}, which it may only read", self.what),
        }
    }
}

static REPORT: AtomicUsize = AtomicUsize::new(0);

/// Has `report` called, once, when a plugin touches memory beside a guarded buffer or writes to one that is read-only: in a
/// signal handler, so it may do only what those may. The process ends by the signal afterwards.
pub fn report_faults(report: fn(&Violation)) {
    REPORT.store(report as usize, Ordering::SeqCst);
    system::report_to(on_fault);
}

fn on_fault(address: usize, wrote: Option<bool>) {
    let report = REPORT.swap(0, Ordering::SeqCst);
    if report == 0 {
        return;
    }
    if let Some(violation) = violation_at(address, wrote) {
        // SAFETY: only `report_faults` stores anything but 0, and that is such a function.
        let report: fn(&Violation) = unsafe { std::mem::transmute::<usize, fn(&Violation)>(report) };
        report(&violation);
    }
}

fn violation_at(address: usize, wrote: Option<bool>) -> Option<Violation> {
    let region = REGIONS.iter().find(|region| {
        let base = region.base.load(Ordering::Acquire);
        base != 0 && (base..region.end.load(Ordering::Acquire)).contains(&address)
    })?;
    let (buffer, end) = (region.buffer.load(Ordering::Relaxed), region.buffer_end.load(Ordering::Relaxed));
    // SAFETY: `register` stored the pointer and the length of a static text.
    let what: &'static str = unsafe {
        let bytes = std::slice::from_raw_parts(
            region.what.load(Ordering::Relaxed) as *const u8,
            region.what_len.load(Ordering::Relaxed),
        );
        std::str::from_utf8_unchecked(bytes)
    };
    let place = match address {
        _ if address < buffer => Touched::Before(buffer - address),
        _ if address >= end => Touched::After(address - end),
        _ => Touched::Inside,
    };
    Some(Violation { what, wrote, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_beside_a_buffer_is_found_on_both_sides() {
        for place in [Place::Low, Place::High] {
            let mut kept = Guarded::new("a buffer", 100, 64, place, 7).expect("memory");
            assert_eq!(kept.pointer() as usize % 64, 0);
            assert_eq!(kept.bytes(), [7; 100]);
            kept.bytes_mut().fill(9);
            assert_eq!(kept.check_beside(), Ok(()));
            // SAFETY: the pages around it hold more than its 100 bytes.
            unsafe { kept.pointer().add(103).write(0) };
            let Err(Outcome::Failed(fault, sentence)) = kept.check_beside() else { panic!("nothing found") };
            assert_eq!(fault, Fault::WritesOutside);
            assert_eq!(sentence, "it wrote beside a buffer of 100 bytes, 3 bytes after its end");
        }
    }

    #[test]
    fn a_fault_beside_a_buffer_is_told_by_its_address() {
        let kept = Guarded::new("a buffer", 4096, 64, Place::High, 0).expect("memory");
        let end = kept.pointer() as usize + kept.len();
        let past = violation_at(end + 8, Some(false)).expect("its guard page");
        assert_eq!(past.fault(), Fault::ReadsOutside);
        assert_eq!(past.to_string(), "it read from memory 8 bytes after the end of a buffer");
        let before = violation_at(kept.pointer() as usize - 4, Some(true)).expect("its guard page");
        assert_eq!(before.fault(), Fault::WritesOutside);
        assert_eq!(before.to_string(), "it wrote to memory 4 bytes before a buffer");
        let inside = violation_at(end - 1, Some(true)).expect("the buffer");
        assert_eq!(inside.to_string(), "it wrote to a buffer, which it may only read");
    }
}
