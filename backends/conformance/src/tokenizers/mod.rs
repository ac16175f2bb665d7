//! Checks of tokenizers: over vocabularies that are made here, on texts of all scripts.
//!
//! Where the reference takes the same vocabulary, the plugin must give the same ids and the same bytes. A tokenizer of a
//! model of its own is held to what the ABI promises of any: text comes back, pieces decode as the whole, buffers are
//! respected, bad input is refused.

mod burden;
mod made;
mod refusals;
mod results;
mod texts;
mod vocabulary;

use std::collections::BTreeSet;

use herald_api::Status;
use herald_api::abi::HeraldTokenizerTable;
use herald_api::import::{Plugin, TokenizerHandle};

use crate::check::{Verdict, run};
use crate::{Fault, Outcome, Sink};
use made::Made;
use vocabulary::Words;

/// A tokenizer under test, with the reference's of the same vocabulary where there is one.
struct Case<'p> {
    table: &'p HeraldTokenizerTable,
    made: Made<'p>,
    reference: Option<TokenizerHandle>,
    /// Whether it is the first of its model: what is costly is done with that one only.
    first: bool,
    /// Whether the process's memory tells about the plugin.
    alone: bool,
}

type Check = fn(&Case<'_>) -> Verdict;

const CHECKS: [(&str, Check); 11] = [
    ("ids of texts", results::ids),
    ("text comes back", results::text),
    ("special tokens", results::special),
    ("decoding in pieces", results::pieces),
    ("buffers that are too small", results::buffers),
    ("the same again", results::again),
    ("bad input", refusals::input),
    ("contradictory vocabularies", refusals::vocabularies),
    ("structs that end early", refusals::short_structs),
    ("threads", burden::threads),
    ("memory", burden::memory),
];

/// Checks a plugin's tokenizers, beside those of `reference`; nothing where it offers none.
pub fn check(plugin: &Plugin, reference: &Plugin, sink: &mut Sink<'_>) {
    let Some(table) = plugin.tokenizer_table() else { return };
    let alone = sink.is_alone();
    let known = known();
    // Every check asks for its own tokenizer: which ones the plugin offers, and whether it survives the question, isn't
    // known outside of a check.
    for (index, words) in known.iter().enumerate() {
        let first = known[..index].iter().all(|other| other.model != words.model);
        let case = || Case::new(table, words, reference, first, alone);
        check_all(&format!("tokenizer {}", words.name()), case, sink);
    }
    let own = || find_own(table, &known).and_then(|words| Case::new(table, &words, reference, true, alone));
    check_all("tokenizer of another model", own, sink);
    run(sink, "tokenizer, unknown names", || refusals::unknown_names(table));
}

fn check_all<'p>(name: &str, case: impl Fn() -> Verdict<Case<'p>>, sink: &mut Sink<'_>) {
    for (what, check) in CHECKS {
        run(sink, format!("{name}, {what}"), || check(&case()?));
    }
    for (what, unit) in texts::RUNS {
        run(sink, format!("{name}, a long run of {what}"), || burden::long_run(&case()?, what, unit));
    }
}

impl<'p> Case<'p> {
    /// Has the plugin make a tokenizer, if it offers that.
    fn new(
        table: &'p HeraldTokenizerTable,
        words: &Words,
        reference: &Plugin,
        first: bool,
        alone: bool,
    ) -> Verdict<Self> {
        let made = Made::create(table, words)?.map_err(|answer| {
            if answer.is_one_of(&[Status::Unsupported]) {
                return Outcome::Skipped(format!("not offered: {}", answer.message));
            }
            Outcome::Failed(Fault::Refuses, format!("create of a sound vocabulary gave {}", answer.say()))
        })?;
        let reference = reference.create_tokenizer(&words.vocabulary()).ok();
        Ok(Self { table, made, reference, first, alone })
    }
}

/// Vocabularies of the models that HERALD itself knows.
fn known() -> Vec<Words> {
    let mut all: Vec<Words> =
        ["gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "falcon", ""].map(vocabulary::byte_level).into();
    for (bytes, add_space_prefix, remove_extra_whitespace) in
        [(true, true, false), (true, false, false), (true, true, true), (false, true, false)]
    {
        all.push(Words { add_space_prefix, remove_extra_whitespace, ..vocabulary::sentencepiece(bytes) });
    }
    let mut stripping = Words { add_space_prefix: true, ..vocabulary::sentencepiece(true) };
    stripping.strips = (0..stripping.tokens.len()).map(|id| id as u8 % 4).collect();
    all.push(stripping);
    all.push(vocabulary::characters_by_rank());
    all.extend([false, true].map(vocabulary::unigram));
    all.push(Words { remove_extra_whitespace: true, ..vocabulary::unigram(false) });
    all.extend([true, false].map(vocabulary::wordpiece));
    all
}

/// Finds a vocabulary for a plugin that takes none of those that are known: of a model that other engines know, or that a
/// word of its refusal names, for a good refusal says what is offered.
fn find_own(table: &HeraldTokenizerTable, known: &[Words]) -> Verdict<Words> {
    let mut refusal = String::new();
    for words in known {
        match Made::create(table, words)? {
            Ok(_) => return Err(Outcome::Skipped("it takes one that is known".to_owned())),
            Err(answer) => refusal = answer.message,
        }
    }
    let others = ["rwkv", "plamo2"].map(str::to_owned);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = refusal.split(|c: char| !is_part(c)).map(|word| word.trim_matches('.').to_owned());
    let names: BTreeSet<String> =
        others.into_iter().chain(named).filter(|name| (2..64).contains(&name.len())).collect();
    for name in names.iter().take(64) {
        let words = vocabulary::plain(name);
        if Made::create(table, &words)?.is_ok() {
            return Ok(words);
        }
    }
    Err(Outcome::Skipped(format!("it takes none of the vocabularies that the checks make: {refusal}")))
}
