//! A hostile model file must not make its reader take much more memory than the file itself.
//!
//! A test program of its own, since it counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use herald::gguf::Gguf;

/// The system's allocator, with a count of what is held and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory that it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that parsing took, and whether the bytes parsed.
fn most_taken(bytes: &[u8]) -> (usize, bool) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let parsed = Gguf::from_bytes(bytes).is_ok();
    (PEAK.load(Ordering::Relaxed) - before, parsed)
}

fn header(tensors: u64, entries: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes
}

fn put_string(bytes: &mut Vec<u8>, string: &str) {
    bytes.extend((string.len() as u64).to_le_bytes());
    bytes.extend(string.as_bytes());
}

#[test]
fn memory_is_bounded_by_the_file() {
    const COUNT: u64 = 100_000;

    // Claims as large as the file's size lets them be, with nothing behind them.
    let mut claims = header(20_000, 20_000);
    claims.resize(1 << 20, 0);

    // The smallest entries there can be, all of them real.
    let mut entries = header(0, COUNT);
    for number in 0..COUNT {
        put_string(&mut entries, &format!("{number:x}"));
        entries.extend(7_u32.to_le_bytes());
        entries.push(1);
    }

    // One array of empty strings.
    let mut strings = header(0, 1);
    put_string(&mut strings, "k");
    strings.extend(9_u32.to_le_bytes());
    strings.extend(8_u32.to_le_bytes());
    strings.extend(COUNT.to_le_bytes());
    strings.resize(strings.len() + 8 * COUNT as usize, 0);

    // The smallest tensors there can be, each with 32 bytes of data as its alignment asks.
    let mut tensors = header(COUNT, 0);
    for number in 0..COUNT {
        put_string(&mut tensors, &format!("{number:x}"));
        tensors.extend(1_u32.to_le_bytes());
        tensors.extend(1_u64.to_le_bytes());
        tensors.extend(0_u32.to_le_bytes());
        tensors.extend((number * 32).to_le_bytes());
    }
    tensors.resize(tensors.len() + 32 * (COUNT as usize + 1), 0);

    for (name, bytes, parses, times) in [
        ("claims", claims, false, 1),
        ("entries", entries, true, 16),
        ("strings", strings, true, 1),
        ("tensors", tensors, true, 8),
    ] {
        let (taken, parsed) = most_taken(&bytes);
        assert_eq!(parsed, parses, "{name}");
        assert!(taken < bytes.len() * times, "{name}: {taken} bytes for a file of {}", bytes.len());
    }
}
