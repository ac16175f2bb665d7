//! The plan, the converted data, and the metadata.

use std::num::NonZeroUsize;

use herald_api::DType;

use super::*;
use herald::gguf::ArrayBuf;

/// Weights that Q8_0 keeps exactly.
fn weights(len: usize) -> Vec<u8> {
    (0..len).flat_map(|i| (((i * 37) % 255) as f32 - 127.0).to_le_bytes()).collect()
}

/// A model of these float32 tensors.
fn model(tensors: &[(&str, &[usize])]) -> Gguf {
    let mut writer = Writer::new();
    let names = ArrayBuf::strings(["a", "b"]);
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.file_type", 0_u32).unwrap();
    writer.metadata("tokenizer.ggml.tokens", &names).unwrap();
    for (name, dims) in tensors {
        writer.tensor(name, DType::F32, dims).unwrap();
    }
    let mut data = writer.begin(Vec::new()).unwrap();
    for (_, dims) in tensors {
        data.tensor(&weights(dims.iter().product())).unwrap();
    }
    Gguf::from_bytes(&data.finish().unwrap()).unwrap()
}

fn pool() -> ThreadPool {
    ThreadPool::new(NonZeroUsize::new(3).unwrap()).unwrap()
}

fn types(gguf: &Gguf, dtype: DType) -> Vec<DType> {
    Plan::new(gguf, &QuantizeOptions { dtype, head: None }).types().collect()
}

const UNTIED: [(&str, &[usize]); 9] = [
    ("token_embd.weight", &[256, 8]),
    ("output.weight", &[256, 8]),
    ("blk.0.attn_q.weight", &[256, 4]),
    ("blk.0.ffn_up_exps.weight", &[256, 4, 2]),
    ("blk.0.ffn_gate_inp.weight", &[256, 2]),
    ("blk.0.ssm_conv1d.weight", &[4, 256]),
    ("blk.0.ssm_norm.weight", &[128, 2]),
    ("blk.0.attn_norm.weight", &[256]),
    ("blk.0.ssm_a", &[16, 16]),
];

#[test]
fn matrices_change_and_the_rest_stays() {
    use DType::{F16, F32, Q4K, Q6K, Q8_0};
    let gguf = model(&UNTIED);
    let small = [F32; 5];
    assert_eq!(types(&gguf, Q4K), [&[Q4K, Q6K, Q4K, Q4K][..], &small].concat());
    assert_eq!(types(&gguf, Q8_0), [&[Q8_0; 4][..], &small].concat());
    assert_eq!(types(&gguf, F16), [&[F16; 4][..], &small].concat());
    let options = QuantizeOptions { dtype: Q4K, head: Some(F16) };
    assert_eq!(Plan::new(&gguf, &options).types().nth(1), Some(F16));
}

#[test]
fn a_tied_embedding_is_the_head() {
    let gguf = model(&[("token_embd.weight", &[256, 8]), ("blk.0.attn_q.weight", &[256, 4])]);
    assert_eq!(types(&gguf, DType::Q4_0), [DType::Q6K, DType::Q4_0]);
}

#[test]
fn rows_that_blocks_do_not_divide_get_smaller_blocks() {
    let gguf = model(&[
        ("token_embd.weight", &[96, 2]),
        ("blk.0.attn_q.weight", &[96, 2]),
        ("blk.0.attn_k.weight", &[96, 2]),
        ("blk.0.odd.weight", &[50, 2]),
    ]);
    for (wanted, expected) in [
        (DType::Q2K, DType::Iq4Nl),
        (DType::Q3K, DType::Iq4Nl),
        (DType::Iq4Xs, DType::Iq4Nl),
        (DType::Iq2S, DType::Iq4Nl),
        (DType::Mxfp4, DType::Mxfp4),
        (DType::Q4K, DType::Q5_0),
        (DType::Q5K, DType::Q5_1),
        (DType::Q6K, DType::Q8_0),
        (DType::Q4_0, DType::Q4_0),
    ] {
        assert_eq!(types(&gguf, wanted), [DType::Q8_0, expected, expected, DType::F16], "{wanted}");
    }
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Q4K, head: None });
    let fallback = |columns, wanted, dtype, tensors| Fallback { columns, wanted, dtype, tensors };
    let expected = [
        fallback(50, DType::Q4K, DType::F16, 1),
        fallback(96, DType::Q4K, DType::Q5_0, 2),
        fallback(96, DType::Q6K, DType::Q8_0, 1),
    ];
    assert_eq!(plan.fallbacks(), expected);
}

#[test]
fn data_and_metadata_arrive() {
    // More rows than one piece, and an unchanged tensor between two that change.
    let rows = WEIGHTS_AT_ONCE / 256 + 77;
    let gguf = model(&[
        ("token_embd.weight", &[256, rows]),
        ("output_norm.weight", &[256]),
        ("blk.0.ffn_up_exps.weight", &[256, 3, 5]),
    ]);
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Q8_0, head: None });
    let mut told = 0;
    let out = write(&gguf, &plan, None, &pool(), Vec::new(), &mut |weights| {
        told += weights;
        true
    });
    let new = Gguf::from_bytes(&out.unwrap()).unwrap();
    assert_eq!(told, gguf.tensors().map(TensorInfo::elements).sum::<usize>());
    let keys: Vec<&str> = new.metadata().iter().map(|(key, _)| key).collect();
    let expected = [
        "general.architecture",
        "general.file_type",
        "tokenizer.ggml.tokens",
        "general.quantization_version",
    ];
    assert_eq!(keys, expected);
    assert_eq!(new.metadata().require::<u32>("general.file_type").unwrap(), 7);
    assert_eq!(new.metadata().require::<u32>("general.quantization_version").unwrap(), 2);
    for (old, new_info) in gguf.tensors().zip(new.tensors()) {
        assert_eq!((old.name(), old.dims()), (new_info.name(), new_info.dims()));
        let mut kept = vec![0.0; old.elements()];
        herald_formats::dequantize_row(new_info.dtype(), new.bytes(new_info), &mut kept);
        let kept: Vec<u8> = kept.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        // Each block has the largest magnitude, 127, or one so close to it that the float16 scale is slightly off.
        for (kept, old) in kept.as_chunks::<4>().0.iter().zip(gguf.bytes(old).as_chunks::<4>().0) {
            let (kept, old) = (f32::from_le_bytes(*kept), f32::from_le_bytes(*old));
            assert!((kept - old).abs() <= 0.5 + 127.0 / 2048.0, "{}: {kept}, not {old}", new_info.name());
        }
    }
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let mut writer = Writer::new();
    writer.tensor("blk.0.attn_q.weight", DType::F32, &[32, 3, 2]).unwrap();
    let mut data = writer.begin(Vec::new()).unwrap();
    let mut bytes = weights(192);
    bytes[4 * (4 * 32 + 7)..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[4 * (5 * 32 + 9)..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    data.tensor(&bytes).unwrap();
    let gguf = Gguf::from_bytes(&data.finish().unwrap()).unwrap();
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Q4_0, head: None });
    let error = write(&gguf, &plan, None, &pool(), Vec::new(), &mut |_| true).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"tensor "blk.0.attn_q.weight", row 4: weight 7 is NaN; expected a magnitude of at most 65504, the most that Q4_0 holds"#
    );
}

#[test]
fn who_is_asked_to_stop_stops() {
    let gguf = model(&UNTIED);
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Q4_0, head: None });
    let stopped = write(&gguf, &plan, None, &pool(), Vec::new(), &mut |_| false);
    assert!(matches!(stopped, Err(QuantizeError::Cancelled)));
}

#[test]
fn a_type_that_is_only_read_is_refused() {
    let gguf = model(&UNTIED);
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Tq1_0, head: None });
    let error = write(&gguf, &plan, None, &pool(), Vec::new(), &mut |_| true).unwrap_err();
    assert_eq!(error.to_string(), r#"tensor "token_embd.weight": TQ1_0 can be read, but not written"#);
}

/// The error of column 3 of each of two experts' weights.
fn lost(gguf: &Gguf, importance: Option<&ImportanceMatrix>) -> [f32; 2] {
    let plan = Plan::new(gguf, &QuantizeOptions { dtype: DType::Iq2S, head: None });
    let new = write(gguf, &plan, importance, &pool(), Vec::new(), &mut |_| true).unwrap();
    let new = Gguf::from_bytes(&new).unwrap();
    let name = "blk.0.ffn_up_exps.weight";
    let of = |gguf: &Gguf| {
        let info = gguf.tensor(name).unwrap();
        let mut floats = vec![0.0; info.elements()];
        herald_formats::dequantize_row(info.dtype(), gguf.bytes(info), &mut floats);
        floats
    };
    let (old, new) = (of(gguf), of(&new));
    let off = |row: usize| (old[256 * row + 3] - new[256 * row + 3]).powi(2);
    [(0..4).map(off).sum(), (4..8).map(off).sum()]
}

#[test]
fn what_matters_more_is_kept_more_exactly() {
    let gguf = model(&UNTIED);
    let mut importance = ImportanceMatrix::default();
    importance.chunk_count = 7;
    let mut x = vec![1.0; 256];
    importance.add("blk.0.ffn_up_exps.weight", 256, [0, 2], &x);
    x[3] = 100.0;
    importance.add("blk.0.ffn_up_exps.weight", 256, [1, 2], &x);
    let (plain, known) = (lost(&gguf, None), lost(&gguf, Some(&importance)));
    assert!(known[1] < plain[1] / 4.0, "{known:?}, {plain:?} without");
    assert!(known[0] > known[1], "{known:?}");
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Iq2S, head: None });
    assert_eq!(plan.unknown(&gguf, &importance), 3);
    let new = write(&gguf, &plan, Some(&importance), &pool(), Vec::new(), &mut |_| true).unwrap();
    let new = Gguf::from_bytes(&new).unwrap();
    assert_eq!(new.metadata().require::<u32>("quantize.imatrix.chunks_count").unwrap(), 7);
}

#[test]
fn an_importance_matrix_of_another_model_is_refused() {
    let gguf = model(&UNTIED);
    let plan = Plan::new(&gguf, &QuantizeOptions { dtype: DType::Iq3S, head: None });
    let mut importance = ImportanceMatrix::default();
    importance.add("blk.0.attn_q.weight", 128, [0, 1], &[1.0; 128]);
    let error = write(&gguf, &plan, Some(&importance), &pool(), Vec::new(), &mut |_| true).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the importance matrix has 128 numbers for "blk.0.attn_q.weight", where 256 columns of 1 matrices were expected: it was made with another model"#
    );
}
