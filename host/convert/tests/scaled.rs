//! NVFP4 matrices with factors in tensors beside them compute what float32 matrices of the products do.

use std::fs::File;
use std::path::Path;

use herald::NeuroEngine;
use herald::gguf::{Gguf, TensorInfo, Value, Writer};
use herald_api::DType;
use herald_testing::{backends, tiny};

/// The factor of matrix `index` of a tensor.
fn factor(index: usize) -> f32 {
    0.031 * (1 + index) as f32
}

/// The matrices that are replaced: rows are whole blocks.
fn is_replaced(tensor: &TensorInfo) -> bool {
    let name = tensor.name();
    name.starts_with("blk.")
        && !name.contains("gate_inp")
        && tensor.dims().len() > 1
        && tensor.dims()[0].is_multiple_of(64)
}

fn matrices(tensor: &TensorInfo) -> usize {
    tensor.dims().get(2).copied().unwrap_or(1)
}

/// Blocks with scales from a quarter to four, and all codes.
fn blocks(tensor: &TensorInfo) -> Vec<u8> {
    let elements: usize = tensor.dims().iter().product();
    let mut state = elements as u32 + tensor.name().len() as u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let block = |_| {
        let mut block: Vec<u8> = (0..36).map(|_| random()).collect();
        block[..4].iter_mut().for_each(|scale| *scale = 0x28 + *scale % 32);
        block
    };
    (0..elements / 64).flat_map(block).collect()
}

/// What a copy of a model holds in place of its matrices.
#[derive(Clone, Copy, PartialEq)]
enum Copy {
    /// Blocks, with their factors beside them.
    Scaled,
    /// Blocks alone.
    Bare,
    /// The products, in float32.
    Products,
}

fn write(name: &str, copy: Copy, path: &Path) {
    let gguf = Gguf::open(&tiny(name)).expect("the test data is there");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.metadata(key, value).expect("an entry");
    }
    let mut contents = Vec::new();
    for tensor in gguf.tensors() {
        if !is_replaced(tensor) {
            writer.tensor(tensor.name(), tensor.dtype(), tensor.dims()).expect("a tensor");
            contents.push(gguf.bytes(tensor).to_vec());
            continue;
        }
        let blocks = blocks(tensor);
        if copy == Copy::Products {
            let elements: usize = tensor.dims().iter().product();
            let mut products = vec![0.0; elements];
            herald_formats::dequantize_row(DType::Nvfp4, &blocks, &mut products);
            let each = elements / matrices(tensor);
            let scaled = products.iter().enumerate().flat_map(|(i, x)| (x * factor(i / each)).to_le_bytes());
            writer.tensor(tensor.name(), DType::F32, tensor.dims()).expect("a tensor");
            contents.push(scaled.collect());
            continue;
        }
        writer.tensor(tensor.name(), DType::Nvfp4, tensor.dims()).expect("a tensor");
        contents.push(blocks);
        if copy == Copy::Scaled {
            let stem = tensor.name().strip_suffix(".weight").expect("a matrix");
            for (ending, offset) in [("scale", 0), ("input_scale", 7)] {
                let factors = (0..matrices(tensor)).map(|index| factor(index + offset));
                let factors: Vec<u8> = factors.flat_map(f32::to_le_bytes).collect();
                writer
                    .tensor(&format!("{stem}.{ending}"), DType::F32, &[matrices(tensor)])
                    .expect("a tensor");
                contents.push(factors);
            }
        }
    }
    let mut data = writer.begin(File::create(path).expect("a file")).expect("a head");
    contents.iter().for_each(|bytes| data.tensor(bytes).expect("data"));
    data.finish().expect("a file");
}

#[test]
fn factors_are_applied() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["llama", "mixtral"] {
        for (backend, options) in backends() {
            let logits = |copy| {
                let path = folder.path().join("model.gguf");
                write(name, copy, &path);
                let engine =
                    NeuroEngine::load(&path, options).unwrap_or_else(|error| panic!("{name}: {error}"));
                let mut sequence = engine.sequence().expect("a sequence");
                let mut logits = Vec::new();
                let ids: Vec<u32> = (3..40).collect();
                engine.logits(&mut sequence, &ids, &mut |row| logits.extend_from_slice(row)).expect("a pass");
                logits
            };
            let expected = logits(Copy::Products);
            let off = |logits: Vec<f32>| {
                logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max)
            };
            let (scaled, bare) = (off(logits(Copy::Scaled)), off(logits(Copy::Bare)));
            println!("{name} on {backend}: off by {scaled}, without factors by {bare}");
            assert!(
                scaled < 0.02 && bare > 0.2,
                "{name} on {backend}: off by {scaled}, without factors by {bare}"
            );
        }
    }
}

#[test]
fn factors_that_fit_nothing_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    let gguf = Gguf::open(&tiny("llama")).expect("the test data is there");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.metadata(key, Value::clone(&value)).expect("an entry");
    }
    let mut contents = Vec::new();
    for tensor in gguf.tensors() {
        let replaced = tensor.name() == "blk.0.attn_q.weight";
        let dtype = if replaced { DType::Nvfp4 } else { tensor.dtype() };
        writer.tensor(tensor.name(), dtype, tensor.dims()).expect("a tensor");
        contents.push(if replaced { blocks(tensor) } else { gguf.bytes(tensor).to_vec() });
    }
    writer.tensor("blk.0.attn_q.scale", DType::F32, &[3]).expect("a tensor");
    contents.push(vec![0; 12]);
    let mut data = writer.begin(File::create(&path).expect("a file")).expect("a head");
    contents.iter().for_each(|bytes| data.tensor(bytes).expect("data"));
    data.finish().expect("a file");
    let error =
        herald::model::plan(&Gguf::open(&path).expect("a file")).expect_err("three factors of one matrix");
    assert!(error.to_string().contains("blk.0.attn_q.scale is 3 numbers"), "{error}");
}
