//! What a vocabulary may get wrong, and what the sentence about it says.

use herald_api::{DecodeOptions, EncodeOptions, Status, Vocabulary};

/// The message and status with which a vocabulary is refused.
fn refusal(vocabulary: &Vocabulary<'_>) -> (Status, String) {
    match herald_tokenizers::create(vocabulary) {
        Ok(_) => panic!("{vocabulary:?} was accepted"),
        Err(error) => (error.status(), error.message().to_owned()),
    }
}

/// A byte-level BPE vocabulary of these tokens and merges.
fn bpe<'a>(tokens: &[&'a str], merges: &[&'a str]) -> Vocabulary<'a> {
    Vocabulary {
        model: "gpt2",
        pre: "gpt-2",
        tokens: tokens.iter().map(|token| token.as_bytes()).collect(),
        merges: merges.iter().map(|merge| merge.as_bytes()).collect(),
        ..Vocabulary::default()
    }
}

/// A SentencePiece vocabulary of these tokens.
fn sentencepiece<'a>(tokens: &[&'a str], types: &'a [u32], scores: &'a [f32]) -> Vocabulary<'a> {
    let tokens = tokens.iter().map(|token| token.as_bytes()).collect();
    Vocabulary { model: "llama", tokens, types, scores, ..Vocabulary::default() }
}

fn encode(vocabulary: &Vocabulary<'_>, text: &str, options: EncodeOptions) -> Vec<u32> {
    let mut ids = Vec::new();
    herald_tokenizers::create(vocabulary).unwrap().encode(text, options, &mut ids).unwrap();
    ids
}

fn decode(vocabulary: &Vocabulary<'_>, ids: &[u32], options: DecodeOptions) -> String {
    let mut bytes = Vec::new();
    herald_tokenizers::create(vocabulary).unwrap().decode(ids, options, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

const PLAIN: EncodeOptions = EncodeOptions { special: false, continues: false };
const SPECIAL: EncodeOptions = EncodeOptions { special: true, continues: false };

#[test]
fn unknown_names() {
    let unknown = Vocabulary { model: "rwkv", ..bpe(&["a"], &[]) };
    let (status, message) = refusal(&unknown);
    assert_eq!(status, Status::Unsupported);
    assert_eq!(
        message,
        "the tokenizer model is \"rwkv\", and the known ones are \"gpt2\" (byte-level BPE), \"gemma4\" (BPE of characters), \
         \"llama\" (SentencePiece), \"t5\" (UGM) and \"bert\" (WPM)"
    );
    let (status, message) = refusal(&Vocabulary { pre: "gpt-7", ..bpe(&["a"], &[]) });
    assert_eq!(status, Status::Unsupported);
    assert!(message.starts_with("the pre-tokenizer is \"gpt-7\", and the known ones are default, gpt-2"));
}

#[test]
fn faults_of_any_vocabulary() {
    let fault = |vocabulary: &Vocabulary<'_>, message: &str| {
        assert_eq!(refusal(vocabulary), (Status::Corrupt, message.to_owned()));
    };
    for model in ["gpt2", "llama"] {
        fault(&Vocabulary { model, ..Vocabulary::default() }, "the vocabulary has no tokens");
    }
    fault(
        &Vocabulary { types: &[1], ..bpe(&["a", "b"], &[]) },
        "the vocabulary has 1 token types, and one for each of its 2 tokens was expected",
    );
    fault(
        &sentencepiece(&["a", "b"], &[1, 1], &[0.0, 0.0, 0.0]),
        "the vocabulary has 3 scores, and one for each of its 2 tokens was expected",
    );
    fault(
        &sentencepiece(&["a", "b"], &[1, 1], &[]),
        "the vocabulary has no scores, and one for each of its 2 tokens was expected",
    );
    fault(
        &Vocabulary { unknown: Some(2), ..bpe(&["a", "b"], &[]) },
        "the vocabulary's unknown token is 2, and its tokens are numbered from 0 to 1",
    );
}

#[test]
fn bytes_that_have_no_token() {
    // "B" is spelt, "é" lacks one of its two bytes.
    let tokens = ["<0x42>", "<0xC3>", "b", "<unk>"];
    let vocabulary = Vocabulary { unknown: Some(3), ..sentencepiece(&tokens, &[6, 6, 1, 2], &[0.0; 4]) };
    for model in ["llama", "t5"] {
        assert_eq!(encode(&Vocabulary { model, ..vocabulary.clone() }, "bBébéé", PLAIN), [2, 0, 3, 2, 3]);
    }
    let characters = Vocabulary { model: "gemma4", ..vocabulary };
    assert_eq!(encode(&characters, "bBéb", PLAIN), [2, 0, 3, 2]);
}

#[test]
fn faults_of_merges() {
    let fault = |merges: &[&str], message: &str| {
        let vocabulary = bpe(&["a", "b", "ab"], merges);
        assert_eq!(refusal(&vocabulary), (Status::Corrupt, message.to_owned()));
    };
    fault(&["a b", "ab"], "merge 1 of the vocabulary, \"ab\", isn't two tokens with a space between them");
    fault(&[""], "merge 0 of the vocabulary, \"\", isn't two tokens with a space between them");
    fault(&["a c"], "merge 0 of the vocabulary, \"a c\", names \"c\", which is not among its tokens");
    fault(&["b a"], "merge 0 of the vocabulary, \"b a\", names \"ba\", which is not among its tokens");
    fault(&["a  b"], "merge 0 of the vocabulary, \"a  b\", names \" b\", which is not among its tokens");
    fault(&["a "], "merge 0 of the vocabulary, \"a \", names \"\", which is not among its tokens");
    fault(
        &[],
        "the vocabulary has no merges, and 1 of its tokens are longer than the byte that text is made of without them",
    );
    let vocabulary = Vocabulary { merges: vec![b"a \xFF"], ..bpe(&["a", "b"], &[]) };
    assert!(refusal(&vocabulary).1.ends_with("names \"\u{FFFD}\", which is not among its tokens"));
}

#[test]
fn of_equal_tokens_the_first_counts() {
    let vocabulary = bpe(&["a", "b", "ab", "a", "ab"], &["a b", "a b"]);
    assert_eq!(encode(&vocabulary, "aba", PLAIN), [2, 0]);
    assert_eq!(decode(&vocabulary, &[4, 3], DecodeOptions::default()), "aba");
    let vocabulary = sentencepiece(&["a", "b", "ab", "ab"], &[], &[0.0, 0.0, -1.0, 5.0]);
    assert_eq!(encode(&vocabulary, "ab", PLAIN), [2]);
}

#[test]
fn what_cannot_be_expressed() {
    let bpe = bpe(&["a", "<unk>"], &[]);
    let tokenizer = |vocabulary: &Vocabulary<'_>| herald_tokenizers::create(vocabulary);
    let error = |vocabulary: &Vocabulary<'_>, text: &str| {
        let error = tokenizer(vocabulary).unwrap().encode(text, PLAIN, &mut Vec::new()).unwrap_err();
        assert_eq!(error.status(), Status::Unsupported);
        error.message().to_owned()
    };
    let bpe = Vocabulary { types: &[1, 2], ..bpe };
    let control = Vocabulary { types: &[1, 3], unknown: Some(1), ..bpe.clone() };
    let message =
        "the vocabulary has no token for the byte 0x62 of \"ab\", and no unknown token that text may become";
    assert_eq!(error(&bpe, "a ab"), message.replace("0x62 of \"ab\"", "0x20 of \" ab\""));
    assert_eq!(error(&control, "ab"), message);
    let known = Vocabulary { unknown: Some(1), ..bpe };
    assert_eq!(encode(&known, "abca", PLAIN), [0, 1, 1, 0]);

    let pieces = sentencepiece(&["a", "<unk>"], &[1, 2], &[0.0, 0.0]);
    assert_eq!(
        error(&pieces, "aé"),
        "the vocabulary has no token for \"é\", no byte tokens to spell it, and no unknown token to stand for it"
    );
    let known = Vocabulary { unknown: Some(1), ..pieces };
    assert_eq!(encode(&known, "aéèa", PLAIN), [0, 1, 0], "a run of unknown characters is one token");
}

#[test]
fn text_never_becomes_a_special_token_unasked() {
    // The merges spell the special token.
    let vocabulary = Vocabulary { types: &[1, 1, 3], ..bpe(&["<", ">", "<>"], &["< >"]) };
    assert_eq!(encode(&vocabulary, "<><>", PLAIN), [0, 1, 0, 1]);
    assert_eq!(encode(&vocabulary, "<><>", SPECIAL), [2, 2]);
    for pre in ["llama-bpe", "tekken"] {
        assert_eq!(encode(&Vocabulary { pre, ..vocabulary.clone() }, "<>", PLAIN), [0, 1]);
    }
    let vocabulary = sentencepiece(&["<", ">", "<>"], &[1, 1, 3], &[0.0, 0.0, 1.0]);
    assert_eq!(encode(&vocabulary, "<><>", PLAIN), [0, 1, 0, 1]);
    assert_eq!(encode(&vocabulary, "<><>", SPECIAL), [2, 2]);
    assert_eq!(decode(&vocabulary, &[0, 2, 1], DecodeOptions::default()), "<>");
    let special = DecodeOptions { special: true, continues: false };
    assert_eq!(decode(&vocabulary, &[0, 2, 1], special), "<<>>");
}

#[test]
fn the_space_prefix() {
    let tokens = ["\u{2581}", "a", "\u{2581}a", "<s>", "<u>"];
    let vocabulary = Vocabulary {
        add_space_prefix: true,
        ..sentencepiece(&tokens, &[1, 1, 1, 3, 4], &[-3.0, -2.0, -1.0, 0.0, 0.0])
    };
    let going_on = EncodeOptions { special: true, continues: true };
    assert_eq!(encode(&vocabulary, "a a", SPECIAL), [2, 2]);
    assert_eq!(encode(&vocabulary, "a a", going_on), [1, 2]);
    assert_eq!(encode(&vocabulary, "<s>a", SPECIAL), [3, 2]);
    assert_eq!(encode(&vocabulary, "<s>a", going_on), [3, 2]);
    assert_eq!(encode(&vocabulary, "", SPECIAL), [0; 0]);
    assert_eq!(encode(&vocabulary, " ", SPECIAL), [0, 0]);
    let decoded =
        |ids: &[u32], continues| decode(&vocabulary, ids, DecodeOptions { special: false, continues });
    assert_eq!(decoded(&[2, 2], false), "a a");
    assert_eq!(decoded(&[2, 2], true), " a a");
    assert_eq!(decoded(&[0, 2], false), " a");
    assert_eq!(decoded(&[3, 2], false), " a", "only the first token decides");
    let without = Vocabulary { add_space_prefix: false, ..vocabulary };
    assert_eq!(encode(&without, "a a", SPECIAL), [1, 2]);
    assert_eq!(decode(&without, &[2, 2], DecodeOptions::default()), " a a");
}

#[test]
fn ids_outside_the_vocabulary() {
    for vocabulary in [bpe(&["a", "b"], &[]), sentencepiece(&["a", "b"], &[], &[0.0, 0.0])] {
        let tokenizer = herald_tokenizers::create(&vocabulary).unwrap();
        for id in [2, u32::MAX] {
            let error = tokenizer.decode(&[0, id], DecodeOptions::default(), &mut Vec::new()).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument);
            assert_eq!(
                error.message(),
                format!(
                    "token {id} at position 1 is outside the vocabulary, whose tokens are numbered from 0 to 1"
                )
            );
        }
    }
}

#[test]
fn scores_of_any_kind() {
    let tokens = ["a", "b", "c", "ab", "bc"];
    let encoded = |ab: f32, bc: f32| {
        let scores = [0.0, 0.0, 0.0, ab, bc];
        encode(&sentencepiece(&tokens, &[], &scores), "abc", PLAIN)
    };
    assert_eq!(encoded(2.0, 1.0), [3, 2]);
    assert_eq!(encoded(-2.0, -1.0), [0, 4]);
    assert_eq!(encoded(-0.0, 0.0), [3, 2], "equal scores merge from the left");
    assert_eq!(encoded(f32::NAN, f32::NEG_INFINITY), [0, 4], "what is no number comes last");
    assert_eq!(encoded(-1.0, f32::INFINITY), [0, 4]);
}
