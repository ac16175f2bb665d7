//! Files of both formats, whole and damaged.

use super::*;

fn matrix() -> ImportanceMatrix {
    let mut matrix = ImportanceMatrix {
        datasets: vec!["one.txt".to_owned(), "two.txt".to_owned()],
        chunk_count: 3,
        chunk_size: 512,
        ..ImportanceMatrix::default()
    };
    matrix.add("blk.0.attn_q.weight", 4, [0, 1], &[1.0, -2.0, 0.5, 0.0, 3.0, 0.0, 0.0, 0.0]);
    matrix.add("blk.0.ffn_up_exps.weight", 2, [1, 3], &[1.0, 2.0]);
    matrix
}

fn path() -> &'static Path {
    Path::new("m.gguf")
}

#[test]
fn what_is_written_is_read() {
    let written = matrix().write(Vec::new()).unwrap();
    let read = ImportanceMatrix::from_gguf(&Gguf::from_bytes(&written).unwrap(), path()).unwrap();
    assert_eq!(read, matrix());
}

#[test]
fn importance_is_the_mean_of_squares() {
    let matrix = matrix();
    let of = |tensor, columns, matrices| matrix.importance(tensor, columns, matrices).unwrap();
    assert_eq!(of("blk.0.attn_q.weight", 4, 1), Some(vec![5.0, 2.0, 0.125, 0.0]));
    // An expert that no token used.
    assert_eq!(of("blk.0.ffn_up_exps.weight", 2, 3), Some(vec![1.0, 1.0, 1.0, 4.0, 1.0, 1.0]));
    // One for all.
    assert_eq!(of("blk.0.attn_q.weight", 4, 2).map(|all| all.len()), Some(8));
    assert_eq!(of("output.weight", 4, 1), None);
    assert!(matrix.importance("blk.0.ffn_up_exps.weight", 2, 2).is_err());
    assert!(matrix.importance("blk.0.attn_q.weight", 3, 1).is_err());
}

#[test]
fn other_files_are_refused() {
    let refused = |tensors: &[(&str, &[usize])], kind: &str| {
        let mut writer = Writer::new();
        writer.metadata("general.type", kind).unwrap();
        for (name, dims) in tensors {
            writer.tensor(name, DType::F32, dims).unwrap();
        }
        let mut data = writer.begin(Vec::new()).unwrap();
        for (_, dims) in tensors {
            data.tensor(&vec![0; 4 * dims.iter().product::<usize>()]).unwrap();
        }
        let gguf = Gguf::from_bytes(&data.finish().unwrap()).unwrap();
        ImportanceMatrix::from_gguf(&gguf, path()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[("a", &[1])], "model"),
        r#"m.gguf: it isn't said to be an importance matrix (general.type), where "imatrix" was expected"#
    );
    let sentence = r#"m.gguf: the sums of "a" have no counts that fit them, where a tensor "a.counts" of F32 was expected"#;
    assert_eq!(refused(&[("a.in_sum2", &[4, 2])], "imatrix"), sentence);
    assert_eq!(refused(&[("a.in_sum2", &[4, 2]), ("a.counts", &[1, 3])], "imatrix"), sentence);
}

/// The older format, by hand.
fn old() -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, number: i32| bytes.extend(number.to_le_bytes());
    number(&mut bytes, 1);
    number(&mut bytes, 1);
    bytes.push(b'a');
    number(&mut bytes, 2);
    number(&mut bytes, 3);
    bytes.extend([2.0_f32, 4.0, 8.0].into_iter().flat_map(f32::to_le_bytes));
    number(&mut bytes, 2);
    number(&mut bytes, 5);
    bytes.extend(b"t.txt");
    bytes
}

#[test]
fn the_older_format_is_read() {
    let matrix = legacy::read(&old(), path()).unwrap();
    assert_eq!(matrix.importance("a", 3, 1).unwrap(), Some(vec![1.0, 2.0, 4.0]));
    assert_eq!((matrix.datasets, matrix.chunk_count), (vec!["t.txt".to_owned()], 2));
}

#[test]
fn a_cut_or_changed_file_of_the_older_format_is_a_sentence() {
    let whole = old();
    // Before the text's name, a file may end.
    for len in (0..whole.len()).filter(|&len| len != whole.len() - 13) {
        let error = legacy::read(&whole[..len], path()).unwrap_err().to_string();
        assert!(error.starts_with("m.gguf: "), "{len}: {error}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        let _ = legacy::read(&bytes, path());
    }
}
