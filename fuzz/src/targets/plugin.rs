//! A plugin's table, as a plugin might hand it over: it is loaded and asked, or refused by a sentence.
//!
//! Only what a host can check is changed: sizes, versions, lengths, texts, which pointers are null. A pointer to nowhere
//! is a plugin that breaks the ABI's contract, which no host can notice.

use std::cell::RefCell;
use std::ffi::c_char;
use std::mem::MaybeUninit;

use herald_api::Hardware;
use herald_api::abi::{AbiStruct, HeraldError, HeraldHardware, HeraldLayerTable, HeraldPlugin, HeraldProbe};
use herald_api::import::Plugin;

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target { name: "plugin", run, seeds, max_len: 4096, ..DEFAULT };

/// Bytes of each text: more than any that is read.
const TEXT: usize = (1 << 20) + 1;
/// Numbers of a list of kinds, likewise.
const KINDS: usize = 2048;

thread_local! {
    /// What the entry and the probe answer.
    static TABLES: RefCell<Option<Box<Tables>>> = const { RefCell::new(None) };
}

struct Tables {
    plugin: HeraldPlugin,
    layers: HeraldLayerTable,
    texts: Vec<u8>,
    kinds: Vec<u32>,
    status: u32,
    score: u32,
}

/// Takes numbers from an input.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        // Most numbers are small; a large one takes eight bytes more.
        if *first < 0xf0 {
            return u64::from(*first);
        }
        let Some((bytes, rest)) = self.0.split_first_chunk() else { return u64::from(*first) };
        self.0 = rest;
        u64::from_le_bytes(*bytes)
    }
}

/// A table that is accepted.
fn seeds() -> Vec<Vec<u8>> {
    let plugin = size_of::<HeraldPlugin>() as u8;
    let layers = size_of::<HeraldLayerTable>() as u8;
    vec![
        vec![
            plugin,
            herald_api::abi::HERALD_ABI_VERSION as u8,
            3,
            3,
            3,
            0,
            0x1f,
            0,
            50,
            layers,
            3,
            b'a',
            b'b',
            b'c',
        ],
        vec![
            plugin,
            herald_api::abi::HERALD_ABI_VERSION as u8,
            3,
            3,
            3,
            0,
            0x0f,
            0,
            50,
            layers,
            3,
            b'a',
            0xff,
            b'\n',
        ],
    ]
}

extern "C" fn entry() -> *const HeraldPlugin {
    TABLES.with(|tables| tables.borrow().as_ref().map_or(std::ptr::null(), |tables| &raw const tables.plugin))
}

unsafe extern "C" fn probe(_: *const HeraldHardware, out: *mut HeraldProbe, error: *mut HeraldError) -> u32 {
    TABLES.with(|tables| {
        let tables = tables.borrow();
        let Some(tables) = tables.as_ref() else { return 1 };
        let text = |place: usize| tables.texts[place] as c_char;
        // SAFETY: the host hands over structs of its own, for this call.
        unsafe {
            (*out).score = tables.score;
            for (place, c) in (*out).variant.iter_mut().enumerate() {
                *c = text(place);
            }
            if !error.is_null() {
                for (place, c) in (*error).message.iter_mut().enumerate() {
                    *c = text(place);
                }
            }
        }
        tables.status
    })
}

fn run(input: &[u8]) -> String {
    let mut numbers = Numbers(input);
    let mut tables = Box::new(Tables {
        plugin: zeroed(),
        layers: zeroed(),
        texts: vec![b'a'; TEXT],
        kinds: vec![1; KINDS],
        status: 0,
        score: 0,
    });
    tables.plugin.struct_size = numbers.next() as usize;
    tables.plugin.abi_version = numbers.next() as u32;
    let lengths = [(); 4].map(|()| numbers.next() as usize);
    let present = numbers.next();
    (tables.status, tables.score) = (numbers.next() as u32, numbers.next() as u32);
    tables.layers.struct_size = numbers.next() as usize;
    tables.layers.n_kinds = numbers.next() as usize;
    let texts = numbers.0;
    tables.texts[..texts.len()].copy_from_slice(texts);
    for (kind, byte) in tables.kinds.iter_mut().zip(texts) {
        *kind = u32::from(*byte);
    }
    let has = |bit: u64| present >> bit & 1 == 1;
    let text = |bit: u64| if has(bit) { tables.texts.as_ptr().cast::<c_char>() } else { std::ptr::null() };
    (tables.plugin.name, tables.plugin.name_len) = (text(0), lengths[0]);
    (tables.plugin.version, tables.plugin.version_len) = (text(1), lengths[1]);
    (tables.plugin.description, tables.plugin.description_len) = (text(2), lengths[2]);
    (tables.plugin.layout, tables.plugin.layout_len) = (text(5), lengths[3]);
    tables.plugin.probe = if has(3) { Some(probe) } else { None };
    tables.layers.kinds = if has(6) { tables.kinds.as_ptr() } else { std::ptr::null() };
    if has(7) {
        tables.plugin.layers = &raw const tables.layers;
    }
    TABLES.with(|own| *own.borrow_mut() = Some(tables));
    // SAFETY: the entry's table and what it points to live until the next input, and `Plugin` isn't kept.
    let loaded = unsafe { Plugin::load(entry, Box::new(()), |_, _| {}) };
    super::told(loaded, |plugin| {
        let said = format!("{} {} {}", plugin.name(), plugin.version(), plugin.description());
        assert!(!said.contains('\n'), "a line ends within {said:?}");
        let hardware = Hardware { arch: 1, cpus: 2, features: 0, memory_bytes: 1 << 30 };
        super::told(plugin.probe(&hardware), |probe| {
            assert!(!probe.variant.contains('\n'), "a line ends within {:?}", probe.variant);
            format!("{} kinds of layers", if plugin.layer_kinds().is_empty() { "no" } else { "some" })
        })
    })
}

fn zeroed<T: AbiStruct>() -> T {
    // SAFETY: the ABI's structs are made of numbers, pointers and optional functions, for which zeros are values.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
