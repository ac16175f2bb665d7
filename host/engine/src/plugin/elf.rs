//! Whether a plugin's file holds what its ELF headers describe.
//!
//! The system's loader maps a library as its headers say and never asks how long the file is. Touching a page past the file's
//! end is SIGBUS, so a file that was cut off would end the program without a word. Other lies end in a crash as well; those
//! that the headers show are refused here, and the trial in a child process finds the rest.
//!
//! Field offsets are those of the System V ABI (gABI), chapter 5: "Program Loading and Dynamic Linking".

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

/// Program headers that are read at most: libraries have about ten.
const MAX_HEADERS: u64 = 256;

/// Bytes of the dynamic section that are read at most: it has about thirty entries.
const MAX_DYNAMIC: u64 = 1 << 20;

/// The longest name of a library, or list of folders, that is read: longer ones have no path.
const MAX_NAME: u64 = 4096;

/// The addresses of a library end below this: user space has no more.
const MAX_ADDRESS: u64 = 1 << 46;

/// How an ELF file begins.
const MAGIC: [u8; 4] = *b"\x7fELF";

/// Whether this build is for 64-bit machines.
const IS_64: bool = cfg!(target_pointer_width = "64");

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_TLS: u64 = 7;
const PT_GNU_PROPERTY: u64 = 0x6474_e553;

/// Where a field lies, and how many bytes it has: of 32-bit files and of 64-bit ones.
struct Field {
    of_32: (usize, usize),
    of_64: (usize, usize),
}

impl Field {
    const fn new(of_32: (usize, usize), of_64: (usize, usize)) -> Self {
        Self { of_32, of_64 }
    }

    /// Its value in a header; 0 beyond the end.
    fn of(&self, header: &[u8]) -> u64 {
        let (offset, len) = if IS_64 { self.of_64 } else { self.of_32 };
        let bytes = header.get(offset..offset + len).unwrap_or_default();
        let mut wide = [0; 8];
        match cfg!(target_endian = "little") {
            true => wide[..bytes.len()].copy_from_slice(bytes),
            false => wide[8 - bytes.len()..].copy_from_slice(bytes),
        }
        u64::from_ne_bytes(wide)
    }
}

// Of the file's header.
const E_TYPE: Field = Field::new((16, 2), (16, 2));
const E_MACHINE: Field = Field::new((18, 2), (18, 2));
const E_PHOFF: Field = Field::new((28, 4), (32, 8));
const E_PHENTSIZE: Field = Field::new((42, 2), (54, 2));
const E_PHNUM: Field = Field::new((44, 2), (56, 2));
const EHDR_BYTES: usize = if IS_64 { 64 } else { 52 };
// Of a program header.
const P_TYPE: Field = Field::new((0, 4), (0, 4));
const P_OFFSET: Field = Field::new((4, 4), (8, 8));
const P_VADDR: Field = Field::new((8, 4), (16, 8));
const P_FILESZ: Field = Field::new((16, 4), (32, 8));
const P_MEMSZ: Field = Field::new((20, 4), (40, 8));
const P_ALIGN: Field = Field::new((28, 4), (48, 8));
const PHDR_BYTES: usize = if IS_64 { 56 } else { 32 };
// Of an entry of the dynamic section.
const D_TAG: Field = Field::new((0, 4), (0, 8));
const D_VALUE: Field = Field::new((4, 4), (8, 8));
const DYN_BYTES: usize = if IS_64 { 16 } else { 8 };

/// Machines that HERALD is built for, by `e_machine`.
const MACHINES: [(&str, u64); 8] = [
    ("x86_64", 62),
    ("x86", 3),
    ("aarch64", 183),
    ("arm", 40),
    ("riscv64", 243),
    ("powerpc64", 21),
    ("s390x", 22),
    ("loongarch64", 258),
];

/// Tables that the dynamic section points to: the tag of the address, and that of the size in bytes, where it has one.
const TABLES: [(&str, u64, Option<u64>); 9] = [
    ("string table", 5, Some(10)),
    ("symbol table", 6, None),
    ("relocations", 7, Some(8)),
    ("relocations", 17, Some(18)),
    ("relocations of functions", 23, Some(2)),
    ("hash table", 4, None),
    ("hash table", 0x6fff_fef5, None),
    ("list of initialisers", 25, Some(27)),
    ("list of finalisers", 26, Some(28)),
];

/// Tags of the dynamic section whose values are texts, by their places in the string table.
const DT_STRTAB: u64 = 5;
const DT_NEEDED: u64 = 1;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// These name libraries too, which are asked for symbols before or after this one.
const DT_AUXILIARY: u64 = 0x7fff_fffd;
const DT_FILTER: u64 = 0x7fff_ffff;

/// What a library has the loader bring in, and where it has it looked for.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Names, or paths where they have a slash.
    pub(super) needed: Vec<OsString>,
    /// Folders, separated by colons, that count for all that these libraries need too.
    pub(super) rpath: Option<OsString>,
    /// Folders that take their place.
    pub(super) runpath: Option<OsString>,
}

/// A part of the file that a program header describes.
struct Part {
    kind: u64,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
}

impl Part {
    fn read(header: &[u8]) -> Self {
        Self {
            kind: P_TYPE.of(header),
            offset: P_OFFSET.of(header),
            address: P_VADDR.of(header),
            in_file: P_FILESZ.of(header),
            in_memory: P_MEMSZ.of(header),
            align: P_ALIGN.of(header),
        }
    }

    /// The addresses of the bytes that come from the file.
    fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.in_file)
    }
}

/// Refuses a file that the loader could not map whole, in a sentence about "it". Otherwise says what else it would load.
pub(super) fn check(file: &File) -> Result<Links, String> {
    let len = file.metadata().map_err(|error| unread(&error))?.len();
    let mut magic = [0; MAGIC.len()];
    read(file, &mut magic, 0, len)?;
    if magic != MAGIC {
        return Err(format!(
            "it is no library that this system can load: it begins with the bytes {magic:02x?}, where those of ELF \
             ({MAGIC:02x?}) were expected"
        ));
    }
    let mut header = [0; EHDR_BYTES];
    read(file, &mut header, 0, len)?;
    check_identity(&header)?;
    let parts = parts(file, &header, len)?;
    check_parts(&parts, len)?;
    check_dynamic(file, &parts)
}

fn unread(error: &io::Error) -> String {
    format!("it can't be read: {error}")
}

/// Fills the bytes from an offset of the file.
fn read(file: &File, bytes: &mut [u8], offset: u64, len: u64) -> Result<(), String> {
    match offset.checked_add(bytes.len() as u64) {
        Some(end) if end <= len => file.read_exact_at(bytes, offset).map_err(|error| unread(&error)),
        end => Err(cut_off(len, end)),
    }
}

fn cut_off(len: u64, end: Option<u64>) -> String {
    let end = end.map_or("more than any file has".to_owned(), |end| format!("at least {end}"));
    format!("it has {len} bytes, where its ELF headers describe {end}: it is damaged or was cut off")
}

/// What the loader looks at first: whether it is a library for this machine.
fn check_identity(header: &[u8; EHDR_BYTES]) -> Result<(), String> {
    let [_, _, _, _, class, order, version, ..] = header;
    let expected = if IS_64 { 64 } else { 32 };
    if u32::from(*class) * 32 != expected {
        return Err(format!("its ELF class is {class}, where a {expected}-bit library was expected"));
    }
    let little = cfg!(target_endian = "little");
    if *order != if little { 1 } else { 2 } {
        let expected = if little { "little-endian" } else { "big-endian" };
        return Err(format!("its byte order is {order}, where {expected} numbers were expected"));
    }
    if *version != 1 {
        return Err(format!("its ELF version is {version}, where 1 was expected"));
    }
    let machine = E_MACHINE.of(header);
    let name = |code| MACHINES.iter().find(|(_, known)| *known == code).map_or("unknown", |(name, _)| *name);
    let expected = MACHINES.iter().find(|(name, _)| *name == std::env::consts::ARCH);
    if let Some((here, expected)) = expected.filter(|(_, expected)| *expected != machine) {
        return Err(format!(
            "it is for ELF machine {machine} ({}), where {expected} ({here}) was expected",
            name(machine)
        ));
    }
    match E_TYPE.of(header) {
        3 => Ok(()),
        kind => {
            let name = match kind {
                1 => "an object file",
                2 => "a program",
                4 => "a core dump",
                _ => "unknown",
            };
            Err(format!("its ELF type is {kind} ({name}), where a shared library (3) was expected"))
        }
    }
}

fn parts(file: &File, header: &[u8; EHDR_BYTES], len: u64) -> Result<Vec<Part>, String> {
    let (size, count) = (E_PHENTSIZE.of(header), E_PHNUM.of(header));
    if size != PHDR_BYTES as u64 {
        return Err(format!("its program headers have {size} bytes each, where {PHDR_BYTES} were expected"));
    }
    if !(1..=MAX_HEADERS).contains(&count) {
        return Err(format!("it has {count} program headers, where 1 to {MAX_HEADERS} were expected"));
    }
    let mut table = vec![0; PHDR_BYTES * count as usize];
    read(file, &mut table, E_PHOFF.of(header), len)?;
    Ok(table.chunks_exact(PHDR_BYTES).map(Part::read).collect())
}

fn check_parts(parts: &[Part], len: u64) -> Result<(), String> {
    let mut free = 0;
    for (index, part) in parts.iter().enumerate() {
        match part.offset.checked_add(part.in_file) {
            _ if part.in_file == 0 => {}
            Some(end) if end <= len => {}
            end => return Err(cut_off(len, end)),
        }
        if part.kind != PT_LOAD && part.kind != PT_TLS {
            continue;
        }
        let end = part.address.checked_add(part.in_memory).filter(|end| *end <= MAX_ADDRESS);
        // A part that isn't loaded may lie anywhere in the file.
        let shift = if part.kind == PT_LOAD { part.address.wrapping_sub(part.offset) } else { 0 };
        let aligned = part.align <= 1 || (part.align.is_power_of_two() && shift.is_multiple_of(part.align));
        let Some(end) = end.filter(|_| aligned && part.in_file <= part.in_memory) else {
            return Err(format!(
                "its program header {index} says {} bytes of the file from {}, {} of memory from {:#x}, aligned to {}, \
                 which can't be mapped",
                part.in_file, part.offset, part.in_memory, part.address, part.align
            ));
        };
        // The loader reserves memory from the first to the last, and maps the others within.
        if part.kind == PT_LOAD {
            if part.address < free {
                return Err(format!(
                    "its program header {index} is for memory from {:#x}, where {free:#x} or more was expected after \
                     the one before",
                    part.address
                ));
            }
            free = end;
        }
    }
    let loaded = |wanted: &Range<u64>| {
        parts
            .iter()
            .filter(|part| part.kind == PT_LOAD)
            .map(Part::addresses)
            .any(|part| within(wanted, &part))
    };
    for part in parts.iter().filter(|part| [PT_DYNAMIC, PT_TLS, PT_GNU_PROPERTY].contains(&part.kind)) {
        if part.in_file > 0 && !loaded(&part.addresses()) {
            return Err(format!(
                "its ELF headers place bytes of type {:#x} at {:#x}, where no part of the file is loaded",
                part.kind, part.address
            ));
        }
    }
    Ok(())
}

fn within(wanted: &Range<u64>, part: &Range<u64>) -> bool {
    part.start <= wanted.start && wanted.end <= part.end
}

/// The dynamic section tells the loader where everything else is.
fn check_dynamic(file: &File, parts: &[Part]) -> Result<Links, String> {
    let Some(part) = parts.iter().find(|part| part.kind == PT_DYNAMIC) else {
        return Err("it has no dynamic section, where that of a shared library was expected".to_owned());
    };
    let unended = || "its dynamic section has no end".to_owned();
    let mut section = vec![0; usize::try_from(part.in_file.min(MAX_DYNAMIC)).map_err(|_| unended())?];
    file.read_exact_at(&mut section, part.offset).map_err(|error| unread(&error))?;
    let entries: Vec<(u64, u64)> =
        section.chunks_exact(DYN_BYTES).map(|entry| (D_TAG.of(entry), D_VALUE.of(entry))).collect();
    let end = entries.iter().position(|(tag, _)| *tag == 0).ok_or_else(unended)?;
    // As the loader does: of a tag that is there twice, the last counts.
    let value = |wanted| entries[..end].iter().rev().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    for (what, address, size) in TABLES {
        let Some(address) = value(address) else { continue };
        let size = size.and_then(value).unwrap_or(1);
        let table = address..address.saturating_add(size);
        let memory = |part: &Part| part.address..part.address.saturating_add(part.in_memory);
        let mut loaded = parts.iter().filter(|part| part.kind == PT_LOAD).map(memory);
        if size > 0 && !loaded.any(|part| within(&table, &part)) {
            return Err(format!(
                "its dynamic section says {size} bytes of {what} at {address:#x}, where none of the file is loaded"
            ));
        }
    }
    let text = |at: u64| text(file, parts, value(DT_STRTAB)?.checked_add(at)?);
    links(&entries[..end], &|at| {
        text(at).ok_or_else(|| {
            format!("its dynamic section names a library or a folder at {at}, where no text is")
        })
    })
}

/// What the dynamic section names of other libraries.
fn links(entries: &[(u64, u64)], text: &dyn Fn(u64) -> Result<OsString, String>) -> Result<Links, String> {
    let mut links = Links::default();
    for (tag, at) in entries {
        match *tag {
            DT_NEEDED | DT_AUXILIARY | DT_FILTER => links.needed.push(text(*at)?),
            DT_RPATH => links.rpath = Some(text(*at)?),
            DT_RUNPATH => links.runpath = Some(text(*at)?),
            _ => {}
        }
    }
    Ok(links)
}

/// The text at an address that comes from the file.
fn text(file: &File, parts: &[Part], address: u64) -> Option<OsString> {
    let part = parts.iter().find(|part| part.kind == PT_LOAD && part.addresses().contains(&address))?;
    let skipped = address - part.address;
    let mut bytes = vec![0; (part.in_file - skipped).min(MAX_NAME) as usize];
    file.read_exact_at(&mut bytes, part.offset + skipped).ok()?;
    bytes.truncate(bytes.iter().position(|byte| *byte == 0)?);
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A library that this system loads: the test's own C library.
    pub(in crate::plugin) fn system_library() -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of what is mapped");
        let path = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.contains("libc.so") || path.contains("libgcc_s"))
            .expect("a library");
        path.to_owned()
    }

    fn sound() -> Vec<u8> {
        std::fs::read(system_library()).expect("a library")
    }

    fn checked(bytes: &[u8]) -> Result<Links, String> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("bytes");
        check(&file)
    }

    /// What the loader would touch: the end of the last part.
    fn end(bytes: &[u8]) -> usize {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("bytes");
        let header = bytes[..EHDR_BYTES].try_into().expect("a header");
        let parts = parts(&file, header, bytes.len() as u64).expect("headers");
        parts.iter().map(|part| (part.offset + part.in_file) as usize).max().expect("parts")
    }

    fn changed(bytes: &[u8], offset: usize, to: &[u8]) -> String {
        let mut bytes = bytes.to_vec();
        bytes[offset..offset + to.len()].copy_from_slice(to);
        checked(&bytes).expect_err("it is refused")
    }

    #[test]
    fn a_systems_library_is_sound() {
        checked(&sound()).expect("the system loads it");
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", target_endian = "little"))]
    fn what_is_wrong_is_named() {
        let sound = sound();
        let header = PHDR_BYTES * (E_PHNUM.of(&sound) as usize);
        let table = E_PHOFF.of(&sound) as usize;
        for (offset, bytes, words) in [
            (0, &b"!<arch>"[..], "no library that this system can load"),
            (4, &[1], "a 64-bit library was expected"),
            (5, &[2], "little-endian"),
            (6, &[0], "version is 0"),
            (16, &[2, 0], "type is 2 (a program)"),
            (18, &[183, 0], "machine 183 (aarch64), where 62 (x86_64)"),
            (32, &[0xff; 8], "more than any file has"),
            (32, &[0, 0, 0, 0, 1, 0, 0, 0], "was cut off"),
            (54, &[0, 0], "0 bytes each, where 56 were expected"),
            (56, &[0, 0], "0 program headers"),
            (56, &[0xff, 0xff], "65535 program headers"),
        ] {
            let sentence = changed(&sound, offset, bytes);
            assert!(sentence.contains(words), "{sentence:?} does not say {words:?}");
            assert!(!sentence.contains('\n'));
        }
        let first_load = (table..table + header)
            .step_by(PHDR_BYTES)
            .find(|at| P_TYPE.of(&sound[*at..]) == PT_LOAD)
            .expect("something is loaded");
        for (offset, bytes, words) in [
            (8, &[0xff; 8], "more than any file has"),
            (32, &[0, 0, 0, 0, 1, 0, 0, 0], "was cut off"),
            (40, &[0; 8], "can't be mapped"),
            (16, &[0xff; 8], "can't be mapped"),
            (48, &[3, 0, 0, 0, 0, 0, 0, 0], "can't be mapped"),
        ] {
            let sentence = changed(&sound, first_load + offset, bytes);
            assert!(sentence.contains(words), "{sentence:?} does not say {words:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_file_that_was_cut_off_is_refused(part in 0.0..1.0) {
            let sound = sound();
            let end = end(&sound);
            let sentence = checked(&sound[..(end as f64 * part) as usize]).expect_err("it is cut off");
            prop_assert!(sentence.contains("cut off"), "{}", sentence);
        }

        /// It answers, whatever the headers say.
        #[test]
        fn mutated_headers_are_read_without_a_panic(
            changes in prop::collection::vec((0_usize..1024, any::<u8>()), 1..8),
            len in 0_usize..4096,
        ) {
            let mut bytes = sound();
            for (offset, byte) in changes {
                bytes[offset] = byte;
            }
            let _ = checked(&bytes);
            bytes.truncate(len);
            let _ = checked(&bytes);
        }
    }
}
