//! Each kind of damage, and the one sentence it gets.

use super::Raw;

/// Parses and returns the error's sentence, or a note that there was none.
fn sentence(raw: &Raw) -> String {
    raw.parse().map_or_else(|error| error.to_string(), |_| "it parsed".to_owned())
}

fn check(cases: &[(Raw, &str)]) {
    for (raw, expected) in cases {
        assert_eq!(sentence(raw), *expected);
    }
}

#[test]
fn header() {
    check(&[(Raw::header(2, 0, 0), "it parsed"), (Raw::header(3, 0, 0), "it parsed")]);
    check(&[
        (
            Raw::default(),
            "it is empty, where a GGUF file was expected: download it again, from the link to the file itself",
        ),
        (
            Raw::default().bytes("GGU"),
            "the magic number at byte 0 is cut off by the end of the file at byte 3; expected 4 bytes",
        ),
        (Raw::default().bytes("GGML\0\0"), r#"the magic number at byte 0 is "GGML"; expected "GGUF""#),
        (
            Raw::default().bytes("GGUF\x03\0"),
            "the version at byte 4 is cut off by the end of the file at byte 6; expected 4 bytes",
        ),
        (Raw::header(1, 0, 0), "the version at byte 4 is 1; expected 2 or 3"),
        (Raw::header(0, 0, 0), "the version at byte 4 is 0; expected 2 or 3"),
        (Raw::header(4, 0, 0), "the version at byte 4 is 4; expected 2 or 3"),
        (
            Raw::header(3_u32.swap_bytes(), 0, 0),
            "the version at byte 4 is 3, in big-endian order; expected a little-endian file of version 2 or 3",
        ),
        (
            Raw::header(3, u64::MAX, 0),
            "the number of tensors at byte 8 is 18446744073709551615; expected at most 0, all that the 8 bytes \
             after it can hold",
        ),
        (
            Raw::header(3, 0, 3).bytes([0; 30]),
            "the number of metadata entries at byte 16 is 3; expected at most 2, all that the 30 bytes after it \
             can hold",
        ),
    ]);
}

#[test]
fn metadata() {
    let one = Raw::header(3, 0, 1);
    let two = Raw::header(3, 0, 2).entry_u32("a.b", 7);
    check(&[
        (
            one.clone().u64(u64::MAX).bytes([0; 20]),
            "the length of the key of metadata entry 1 of 1 at byte 24 is 18446744073709551615; expected at most \
             20, all that the 20 bytes after it can hold",
        ),
        (
            one.clone().string("").bytes([0; 20]),
            "the key of metadata entry 1 of 1 at byte 24 is 0 bytes long; expected 1 to 65535 bytes",
        ),
        (
            one.clone().string("k".repeat(65536)).bytes([0; 20]),
            "the key of metadata entry 1 of 1 at byte 24 is 65536 bytes long; expected 1 to 65535 bytes",
        ),
        (
            one.clone().string(b"ab\xff").u32(4).u32(1),
            "the key of metadata entry 1 of 1 at byte 32 is \"ab\u{fffd}\", which is no UTF-8 from its byte 2; \
             expected UTF-8",
        ),
        (
            two.clone().entry_u32("a.b", 8),
            r#"the key of metadata entry 2 of 2 at byte 43 is "a.b" again; expected a key that no other entry has"#,
        ),
        (
            two.string("c"),
            "the value type of metadata \"c\" at byte 52 is cut off by the end of the file at byte 52; expected 4 \
             bytes",
        ),
        (
            one.clone().string("a.b").u32(13).u32(0),
            r#"the value type of metadata "a.b" at byte 35 is 13; expected a number from 0 (u8) to 12 (f64)"#,
        ),
        (
            one.clone().string("a.b").u32(10).u32(0),
            r#"metadata "a.b" at byte 39 is cut off by the end of the file at byte 43; expected 8 bytes"#,
        ),
        (
            one.clone().string("a.b").u32(7).bytes([2]),
            r#"metadata "a.b" at byte 39 is the bool 2; expected 0 or 1"#,
        ),
        (
            one.clone().string("a.b").u32(8).string(b"\x80"),
            "metadata \"a.b\" at byte 47 is \"\u{fffd}\", which is no UTF-8 from its byte 0; expected UTF-8",
        ),
        (
            one.clone().string("a.b").u32(8).u64(1 << 62).bytes("xyz"),
            "the length of metadata \"a.b\" at byte 39 is 4611686018427387904; expected at most 3, all that the 3 \
             bytes after it can hold",
        ),
    ]);
}

#[test]
fn arrays() {
    let one = Raw::header(3, 0, 1);
    let array = |kind: u32, len: u64| one.clone().string("a.b").u32(9).u32(kind).u64(len);
    let nested = (0..6).fold(one.clone().string("a.b").u32(9), |raw, _| raw.u32(9).u64(1));
    check(&[
        (
            array(99, 0),
            r#"the element type of metadata "a.b" at byte 39 is 99; expected a number from 0 (u8) to 12 (f64)"#,
        ),
        (
            array(12, 1 << 61).bytes([0; 17]),
            "the number of elements of metadata \"a.b\" at byte 43 is 2305843009213693952; expected at most 2, all \
             that the 17 bytes after it can hold",
        ),
        (
            array(8, 3).bytes([0; 23]),
            "the number of elements of metadata \"a.b\" at byte 43 is 3; expected at most 2, all that the 23 bytes \
             after it can hold",
        ),
        (
            array(8, 2).string("x").u64(5).bytes("four"),
            "the length of element 1 of metadata \"a.b\" at byte 60 is 5; expected at most 4, all that the 4 bytes \
             after it can hold",
        ),
        (
            array(7, 2).bytes([1, 7]),
            r#"element 1 of metadata "a.b" at byte 52 is the bool 7; expected 0 or 1"#,
        ),
        (
            nested,
            "element 0 of element 0 of element 0 of element 0 of metadata \"a.b\" at byte 87 is an array inside 4 \
             others; expected arrays nested at most 4 deep",
        ),
    ]);
}

#[test]
fn a_million_nested_arrays_stay_off_the_stack() {
    let start = Raw::header(3, 0, 1).string("a.b").u32(9);
    let nested = (0..1_000_000).fold(start, |raw, _| raw.u32(9).u64(1));
    assert!(sentence(&nested).ends_with("expected arrays nested at most 4 deep"));
}

#[test]
fn alignment() {
    let expected = |held: &str| {
        format!(
            "metadata \"general.alignment\" at byte 53 is {held}; expected a power of two that is a multiple of 8"
        )
    };
    for bad in [0, 1, 4, 24, 33, u32::MAX] {
        let raw = Raw::header(3, 0, 1).entry_u32("general.alignment", bad);
        assert_eq!(sentence(&raw), expected(&format!("the u32 {bad}")));
    }
    let text = Raw::header(3, 0, 1).string("general.alignment").u32(8).string("32");
    assert_eq!(sentence(&text), expected(r#"the string "32""#));
    let negative = Raw::header(3, 0, 1).string("general.alignment").u32(5).u32((-32_i32) as u32);
    assert_eq!(sentence(&negative), expected("the i32 -32"));
    for good in [8, 16, 32, 4096] {
        assert_eq!(sentence(&Raw::header(3, 0, 1).entry_u32("general.alignment", good)), "it parsed");
    }
    let huge = Raw::header(3, 1, 1).entry_u32("general.alignment", 1 << 31).tensor("a", &[1], 0, 0).data(4);
    assert_eq!(
        sentence(&huge),
        "the data of tensor \"a\" at byte 2147483648 is cut off by the end of the file at byte 100; expected 4 bytes"
    );
}

#[test]
fn list_of_tensors() {
    let tensor = |dims: &[u64], dtype: u32| Raw::header(3, 1, 0).tensor("t", dims, dtype, 0).data(64);
    let types = "one of 0 (F32), 1 (F16), 2 (Q4_0), 3 (Q4_1), 6 (Q5_0), 7 (Q5_1), 8 (Q8_0), 10 (Q2_K), 11 (Q3_K), \
                 12 (Q4_K), 13 (Q5_K), 14 (Q6_K), 16 (IQ2_XXS), 17 (IQ2_XS), 18 (IQ3_XXS), 19 (IQ1_S), 20 (IQ4_NL), \
                 21 (IQ3_S), 22 (IQ2_S), 23 (IQ4_XS), 29 (IQ1_M), 30 (BF16), 34 (TQ1_0), 35 (TQ2_0), 39 (MXFP4), 40 (NVFP4)";
    for (code, held) in [
        (15, "15 (Q8_K)"),
        (24, "24 (I8)"),
        (41, "41 (Q1_0)"),
        (4, "4 (Q4_2, which GGUF has withdrawn)"),
        (1000, "1000, which GGUF doesn't define"),
    ] {
        let expected = format!("the type of tensor \"t\" at byte 45 is {held}; expected {types}");
        assert_eq!(sentence(&tensor(&[32], code)), expected);
    }
    check(&[
        (
            Raw::header(3, 1, 0).string(b"\xc3\x28").bytes([0; 40]),
            "the name of tensor 1 of 1 at byte 32 is \"\u{fffd}(\", which is no UTF-8 from its byte 0; expected UTF-8",
        ),
        (
            Raw::header(3, 1, 0).string("").bytes([0; 40]),
            "the name of tensor 1 of 1 at byte 24 is 0 bytes long; expected 1 to 64 bytes",
        ),
        (
            Raw::header(3, 1, 0).string("n".repeat(65)).bytes([0; 40]),
            "the name of tensor 1 of 1 at byte 24 is 65 bytes long; expected 1 to 64 bytes",
        ),
        (
            Raw::header(3, 2, 0).tensor("t", &[8], 0, 0).tensor("t", &[8], 0, 32).data(64),
            r#"the name of tensor 2 of 2 at byte 57 is "t" again; expected a name that no other tensor has"#,
        ),
        (tensor(&[], 0), r#"the number of dimensions of tensor "t" at byte 33 is 0; expected 1 to 4"#),
        (
            tensor(&[1, 1, 1, 1, 1], 0),
            r#"the number of dimensions of tensor "t" at byte 33 is 5; expected 1 to 4"#,
        ),
        (
            tensor(&[32, 0], 0),
            r#"the shape of tensor "t" at byte 37 is [32, 0]; expected dimensions of at least 1"#,
        ),
        (
            tensor(&[48], 2),
            r#"the row length of tensor "t" at byte 37 is 48; expected a multiple of 32, the block of Q4_0"#,
        ),
        (
            tensor(&[32, 8], 12),
            r#"the row length of tensor "t" at byte 37 is 32; expected a multiple of 256, the block of Q4_K"#,
        ),
        (
            tensor(&[1 << 32, 1 << 32], 0),
            "the shape of tensor \"t\" at byte 37 is [4294967296, 4294967296]; expected a size that fits in 64 bits",
        ),
        (
            tensor(&[u64::MAX], 0),
            "the shape of tensor \"t\" at byte 37 is [18446744073709551615]; expected a size that fits in 64 bits",
        ),
        (
            // 2^65 elements in 2^63 bytes or so: the product of dimensions overflows alone.
            tensor(&[1 << 33, 1 << 32], 10),
            "the shape of tensor \"t\" at byte 37 is [8589934592, 4294967296]; expected a size that fits in 64 bits",
        ),
        (
            Raw::header(3, 1, 0).tensor("a\n\"b", &[0], 0, 0).data(64),
            r#"the shape of tensor "a\n\"b" at byte 40 is [0]; expected dimensions of at least 1"#,
        ),
    ]);
}

#[test]
fn places_of_data() {
    let two = |first: u64, second: u64| {
        Raw::header(3, 2, 0).tensor("a", &[16], 0, first).tensor("b", &[16], 0, second).data(128)
    };
    assert_eq!(sentence(&two(0, 64)), "it parsed");
    assert_eq!(sentence(&two(64, 0)), "it parsed");
    check(&[
        (
            two(0, 65),
            r#"the offset of tensor "b" at byte 82 is 65; expected a multiple of 32, the file's alignment"#,
        ),
        (
            two(0, 32),
            "the offset of tensor \"b\" at byte 82 is 32, inside the data of tensor \"a\"; expected data that no \
             other tensor has",
        ),
        (
            two(32, 0),
            "the offset of tensor \"a\" at byte 49 is 32, inside the data of tensor \"b\"; expected data that no \
             other tensor has",
        ),
        (
            two(64, 64),
            "the offset of tensor \"b\" at byte 82 is 64, inside the data of tensor \"a\"; expected data that no \
             other tensor has",
        ),
        (
            two(0, 96),
            r#"the data of tensor "b" at byte 192 is cut off by the end of the file at byte 224; expected 64 bytes"#,
        ),
        (
            two(0, 1 << 40),
            "the data of tensor \"b\" at byte 1099511627872 is cut off by the end of the file at byte 224; expected \
             64 bytes",
        ),
        (
            two(0, u64::MAX - 31),
            "the offset of tensor \"b\" at byte 82 is 18446744073709551584; expected an offset in the file's 224 bytes",
        ),
    ]);
}

#[test]
fn errors_never_show_more_than_a_line() {
    let long = Raw::header(3, 0, 1).string("x".repeat(5000)).u32(77);
    let sentence = sentence(&long);
    assert!(sentence.len() < 200, "{sentence}");
    assert!(sentence.contains("xxx…\""), "{sentence}");
}
