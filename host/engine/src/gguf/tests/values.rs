//! Metadata as callers ask for it: which kinds turn into which types, and what is said of those that don't.

use crate::gguf::{Array, ArrayBuf, Gguf, GgufError, Value, ValueType, Writer};

/// A file that has a value of every kind.
fn sample() -> Gguf {
    let inner = ArrayBuf::from([1_u8, 2].as_slice());
    let mut writer = Writer::new();
    writer
        .metadata("u8", 8_u8)
        .and_then(|writer| writer.metadata("i8", -8_i8))
        .and_then(|writer| writer.metadata("u16", 16_u16))
        .and_then(|writer| writer.metadata("i16", -16_i16))
        .and_then(|writer| writer.metadata("u32", 32_u32))
        .and_then(|writer| writer.metadata("i32", -32_i32))
        .and_then(|writer| writer.metadata("u64", u64::MAX))
        .and_then(|writer| writer.metadata("i64", 64_i64))
        .and_then(|writer| writer.metadata("f32", 0.5_f32))
        .and_then(|writer| writer.metadata("f64", 0.25_f64))
        .and_then(|writer| writer.metadata("bool", true))
        .and_then(|writer| writer.metadata("string", "text"))
        .and_then(|writer| writer.metadata("ints", &ArrayBuf::from([1_i64, 2, -3].as_slice())))
        .and_then(|writer| writer.metadata("floats", &ArrayBuf::from([0.5_f32, 1.5].as_slice())))
        .and_then(|writer| writer.metadata("tokens", &ArrayBuf::strings([b"a".as_slice(), b"\xff\xfe"])))
        .and_then(|writer| writer.metadata("nested", &ArrayBuf::arrays([inner.as_array(), inner.as_array()])))
        .expect("the values are valid");
    let bytes = writer.begin(Vec::new()).and_then(|data| data.finish()).expect("a Vec takes every write");
    Gguf::from_bytes(&bytes).expect("the writer's file is valid")
}

#[test]
fn values_convert_where_they_fit() -> Result<(), GgufError> {
    let gguf = sample();
    let metadata = gguf.metadata();
    assert_eq!(metadata.len(), 16);
    assert_eq!(metadata.get::<u32>("u8")?, Some(8));
    assert_eq!(metadata.get::<i32>("i8")?, Some(-8));
    assert_eq!(metadata.get::<usize>("u16")?, Some(16));
    assert_eq!(metadata.get::<i64>("i16")?, Some(-16));
    assert_eq!(metadata.get::<u8>("u32")?, Some(32));
    assert_eq!(metadata.get::<u64>("u64")?, Some(u64::MAX));
    assert_eq!(metadata.require::<u32>("i64")?, 64);
    assert_eq!(metadata.get::<f32>("f32")?, Some(0.5));
    assert_eq!(metadata.get::<f32>("f64")?, Some(0.25));
    assert_eq!(metadata.get::<bool>("bool")?, Some(true));
    assert_eq!(metadata.get::<&str>("string")?, Some("text"));
    assert_eq!(metadata.get::<Vec<i32>>("ints")?, Some(vec![1, 2, -3]));
    assert_eq!(metadata.require::<Vec<f32>>("floats")?, [0.5, 1.5]);
    assert_eq!(metadata.require::<Vec<&[u8]>>("tokens")?, [b"a".as_slice(), b"\xff\xfe"]);
    assert_eq!(metadata.require::<Vec<Vec<u32>>>("nested")?, [[1, 2], [1, 2]]);
    assert_eq!(metadata.get::<u32>("absent")?, None);
    let tokens = metadata.require::<Array<'_>>("tokens")?;
    assert_eq!((tokens.element_type(), tokens.len(), tokens.is_empty()), (ValueType::String, 2, false));
    assert_eq!(tokens.elements().nth(1), Some(Value::String(b"\xff\xfe")));
    Ok(())
}

#[test]
fn what_does_not_fit_is_said_in_one_sentence() {
    let gguf = sample();
    let metadata = gguf.metadata();
    let cases = [
        (
            metadata.get::<u32>("string").map(drop),
            r#"metadata "string" at byte 249 is the string "text"; expected an integer from 0 to 4294967295"#,
        ),
        (
            metadata.get::<u32>("i32").map(drop),
            r#"metadata "i32" at byte 122 is the i32 -32; expected an integer from 0 to 4294967295"#,
        ),
        (
            metadata.get::<u8>("f32").map(drop),
            r#"metadata "f32" at byte 187 is the f32 0.5; expected an integer from 0 to 255"#,
        ),
        (
            metadata.get::<f32>("u8").map(drop),
            r#"metadata "u8" at byte 38 is the u8 8; expected a floating-point number"#,
        ),
        (
            metadata.get::<bool>("ints").map(drop),
            r#"metadata "ints" at byte 277 is an array of 3 i64 values; expected a bool"#,
        ),
        (
            metadata.get::<Vec<u32>>("ints").map(drop),
            "metadata \"ints\" at byte 277 is an array of 3 i64 values, of which element 2 is the i64 -3; expected \
             an array whose every element is an integer from 0 to 4294967295",
        ),
        (
            metadata.get::<&str>("bool").map(drop),
            r#"metadata "bool" at byte 230 is the bool true; expected a string of UTF-8"#,
        ),
        (
            metadata.require::<f32>("absent").map(drop),
            r#"metadata "absent" is missing; expected a floating-point number"#,
        ),
        (
            Err(metadata.fault("u32", "31, the number of layers")),
            r#"metadata "u32" at byte 103 is the u32 32; expected 31, the number of layers"#,
        ),
    ];
    for (result, sentence) in cases {
        assert_eq!(result.map_err(|error| error.to_string()), Err(sentence.to_owned()));
    }
}

#[test]
fn entries_come_in_the_files_order() {
    let gguf = sample();
    let keys: Vec<&str> = gguf.metadata().iter().map(|(key, _)| key).collect();
    let expected = [
        "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "string", "ints",
        "floats", "tokens", "nested",
    ];
    assert_eq!(keys, expected);
    assert_eq!(gguf.metadata().value("i16"), Some(Value::I16(-16)));
}
