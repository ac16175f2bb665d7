//! A vocabulary and a text: ids that exist, whose tokens can be written again.

use herald_api::{DecodeOptions, EncodeOptions, Vocabulary};

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "tokenizer",
    run,
    words: &[
        "gpt2",
        "llama",
        "gpt-2",
        "llama-bpe",
        "qwen2",
        "default",
        "\n--\n",
        "1",
        "3",
        "6",
        "<0x0A>",
        "\u{2581}",
        "\u{120}",
        "\n",
    ],
    max_len: 16 << 10,
    ..DEFAULT
};

/// Parts: model, pre-tokenizer and flags, each in its line; tokens, each after the digit of its type; merges; the text; the charsmap.
fn run(input: &[u8]) -> String {
    let parts = super::parts(input);
    let part = |place: usize| parts.get(place).map_or("", String::as_str);
    let mut head = part(0).split('\n');
    let (model, pre, flags) =
        (head.next().unwrap_or(""), head.next().unwrap_or(""), head.next().unwrap_or(""));
    let mut tokens: Vec<&[u8]> = Vec::new();
    let mut types = Vec::new();
    for line in part(1).split('\n') {
        let digit = line.bytes().next().filter(u8::is_ascii_digit);
        types.push(digit.map_or(1, |digit| u32::from(digit - b'0')));
        tokens.push(if digit.is_some() { &line.as_bytes()[1..] } else { line.as_bytes() });
    }
    let strips: Vec<u8> = (0..tokens.len()).map(|place| place as u8 % 4).collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|place| -(place as f32)).collect();
    let has = |flag: char| flags.contains(flag);
    let vocabulary = Vocabulary {
        model,
        pre,
        types: if has('t') { &types } else { &[] },
        scores: if has('s') { &scores } else { &[] },
        merges: part(2).split('\n').filter(|line| !line.is_empty()).map(str::as_bytes).collect(),
        unknown: has('u').then_some(0),
        add_space_prefix: has('p'),
        remove_extra_whitespace: has('w'),
        lowercase: has('l'),
        strip_accents: has('a'),
        charsmap: if has('m') { part(4).as_bytes() } else { &[] },
        strips: if has('e') { &strips } else { &[] },
        tokens,
    };
    let count = vocabulary.tokens.len();
    super::told(herald_tokenizers::create(&vocabulary), |tokenizer| {
        let mut ids = Vec::new();
        let options = EncodeOptions { special: has('x'), continues: has('c') };
        super::told(tokenizer.encode(part(3), options, &mut ids), |()| {
            assert!(ids.iter().all(|id| (*id as usize) < count), "an id that doesn't exist");
            let mut bytes = Vec::new();
            let options = DecodeOptions { special: has('x'), continues: has('c') };
            super::told(tokenizer.decode(&ids, options, &mut bytes), |()| "encoded".to_owned())
        })
    })
}
