//! Tables that are no plugin's: each is refused in one sentence.

use std::ffi::c_char;
use std::ptr::null;

use herald_api::abi::{AbiStruct, HeraldError, HeraldHost, HeraldPlugin, HeraldTokenizerTable};
use herald_api::layout;

use crate::support::*;

#[track_caller]
fn refused(change: impl FnOnce(&mut Tables), expected: &str) {
    let mut tables = Tables::new();
    change(&mut tables);
    says(tables.load(), expected);
}

#[test]
fn no_table() {
    says(load_table(null(), Vec::new()), "HeraldPlugin is null");
    let image = Image::new(&Tables::new().plugin, size_of::<HeraldPlugin>() + 8);
    let odd = image.pointer::<u8>().wrapping_add(4).cast();
    says(load_table(odd, vec![image]), "is not aligned to 8 bytes");
}

#[test]
fn sizes_that_nobody_can_mean() {
    for size in [0, 7, HeraldPlugin::REQUIRED - 1, 1 << 17, 1 << 40, usize::MAX] {
        refused(
            |tables| tables.plugin.struct_size = size,
            &format!(
                "HeraldPlugin says that it has {size} bytes, where {} to 65536 were",
                HeraldPlugin::REQUIRED
            ),
        );
    }
    for size in [0, 7, HeraldTokenizerTable::REQUIRED - 1, 1 << 17, 1 << 40, usize::MAX] {
        let says_that = format!("Table says that it has {size} bytes");
        refused(|tables| tables.tiers.struct_size = size, &format!("HeraldTier{says_that}"));
        refused(|tables| tables.tokenizers.struct_size = size, &format!("HeraldTokenizer{says_that}"));
        refused(|tables| tables.layers.struct_size = size, &format!("HeraldLayer{says_that}"));
    }
}

#[test]
fn another_version_of_the_abi() {
    for version in [0, 2, u32::MAX] {
        refused(
            |tables| tables.plugin.abi_version = version,
            &format!("built for version {version} of the ABI, where version 1 was expected"),
        );
    }
}

#[test]
fn texts() {
    let name = |bytes: &'static [u8]| {
        move |tables: &mut Tables| {
            tables.plugin.name = bytes.as_ptr().cast();
            tables.plugin.name_len = bytes.len();
        }
    };
    refused(name(b""), "its name is \"\", where letters");
    refused(name(b"../cpu"), "its name is \"../cpu\", where letters, digits, '-' and '_' were expected");
    refused(name(b"c\npu"), "its name is \"c\\npu\"");
    refused(name("zwölf".as_bytes()), "its name is \"zwölf\"");
    refused(name(b"\xFFcpu"), "its name is not UTF-8: byte 0 begins no character");
    refused(name(&[b'a'; 65]), "its name is 65 bytes at");
    refused(|tables| tables.plugin.name_len = usize::MAX, "where at most 64 bytes were expected");
    refused(|tables| tables.plugin.name = null(), "its name is 4 bytes at 0x0");
    refused(|tables| tables.plugin.version = null(), "its version is 5 bytes at 0x0");
    refused(|tables| tables.plugin.version_len = 1 << 50, "its version is 1125899906842624 bytes");
    refused(|tables| tables.plugin.description_len = 257, "its description is 257 bytes");
    let mut tables = Tables::new();
    tables.plugin.version = c"1\n2".as_ptr();
    tables.plugin.version_len = 3;
    tables.plugin.description = null::<c_char>();
    let plugin = tables.load().expect("a description may be left out");
    assert_eq!((plugin.version(), plugin.description()), ("1 2", ""));
}

#[test]
fn layouts_that_differ() {
    let report = layout::report().expect("the feature `layout` is on in tests");
    // The texts live until the test's end.
    fn with(report: &str) -> impl FnOnce(&mut Tables) {
        move |tables: &mut Tables| {
            tables.plugin.layout = report.as_ptr().cast();
            tables.plugin.layout_len = report.len();
        }
    }
    let field = report.lines().find(|line| line.starts_with("HeraldMlp width ")).expect("the field");
    let changed = field.replace("HeraldMlp width 8 4 u32", "HeraldMlp width 8 8 u64");
    assert_ne!(field, changed);
    refused(
        with(&report.replace(field, &changed)),
        "its HeraldMlp has the field width (8 8 u64), where width (8 4 u32) was expected",
    );
    refused(with("whatisthis"), "its layout report has the line \"whatisthis\"");
    refused(with(&"x".repeat(2 << 20)), "its layout report is 2097152 bytes");
    let mut tables = Tables::new();
    (tables.plugin.layout, tables.plugin.layout_len) = (null(), 0);
    tables.load().expect("C plugins carry no report");
}

#[test]
fn functions_that_are_missing() {
    refused(|tables| tables.plugin.probe = None, "it has no probe function");
    let layers = "its table of layers (HeraldLayerTable) lacks a required function";
    refused(|tables| tables.layers.create = None, layers);
    refused(|tables| tables.layers.info = None, layers);
    refused(|tables| tables.layers.forward = None, layers);
    refused(|tables| tables.layers.destroy = None, layers);
    let tokenizers = "its table of tokenizers (HeraldTokenizerTable) lacks a required function";
    refused(|tables| tables.tokenizers.create = None, tokenizers);
    refused(|tables| tables.tokenizers.encode = None, tokenizers);
    refused(|tables| tables.tokenizers.decode = None, tokenizers);
    refused(|tables| tables.tokenizers.destroy = None, tokenizers);
    let tiers = "its table of tiers (HeraldTierTable) lacks a required function";
    refused(|tables| tables.tiers.create = None, tiers);
    refused(|tables| tables.tiers.put = None, tiers);
    refused(|tables| tables.tiers.get = None, tiers);
    refused(|tables| tables.tiers.view = None, tiers);
    refused(|tables| tables.tiers.commit = None, tiers);
    refused(|tables| tables.tiers.drop = None, tiers);
    refused(|tables| tables.tiers.destroy = None, tiers);
    let mut tables = Tables::new();
    tables.plugin.start = None;
    tables.layers.supports = None;
    tables.load().expect("start and supports are optional");
}

#[test]
fn kinds_that_are_no_list() {
    refused(
        |tables| tables.layers.n_kinds = 1 << 60,
        "offers 1152921504606846976 layer kinds, where at most 1024",
    );
    refused(|tables| tables.tiers.kinds = null(), "its list of tier kinds is 2 elements at 0x0");
    let mut tables = Tables::new();
    static NEWER: [u32; 2] = [99, herald_api::abi::HERALD_LAYER_HEAD];
    (tables.layers.kinds, tables.layers.n_kinds) = (NEWER.as_ptr(), 2);
    let plugin = tables.load().expect("kinds of a later version are no fault");
    assert_eq!(plugin.layer_kinds(), [herald_api::LayerKind::Head]);
}

unsafe extern "C" fn fails_to_start(_: *const HeraldHost, error: *mut HeraldError) -> u32 {
    for (index, byte) in b"no licence\nfile".iter().enumerate() {
        // SAFETY: the host's buffer has room for 504 bytes.
        unsafe { (*error).message[index] = *byte as c_char };
    }
    2
}

unsafe extern "C" fn fails_with_an_unending_sentence(_: *const HeraldHost, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's buffer.
    unsafe { (*error).message.fill(b'n' as c_char) };
    77
}

unsafe extern "C" fn fails_in_silence(_: *const HeraldHost, _: *mut HeraldError) -> u32 {
    4
}

#[test]
fn plugins_that_do_not_start() {
    refused(|tables| tables.plugin.start = Some(fails_to_start), "no licence file");
    refused(
        |tables| tables.plugin.start = Some(fails_with_an_unending_sentence),
        &format!("it returned 77, which is no status of this ABI, and said {}", "n".repeat(504)),
    );
    refused(
        |tables| tables.plugin.start = Some(fails_in_silence),
        "it failed with status Io and said nothing",
    );
}
