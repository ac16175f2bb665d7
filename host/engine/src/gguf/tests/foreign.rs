//! Files of other kinds are told by name, with what to do, and no GGUF file is taken for one.

use std::fs;

use super::super::{Gguf, GgufError};

#[test]
fn what_people_give_for_a_model_is_named() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4683073184\n";
    let mut safetensors = 60_u64.to_le_bytes().to_vec();
    safetensors.extend(br#"{"model.embed_tokens.weight":{"dtype":"BF16","shape":[4,4]"#);
    let cases: [(&[u8], &[&str]); 16] = [
        (lfs.as_bytes(), &["a Git LFS pointer to a file of 4683073184 bytes", "git lfs pull"]),
        (b"version https://git-lfs.github.com/spec/v1\n", &["a Git LFS pointer, not"]),
        (b"<!DOCTYPE html><html>", &["a web page", "/resolve/"]),
        (b"\n\n  <HTML lang=en>", &["a web page"]),
        (b"\xef\xbb\xbf<!doctype html>", &["a web page"]),
        (b"tjgg\x03\0\0\0", &["an old GGML file (GGJT)", "as GGUF"]),
        (b"lmgg\0", &["an old GGML file"]),
        (b"fmgg\x01", &["(GGMF)"]),
        (b"PK\x03\x04\x14\0", &["a zip archive", "PyTorch", "convert_hf_to_gguf.py"]),
        (&safetensors, &["a safetensors file", "convert_hf_to_gguf.py"]),
        (b"\x80\x02ctorch", &["a Python pickle"]),
        (b"\x1f\x8b\x08", &["compressed by gzip", "unpack it"]),
        (br#"{"architectures": ["LlamaForCausalLM"]}"#, &["JSON", "the weights"]),
        (&[0; 5000], &["zeros", "download it again"]),
        (b"", &["empty", "download it again"]),
        (b"\x7fELF\x02", &["a program or a library"]),
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    for (bytes, words) in cases {
        fs::write(&path, bytes).expect("a file");
        let sentence = Gguf::open(&path).expect_err("it is no GGUF file").to_string();
        assert!(sentence.contains("model.gguf: it is ") && !sentence.contains('\n'), "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "{sentence} doesn't say {word}");
        }
        assert!(matches!(Gguf::from_bytes(bytes), Err(GgufError::Foreign { path: None, .. })));
    }
}

#[test]
fn a_damaged_start_of_gguf_is_told_as_such() {
    for bytes in [&b"GGUX\x03\0\0\0"[..], b"FUGG", b"gguf", b"\xff\xff\xff\xff"] {
        let sentence = Gguf::from_bytes(bytes).expect_err("no GGUF").to_string();
        assert!(sentence.starts_with("the magic number at byte 0 is "), "{sentence}");
    }
}

#[cfg(unix)]
#[test]
fn paths_that_are_links_to_nothing_or_no_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let link = folder.path().join("broken.gguf");
    std::os::unix::fs::symlink("../blobs/pruned", &link).expect("a link");
    let sentence = Gguf::open(&link).expect_err("nothing").to_string();
    assert!(
        sentence.contains("a symbolic link to") && sentence.contains("blobs/pruned, which isn't"),
        "{sentence}"
    );
    let odd = folder.path().join(OsStr::from_bytes(b"caf\xe9.gguf"));
    fs::copy(super::tiny("llama"), &odd).expect("a copy");
    Gguf::open(&odd).expect("the model");
}
