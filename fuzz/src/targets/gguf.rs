//! A GGUF file: it parses or gives a sentence, and everything that parses can be read.

use std::hint::black_box;

use herald::gguf::{Array, Gguf, Value};

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "gguf",
    run,
    seeds,
    words: &["general.architecture", "general.alignment", "tokenizer.ggml.tokens", "split.count", "GGUF"],
    ..DEFAULT
};

/// The first part of small models: whole headers, and data that is cut off.
fn seeds() -> Vec<Vec<u8>> {
    let folder = super::super::folder().join("../host/tests/data/tiny");
    ["llama", "falcon_mamba", "granite_hybrid"]
        .iter()
        .filter_map(|name| std::fs::read(folder.join(format!("{name}.f32.gguf"))).ok())
        .collect()
}

fn run(input: &[u8]) -> String {
    super::told(Gguf::from_bytes(input), |gguf| {
        read_all(&gguf);
        "read".to_owned()
    })
}

/// Reads every value and every byte of the file.
fn read_all(gguf: &Gguf) {
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.value(key).map(|value| value.value_type()), Some(value.value_type()));
        black_box(value.to_string());
        black_box((metadata.get::<u32>(key).is_ok(), metadata.get::<f32>(key).is_ok()));
        black_box((metadata.get::<Vec<i64>>(key).is_ok(), metadata.get::<Vec<&str>>(key).is_ok()));
        if let Value::Array(array) = value {
            read_array(array);
        }
    }
    for info in gguf.tensors() {
        assert_eq!(gguf.tensor(info.name()), Some(info));
        assert_eq!(gguf.bytes(info).len(), info.bytes());
        black_box(gguf.view(info).iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
        black_box((info.elements(), info.dims().len()));
    }
}

fn read_array(array: Array<'_>) {
    let mut elements = 0;
    for element in array.elements() {
        elements += 1;
        if let Value::Array(inner) = element {
            read_array(inner);
        }
    }
    assert_eq!(elements, array.len());
}
