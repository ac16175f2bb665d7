//! GGUF files made by hand, byte for byte, so that each test can damage one field.

mod damage;
mod foreign;
mod models;
mod properties;
mod split;
mod values;
mod writer;

use std::path::PathBuf;

use super::{Gguf, GgufError};

/// Little-endian bytes in the making.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    /// Magic number, version, and the two counts.
    fn header(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(value.to_le_bytes())
    }

    fn string(self, string: impl AsRef<[u8]>) -> Self {
        self.u64(string.as_ref().len() as u64).bytes(string)
    }

    /// A metadata entry of type `u32` (4).
    fn entry_u32(self, key: &str, value: u32) -> Self {
        self.string(key).u32(4).u32(value)
    }

    /// A tensor's entry.
    fn tensor(self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Self {
        let start = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(start, |raw, &dim| raw.u64(dim)).u32(dtype).u64(offset)
    }

    /// Zeros up to a multiple of 32, and then so many bytes of data.
    fn data(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + bytes, 0);
        self
    }

    fn parse(&self) -> Result<Gguf, GgufError> {
        Gguf::from_bytes(&self.0)
    }
}

/// A small real model, with what `transformers` computes from it beside it.
fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny").join(format!("{name}.f32.gguf"))
}
