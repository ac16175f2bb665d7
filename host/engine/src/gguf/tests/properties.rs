//! Properties: damage never panics and is described in one line, and what the writer writes, the reader reads.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use herald_api::DType;
use proptest::prelude::*;

use super::tiny;
use crate::gguf::{ArrayBuf, Gguf, GgufError, Value, Writer};

/// A real file, and where its data begins.
static REAL: LazyLock<(Vec<u8>, usize)> = LazyLock::new(|| {
    let bytes = fs::read(tiny("llama_tied")).expect("the test data is there");
    let gguf = Gguf::from_bytes(&bytes).expect("the test data is valid");
    let data = gguf.tensors().map(|info| info.offset()).min().unwrap_or_default();
    (bytes, data)
});

/// Reads all that a file offers, or checks that its error is one line.
fn walk(bytes: &[u8]) -> Result<(), TestCaseError> {
    match Gguf::from_bytes(bytes) {
        Ok(gguf) => {
            for (key, value) in gguf.metadata().iter() {
                prop_assert_eq!(
                    gguf.metadata().value(key).map(|value| value.value_type()),
                    Some(value.value_type())
                );
                if let Value::Array(array) = value {
                    prop_assert_eq!(array.elements().count(), array.len());
                }
            }
            let data: usize = gguf.tensors().map(|info| gguf.bytes(info).len()).sum();
            prop_assert!(data <= bytes.len());
        }
        Err(error) => {
            let sentence = error.to_string();
            prop_assert!(!sentence.contains('\n') && sentence.len() < 800, "{}", sentence);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..8)) {
        let (real, data) = &*REAL;
        let mut bytes = real.clone();
        for (index, mask) in flips {
            // Past the header, a flip changes a weight and nothing else.
            bytes[index.index(data + 64)] ^= mask;
        }
        walk(&bytes)?;
    }

    #[test]
    fn overwritten_words_never_panic(
        at in any::<prop::sample::Index>(),
        word in prop_oneof![Just(u64::MAX), Just(0), Just(1 << 63), (0..64_u32).prop_map(|bit| 1 << bit), any::<u64>()],
    ) {
        let (real, data) = &*REAL;
        let mut bytes = real.clone();
        let at = at.index(*data);
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        walk(&bytes)?;
    }

    #[test]
    fn a_cut_file_is_always_refused(at in any::<prop::sample::Index>(), in_header: bool) {
        let (real, data) = &*REAL;
        let cut = &real[..at.index(if in_header { *data } else { real.len() })];
        // The last tensor ends where the file does, so whatever is missing belongs to something.
        let error = Gguf::from_bytes(cut).map(drop).map_err(|error| error.to_string());
        let sentence = error.expect_err("a cut file was read");
        let tells = sentence.contains("cut off by the end of the file") || sentence.contains("expected at most");
        prop_assert!(tells, "{}", sentence);
    }

    #[test]
    fn removed_and_inserted_bytes_never_panic(at in any::<prop::sample::Index>(), shift in -64_isize..64) {
        let (real, data) = &*REAL;
        let at = at.index(*data);
        let mut bytes = real.clone();
        if shift < 0 {
            bytes.drain(at..at + shift.unsigned_abs());
        } else {
            bytes.splice(at..at, vec![0x41; shift.unsigned_abs()]);
        }
        walk(&bytes)?;
    }

    #[test]
    fn what_was_written_is_read(file in file()) {
        let bytes = write(&file).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let gguf = Gguf::from_bytes(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let entries: Vec<_> = gguf.metadata().iter().collect();
        let expected: Vec<_> = file.metadata.iter().map(|(key, value)| (key.as_str(), value.as_value())).collect();
        prop_assert_eq!(entries, expected);
        prop_assert_eq!(gguf.tensors().len(), file.tensors.len());
        for (info, (name, tensor)) in gguf.tensors().zip(&file.tensors) {
            prop_assert_eq!(info.name(), name);
            prop_assert_eq!(info.dtype(), tensor.dtype);
            prop_assert_eq!(info.dims(), tensor.dims.as_slice());
            prop_assert_eq!(gguf.bytes(info), tensor.data());
        }
    }
}

/// A file to write.
#[derive(Clone, Debug)]
struct File {
    metadata: BTreeMap<String, Owned>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    fill: u8,
}

impl Tensor {
    fn data(&self) -> Vec<u8> {
        let rows: usize = self.dims.iter().skip(1).product();
        vec![self.fill; rows * self.dtype.row_bytes(self.dims[0]).expect("rows are whole blocks")]
    }
}

/// A value that owns its parts.
#[derive(Clone, Debug)]
enum Owned {
    Plain(Value<'static>),
    String(String),
    Array(ArrayBuf),
}

impl Owned {
    fn as_value(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => *value,
            Self::String(string) => string.as_str().into(),
            Self::Array(array) => array.into(),
        }
    }
}

fn write(file: &File) -> Result<Vec<u8>, GgufError> {
    let mut writer = Writer::new();
    for (key, value) in &file.metadata {
        writer.metadata(key, value.as_value())?;
    }
    for (name, tensor) in &file.tensors {
        writer.tensor(name, tensor.dtype, &tensor.dims)?;
    }
    let mut data = writer.begin(Vec::new())?;
    for tensor in file.tensors.values() {
        data.tensor(&tensor.data())?;
    }
    data.finish()
}

fn file() -> impl Strategy<Value = File> {
    let metadata = prop::collection::btree_map("[a-z_.]{1,20}", value(), 0..12);
    let tensors = prop::collection::btree_map("[a-z0-9_.]{1,64}", tensor(), 0..8);
    let alignment = prop::option::of((3..9_u32).prop_map(|bits| 1 << bits));
    (metadata, tensors, alignment).prop_map(|(mut metadata, tensors, alignment)| {
        if let Some(alignment) = alignment {
            metadata.insert("general.alignment".to_owned(), Owned::Plain(Value::U32(alignment)));
        }
        File { metadata, tensors }
    })
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let dims = prop::collection::vec(1..4_usize, 1..=4);
    (prop::sample::select(DType::ALL.as_slice()), dims, any::<u8>()).prop_map(|(dtype, mut dims, fill)| {
        dims[0] *= dtype.block_len();
        Tensor { dtype, dims, fill }
    })
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        scalar().prop_map(Owned::Plain),
        ".{0,30}".prop_map(Owned::String),
        array().prop_map(Owned::Array)
    ]
}

fn scalar() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<f64>().prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
    ]
}

fn array() -> impl Strategy<Value = ArrayBuf> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|elements| ArrayBuf::from(elements.as_slice())),
        prop::collection::vec(any::<i16>(), 0..9).prop_map(|elements| ArrayBuf::from(elements.as_slice())),
        prop::collection::vec(any::<f32>(), 0..9).prop_map(|elements| ArrayBuf::from(elements.as_slice())),
        prop::collection::vec(any::<f64>(), 0..9).prop_map(|elements| ArrayBuf::from(elements.as_slice())),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(|elements| ArrayBuf::from(elements.as_slice())),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9).prop_map(ArrayBuf::strings),
    ];
    // Three levels above the leaves are as deep as readers go.
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop::collection::vec(inner, 0..4)
            .prop_map(|arrays| ArrayBuf::arrays(arrays.iter().map(ArrayBuf::as_array)))
    })
}
