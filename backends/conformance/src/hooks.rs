//! Counts what a plugin asks of the system while it is watched: memory, and threads.
//!
//! Dynamically linked code calls `malloc` and its like through its global offset table. Every loaded object's entries for
//! them are set to functions of this file, which count where the calling thread is watched, and then do what was asked. Only
//! 64-bit Linux with glibc or musl on x86-64 and AArch64 has this; elsewhere nothing is counted, and [`install`] says so.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What watched threads have asked for.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Calls that allocate memory.
    allocations: AtomicU64,
    /// Allocations less what was freed.
    kept: AtomicI64,
    /// Threads that were started.
    threads: AtomicU64,
}

impl Counters {
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// How many allocations were not given back.
    pub(crate) fn kept(&self) -> i64 {
        self.kept.load(Ordering::Relaxed)
    }

    pub(crate) fn threads(&self) -> u64 {
        self.threads.load(Ordering::Relaxed)
    }

    #[cfg_attr(
        not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
        expect(dead_code, reason = "nothing is counted here")
    )]
    fn allocated(&self) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg_attr(
        not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
        expect(dead_code, reason = "nothing is counted here")
    )]
    fn freed(&self) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static WATCHED_BY: Cell<*const Counters> = const { Cell::new(ptr::null()) };
}

/// Watches this thread until it is dropped.
pub(crate) struct Watch {
    before: *const Counters,
}

impl Watch {
    /// Counts for `counters`, or for nobody.
    ///
    /// # Safety
    /// The counters outlive the watch, which is dropped on this thread.
    pub(crate) unsafe fn begin(counters: *const Counters) -> Self {
        Self { before: WATCHED_BY.replace(counters) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED_BY.set(self.before);
    }
}

/// Calls `count` with the counters that this thread is watched for.
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    expect(dead_code, reason = "nothing is counted here")
)]
fn count(count: impl FnOnce(&Counters)) {
    // A thread that ends has no thread-local variables any more.
    let counters = WATCHED_BY.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: `Watch::begin`'s contract: they outlive the watch.
    if let Some(counters) = unsafe { counters.as_ref() } {
        count(counters);
    }
}

/// Sets the entries of every object that is loaded by now; again after others were loaded. Whether that is possible here.
pub(crate) fn install() -> bool {
    table::install()
}

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod table {
    pub(super) fn install() -> bool {
        false
    }
}

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod table {
    use std::ffi::{CStr, c_void};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::count;

    /// The system's own functions, in the order of [`HOOKS`].
    static REAL: [AtomicUsize; HOOKS.len()] = [const { AtomicUsize::new(0) }; HOOKS.len()];

    macro_rules! hooks {
        ($($index:literal $name:literal: fn $hook:ident($($argument:ident: $type:ty),*) $(-> $returns:ty)? { $counts:expr })*) => {
            const HOOKS: &[(&CStr, usize)] = &[$(($name, $index)),*];

            fn hook(index: usize) -> usize {
                match index {
                    $($index => $hook as *const () as usize,)*
                    _ => 0,
                }
            }

            $(unsafe extern "C" fn $hook($($argument: $type),*) $(-> $returns)? {
                type Real = unsafe extern "C" fn($($type),*) $(-> $returns)?;
                // SAFETY: `install` stored the address of the system's function of this name before any entry leads here.
                let real: Real = unsafe { std::mem::transmute(REAL[$index].load(Ordering::Relaxed)) };
                #[allow(clippy::redundant_closure_call, reason = "a macro's way to name the arguments")]
                ($counts)($($argument),*);
                // SAFETY: the caller's arguments, for the function that it called.
                unsafe { real($($argument),*) }
            })*
        };
    }

    hooks! {
        0 c"malloc": fn malloc(size: usize) -> *mut c_void { |_| count(super::Counters::allocated) }
        1 c"calloc": fn calloc(n: usize, size: usize) -> *mut c_void { |_, _| count(super::Counters::allocated) }
        2 c"realloc": fn realloc(from: *mut c_void, size: usize) -> *mut c_void {
            |from: *mut c_void, size| count(|counters| {
                counters.allocated();
                if !from.is_null() {
                    counters.freed();
                }
                if size == 0 && !from.is_null() {
                    counters.freed();
                }
            })
        }
        3 c"posix_memalign": fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> i32 {
            |_, _, _| count(super::Counters::allocated)
        }
        4 c"aligned_alloc": fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
            |_, _| count(super::Counters::allocated)
        }
        5 c"memalign": fn memalign(align: usize, size: usize) -> *mut c_void {
            |_, _| count(super::Counters::allocated)
        }
        6 c"free": fn free(memory: *mut c_void) {
            |memory: *mut c_void| if !memory.is_null() { count(super::Counters::freed) }
        }
        7 c"pthread_create": fn pthread_create(
            thread: *mut c_void,
            attributes: *const c_void,
            start: *const c_void,
            argument: *mut c_void
        ) -> i32 {
            |_, _, _, _| count(|counters| { counters.threads.fetch_add(1, Ordering::Relaxed); })
        }
        8 c"mmap": fn mmap(at: *mut c_void, len: usize, protection: i32, flags: i32, file: i32, offset: i64)
            -> *mut c_void { |_, _, _, _, _, _| count(super::Counters::allocated) }
        9 c"mmap64": fn mmap64(at: *mut c_void, len: usize, protection: i32, flags: i32, file: i32, offset: i64)
            -> *mut c_void { |_, _, _, _, _, _| count(super::Counters::allocated) }
        10 c"munmap": fn munmap(at: *mut c_void, len: usize) -> i32 { |_, _| count(super::Counters::freed) }
        11 c"fork": fn fork() -> i32 { || count(|counters| { counters.threads.fetch_add(1, Ordering::Relaxed); }) }
    }

    /// An entry of a dynamic section (ELF-64, "Dynamic Section").
    #[repr(C)]
    struct Dynamic {
        tag: i64,
        value: u64,
    }

    /// A relocation with its addend.
    #[repr(C)]
    struct Relocation {
        offset: u64,
        info: u64,
        addend: i64,
    }

    const DT_STRTAB: i64 = 5;
    const DT_SYMTAB: i64 = 6;
    const DT_RELA: i64 = 7;
    const DT_RELASZ: i64 = 8;
    const DT_PLTRELSZ: i64 = 2;
    const DT_JMPREL: i64 = 23;

    /// Relocations that put a function's address into the table: R_*_GLOB_DAT and R_*_JUMP_SLOT.
    #[cfg(target_arch = "x86_64")]
    const TABLE_RELOCATIONS: [u64; 2] = [6, 7];
    #[cfg(target_arch = "aarch64")]
    const TABLE_RELOCATIONS: [u64; 2] = [1025, 1026];

    pub(super) fn install() -> bool {
        static LOCK: Mutex<()> = Mutex::new(());
        let _lock = LOCK.lock();
        for (name, index) in HOOKS {
            if REAL[*index].load(Ordering::Relaxed) == 0 {
                // SAFETY: dlsym only looks the name up.
                let real = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
                REAL[*index].store(real as usize, Ordering::Relaxed);
            }
        }
        // SAFETY: the callback keeps to the objects that the loader names while it holds its lock.
        unsafe { libc::dl_iterate_phdr(Some(visit), std::ptr::null_mut()) };
        true
    }

    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> i32 {
        // SAFETY: the loader describes a loaded object, whose headers and dynamic section are mapped.
        unsafe {
            let info = &*info;
            let name = if info.dlpi_name.is_null() { c"" } else { CStr::from_ptr(info.dlpi_name) };
            let name = name.to_bytes();
            let is = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
            // The C library's own calls and the loader's are not a plugin's.
            if is(b"/libc.so") || is(b"/ld-") || is(b"/libc.musl") || is(b"linux-vdso") || is(b"linux-gate") {
                return 0;
            }
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
            if let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC) {
                let dynamic = (info.dlpi_addr + header.p_vaddr) as *const Dynamic;
                patch(info.dlpi_addr, dynamic);
            }
        }
        0
    }

    /// # Safety
    /// `dynamic` is the dynamic section of an object that is loaded at `base`.
    unsafe fn patch(base: u64, mut dynamic: *const Dynamic) {
        let (mut strings, mut symbols) = (0, 0);
        let (mut tables, mut sizes) = ([0; 2], [0; 2]);
        // SAFETY: the section ends with an entry of tag 0.
        unsafe {
            while (*dynamic).tag != 0 {
                let value = (*dynamic).value;
                // glibc has added the base to addresses, musl has not.
                let address = if value < base { base + value } else { value };
                match (*dynamic).tag {
                    DT_STRTAB => strings = address,
                    DT_SYMTAB => symbols = address,
                    DT_RELA => tables[0] = address,
                    DT_RELASZ => sizes[0] = value,
                    DT_JMPREL => tables[1] = address,
                    DT_PLTRELSZ => sizes[1] = value,
                    _ => {}
                }
                dynamic = dynamic.add(1);
            }
        }
        if strings == 0 || symbols == 0 {
            return;
        }
        for (table, bytes) in tables.into_iter().zip(sizes) {
            if table == 0 {
                continue;
            }
            let n = bytes as usize / size_of::<Relocation>();
            // SAFETY: the section says where the relocations lie, and how many bytes they have.
            let relocations = unsafe { std::slice::from_raw_parts(table as *const Relocation, n) };
            for relocation in relocations {
                if TABLE_RELOCATIONS.contains(&(relocation.info & 0xffff_ffff)) {
                    // SAFETY: the symbol's index is within the table, by the object's maker; 24 bytes a symbol, the name's
                    // offset first.
                    let name = unsafe {
                        let symbol = symbols + 24 * (relocation.info >> 32);
                        CStr::from_ptr((strings + u64::from(*(symbol as *const u32))) as *const libc::c_char)
                    };
                    if let Some((_, index)) = HOOKS.iter().find(|(hooked, _)| *hooked == name) {
                        // SAFETY: the entry holds the function of this name.
                        unsafe { set(base + relocation.offset, *index) };
                    }
                }
            }
        }
    }

    /// # Safety
    /// `entry` is a table's entry for the function that the hook stands for.
    unsafe fn set(entry: u64, index: usize) {
        let hook = hook(index);
        if REAL[index].load(Ordering::Relaxed) == 0 {
            return;
        }
        // SAFETY: the entry's page is made writable first (it is read-only once relocated); a pointer is written at once.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as u64;
            let entry = entry as *const AtomicUsize;
            if (*entry).load(Ordering::Relaxed) == hook {
                return;
            }
            let start = entry as u64 & !(page - 1);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            if libc::mprotect(start as *mut c_void, page as usize, protection) == 0 {
                (*entry).store(hook, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_watched_thread_allocates_is_counted_and_nothing_else() {
        if !install() {
            return;
        }
        let counters = Counters::default();
        drop(std::hint::black_box(vec![1_u8; 100]));
        let kept = {
            // SAFETY: the counters outlive this block.
            let _watch = unsafe { Watch::begin(&raw const counters) };
            drop(std::hint::black_box(vec![1_u8; 100]));
            std::hint::black_box(vec![2_u8; 100])
        };
        assert_eq!((counters.allocations(), counters.kept()), (2, 1));
        drop(kept);
        assert_eq!(counters.kept(), 1, "it was freed while nobody watched");
    }
}
