//! What the writer refuses, and how it lays a file out.

use herald_api::DType;

use crate::gguf::{ArrayBuf, Gguf, GgufError, Writer};

fn sentence<T>(result: Result<T, GgufError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "it was taken".to_owned())
}

#[test]
fn data_is_aligned_as_the_metadata_says() -> Result<(), GgufError> {
    for alignment in [8_u32, 32, 256] {
        let mut writer = Writer::new();
        writer.metadata("general.alignment", alignment)?;
        writer.tensor("a", DType::F32, &[3])?.tensor("b", DType::Q8_0, &[64, 2])?;
        let mut data = writer.begin(Vec::new())?;
        data.tensor(&[1; 12])?;
        data.tensor(&[2; 136])?;
        let bytes = data.finish()?;
        assert!(bytes.len().is_multiple_of(alignment as usize));
        let gguf = Gguf::from_bytes(&bytes)?;
        assert_eq!(gguf.version(), 3);
        assert_eq!(gguf.file_bytes(), bytes.len() as u64);
        let tensors: Vec<_> = gguf.tensors().collect();
        for info in &tensors {
            assert!(info.offset().is_multiple_of(alignment as usize));
        }
        assert_eq!(
            tensors.iter().map(|info| gguf.bytes(info)).collect::<Vec<_>>(),
            [[1; 12].as_slice(), &[2; 136]]
        );
    }
    Ok(())
}

#[test]
fn a_view_outlives_its_file() -> Result<(), GgufError> {
    let mut writer = Writer::new();
    writer.tensor("a", DType::F32, &[2])?;
    let mut data = writer.begin(Vec::new())?;
    data.tensor(&[7; 8])?;
    let gguf = Gguf::from_bytes(&data.finish()?)?;
    let view = gguf.tensor("a").map(|info| gguf.view(info));
    drop(gguf);
    assert_eq!(view.as_deref(), Some([7; 8].as_slice()));
    Ok(())
}

#[test]
fn what_gguf_cannot_hold_is_refused() -> Result<(), GgufError> {
    let mut writer = Writer::new();
    writer.metadata("k", 1_u32)?;
    assert_eq!(
        sentence(writer.metadata("k", 2_u32)),
        r#"metadata "k" is there already; expected a key that no other entry has"#
    );
    assert_eq!(
        sentence(writer.metadata("", 2_u32)),
        r#"metadata "" is a key of 0 bytes; expected 1 to 65535 bytes"#
    );
    assert_eq!(
        sentence(writer.metadata("general.alignment", 12_u32)),
        r#"metadata "general.alignment" is the u32 12; expected a u32, a power of two that is a multiple of 8"#
    );
    let deep =
        (0..4).fold(ArrayBuf::from([1_u8].as_slice()), |inner, _| ArrayBuf::arrays([inner.as_array()]));
    assert_eq!(
        sentence(writer.metadata("deep", &deep)),
        r#"metadata "deep" is an array of 1 array values; expected arrays nested at most 4 deep"#
    );
    assert_eq!(
        sentence(writer.tensor(&"n".repeat(65), DType::F32, &[1])),
        format!("the name of tensor \"{}…\" is 65 bytes long; expected 1 to 64 bytes", "n".repeat(64))
    );
    assert_eq!(
        sentence(writer.tensor("t", DType::Q4_0, &[33])),
        r#"the row length of tensor "t" is 33; expected a multiple of 32, the block of Q4_0"#
    );
    assert_eq!(
        sentence(writer.tensor("t", DType::F32, &[1, 1, 1, 1, 1])),
        r#"the number of dimensions of tensor "t" is 5; expected 1 to 4"#
    );
    writer.tensor("t", DType::F32, &[2])?;
    assert_eq!(
        sentence(writer.tensor("t", DType::F32, &[2])),
        r#"tensor "t" is there already; expected a name that no other tensor has"#
    );

    let mut data = writer.begin(Vec::new())?;
    assert_eq!(
        sentence(data.tensor(&[0; 4])),
        r#"the data of tensor "t" is 4 bytes; expected 8, as declared"#
    );
    assert_eq!(
        sentence(data.tensor(&[0; 4])),
        "the data is 4 bytes for one tensor more; expected data of the declared tensors only"
    );
    let mut writer = Writer::new();
    writer.tensor("t", DType::F32, &[2])?;
    assert_eq!(
        sentence(writer.begin(Vec::new())?.finish()),
        r#"the data of tensor "t" is missing; expected 8 bytes, as declared"#
    );
    Ok(())
}

#[test]
fn sizes_past_the_address_space_are_refused() -> Result<(), GgufError> {
    let mut writer = Writer::new();
    writer.tensor("a", DType::F32, &[usize::MAX / 8])?.tensor("b", DType::F32, &[usize::MAX / 4])?;
    assert_eq!(
        sentence(writer.begin(Vec::new())),
        r#"the data up to tensor "b" is too large; expected a size that fits in 64 bits"#
    );
    Ok(())
}

#[test]
fn data_comes_whole_or_in_pieces() -> Result<(), GgufError> {
    let declared = || -> Result<_, GgufError> {
        let mut writer = Writer::new();
        writer.tensor("a", DType::F32, &[3])?.tensor("b", DType::F32, &[2])?;
        writer.begin(Vec::new())
    };
    let mut whole = declared()?;
    whole.tensor(&[1; 12])?;
    whole.tensor(&[1; 8])?;
    let mut pieces = declared()?;
    for len in [5, 0, 7, 8] {
        pieces.piece(&vec![1; len])?;
    }
    assert_eq!(pieces.finish()?, whole.finish()?);

    let mut data = declared()?;
    data.piece(&[1; 5])?;
    assert_eq!(
        sentence(data.tensor(&[1; 8])),
        r#"the data of tensor "a" is 5 bytes so far; expected 12, as declared"#
    );
    assert_eq!(
        sentence(data.piece(&[1; 8])),
        r#"the data of tensor "a" is 13 bytes; expected 12, as declared"#
    );
    let mut data = declared()?;
    data.piece(&[1; 11])?;
    assert_eq!(
        sentence(data.finish()),
        r#"the data of tensor "a" is 11 bytes so far; expected 12, as declared"#
    );
    Ok(())
}
