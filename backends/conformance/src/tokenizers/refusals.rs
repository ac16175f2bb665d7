//! Bad input: what a tokenizer must refuse.

use herald_api::Status;
use herald_api::abi::{HERALD_TEXT_CONTINUES, HERALD_TEXT_SPECIAL, HeraldTokenizerTable};

use super::Case;
use super::made::{Made, create_raw};
use super::vocabulary::{self, Packed, Words};
use crate::Outcome;
use crate::answer::call;
use crate::check::{Verdict, ensure};

/// With which statuses a vocabulary that can't be used is refused.
const REFUSALS: [Status; 2] = [Status::Corrupt, Status::Unsupported];

/// Ids outside the vocabulary, unknown flags, text that is no UTF-8, null handles.
pub(super) fn input(case: &Case<'_>) -> Verdict {
    let made = &case.made;
    let n = made.words.tokens.len() as u32;
    for ids in [vec![n], vec![0, n, 0], vec![u32::MAX], vec![0, 1 << 31], vec![n + 1; 40]] {
        for flags in [0, HERALD_TEXT_SPECIAL] {
            let given = made.decode(&ids, flags, 1024, 0)?;
            let what = format!("decode of {ids:?} of a vocabulary of {n}");
            given.answer.refused(&what, &[Status::InvalidArgument])?;
        }
    }
    for flags in [1 << 31, 4, HERALD_TEXT_CONTINUES | 1 << 9] {
        let refusals = [Status::InvalidArgument, Status::Unsupported];
        let given = made.encode(b"a", flags, 64)?;
        given.answer.refused(&format!("encode with the unknown flags {flags:#x}"), &refusals)?;
        let given = made.decode(&[0], flags, 64, 0)?;
        given.answer.refused(&format!("decode with the unknown flags {flags:#x}"), &refusals)?;
    }
    // It may be refused or read as bytes, but not break anything.
    let broken: [&[u8]; 7] =
        [b"\xff", b"a\x80", b"\xc3", b"\xe2\x96", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80 and on"];
    for text in broken {
        let given = made.encode(text, 0, 256)?;
        if !given.answer.is_ok() {
            let refusals = [Status::InvalidArgument, Status::Unsupported];
            given
                .answer
                .refused(&format!("encode of the bytes {text:02x?}, which are no UTF-8,"), &refusals)?;
        }
    }
    if let Some(destroy) = case.table.destroy {
        // SAFETY: the ABI allows null.
        unsafe { destroy(std::ptr::null_mut()) };
    }
    Ok(String::new())
}

/// Vocabularies that contradict themselves. Of merges and scores only a model that the reference knows says what they mean.
pub(super) fn vocabularies(case: &Case<'_>) -> Verdict {
    let sound = &case.made.words;
    let mut broken: Vec<(String, Words)> = vec![(
        format!("whose unknown token is {}", sound.tokens.len()),
        Words { unknown: Some(sound.tokens.len() as u32), ..sound.clone() },
    )];
    if case.reference.is_some() {
        broken.push(("of no tokens".to_owned(), nothing(sound)));
    }
    if case.reference.is_some() && (sound.model == "gpt2" || sound.model == "gemma4") {
        for (what, merge) in [
            ("a merge without a space", "ab"),
            ("an empty merge", ""),
            ("a merge of tokens that it lacks", "no-such-token a"),
            ("a merge into a token that it lacks", "~ ~"),
        ] {
            let mut words = sound.clone();
            words.merges.insert(1, merge.as_bytes().to_vec());
            broken.push((format!("with {what}"), words));
        }
        broken.push((
            "of long tokens without merges".to_owned(),
            Words { merges: Vec::new(), ..sound.clone() },
        ));
    }
    if case.reference.is_some() && (sound.model == "llama" || sound.model == "t5") {
        broken.push(("without scores".to_owned(), Words { scores: Vec::new(), ..sound.clone() }));
    }
    if case.reference.is_some() && sound.model == "t5" {
        let charsmap = [&[9, 0, 0, 0], &[0; 16][..]].concat();
        broken.push(("whose charsmap is cut".to_owned(), Words { charsmap, ..sound.clone() }));
    }
    for (what, words) in &broken {
        refuse(case.table, &Packed::new(words), what)?;
    }
    let mut packed = Packed::new(sound);
    packed.turn_around(300);
    refuse(case.table, &packed, "whose token 300 ends before it begins")?;
    let mut packed = Packed::new(sound);
    packed.raw.flags |= 1 << 30;
    refuse(case.table, &packed, "with a flag that no header has")?;
    Ok(format!("{} refused", broken.len() + 2))
}

fn nothing(words: &Words) -> Words {
    Words { model: words.model.clone(), pre: words.pre.clone(), ..Words::default() }
}

fn refuse(table: &HeraldTokenizerTable, packed: &Packed, what: &str) -> Verdict<()> {
    match create_raw(table, &raw const packed.raw)? {
        Ok(raw) => {
            if let Some(destroy) = table.destroy {
                // SAFETY: it was made just now, and nothing calls it.
                unsafe { destroy(raw) };
            }
            ensure!(false, AcceptsDamage, "create took a vocabulary {what}, where CORRUPT was expected");
            Ok(())
        }
        Err(answer) => answer.refused(&format!("create with a vocabulary {what}"), &REFUSALS),
    }
}

/// A struct that ends early is refused, one that goes on is taken, and a caller that wants no sentence gets none.
pub(super) fn short_structs(case: &Case<'_>) -> Verdict {
    let mut packed = Packed::new(&case.made.words);
    packed.raw.struct_size = size_of::<usize>();
    ensure!(
        create_raw(case.table, &raw const packed.raw)?.is_err(),
        ReadsOutside,
        "create took a HeraldVocabulary whose struct_size says that it ends after {} bytes",
        size_of::<usize>()
    );
    let longer = Longer { vocabulary: Packed::new(&case.made.words), later: [u64::MAX; 8] };
    let mut raw = LongerRaw { vocabulary: longer.vocabulary.raw, later: longer.later };
    raw.vocabulary.struct_size = size_of::<LongerRaw>();
    match create_raw(case.table, (&raw const raw).cast())? {
        Err(answer) => {
            let sentence =
                format!("create refused a HeraldVocabulary with fields of a later header: {}", answer.say());
            return Err(Outcome::Failed(crate::Fault::Refuses, sentence));
        }
        Ok(made) => {
            if let Some(destroy) = case.table.destroy {
                // SAFETY: it was made just now, and nothing calls it.
                unsafe { destroy(made) };
            }
        }
    }
    let mut unknown = Packed::new(&Words { model: "no-such-model".to_owned(), ..case.made.words.clone() });
    unknown.raw.unknown = 0;
    let Some(create) = case.table.create else {
        unreachable!("a table without create is refused when it is loaded")
    };
    let mut out = std::ptr::null_mut();
    // The answer is looked at in `unknown_names`; here the plugin must not write to a sentence that isn't there.
    call("create", |error| {
        // SAFETY: the ABI's contract: a null in place of the HeraldError means that no sentence is wanted.
        let code = unsafe { create(&raw const unknown.raw, &raw mut out, std::ptr::null_mut()) };
        // SAFETY: our own struct.
        unsafe { (*error).message[0] = b'-'.cast_signed() as _ };
        code
    })?;
    Ok(String::new())
}

/// A vocabulary that lives beside the struct that points at it.
struct Longer {
    vocabulary: Packed,
    later: [u64; 8],
}

/// A later host's struct.
#[repr(C)]
struct LongerRaw {
    vocabulary: herald_api::abi::HeraldVocabulary,
    later: [u64; 8],
}

/// Models and pre-tokenizers that nobody has are unsupported: a guess would encode everything wrongly.
pub(super) fn unknown_names(table: &HeraldTokenizerTable) -> Verdict {
    let bpe = vocabulary::byte_level("gpt-2");
    let names = [("no-such-model", ""), ("gpt2", "no-such-pre-tokenizer"), ("", ""), ("gpt2\0", "gpt-2")];
    for (model, pre) in names {
        let words = Words { model: model.to_owned(), pre: pre.to_owned(), ..bpe.clone() };
        let what = format!("create of a tokenizer of the model {model:?} with the pre-tokenizer {pre:?}");
        match Made::create(table, &words)? {
            Ok(_) => ensure!(false, AcceptsDamage, "{what} gave OK, where UNSUPPORTED was expected"),
            Err(answer) => answer.refused(&what, &[Status::Unsupported])?,
        }
    }
    Ok(String::new())
}
