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

use crate::check::{Verdict, ensure, run};
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
}

/// Checks a plugin's tokenizers, beside those of `reference`; nothing where it offers none.
pub fn check(plugin: &Plugin, reference: &Plugin, sink: &mut Sink<'_>) {
    let Some(table) = plugin.tokenizer_table() else { return };
    let mut taken = Vec::new();
    run(sink, "tokenizers, vocabularies", || find(table, &mut taken));
    for (index, words) in taken.iter().enumerate() {
        let first = taken[..index].iter().all(|other| other.model != words.model);
        check_one(table, words, reference, first, sink);
    }
    run(sink, "tokenizers, unknown models", || refusals::unknown_names(table));
}

/// Finds the vocabularies that the plugin takes, of those that the checks make.
fn find(table: &HeraldTokenizerTable, taken: &mut Vec<Words>) -> Verdict {
    let mut refusal = String::new();
    for words in known() {
        match Made::create(table, &words)? {
            Ok(_) => taken.push(words),
            Err(answer) => {
                let unsupported = answer.code == Status::Unsupported.code();
                ensure!(unsupported, Refuses, "it refused a sound vocabulary ({}): {}", words.name(), answer.say());
                refusal = answer.message;
            }
        }
    }
    if taken.is_empty() {
        for words in own(&refusal) {
            if Made::create(table, &words)?.is_ok() {
                taken.push(words);
            }
        }
    }
    if taken.is_empty() {
        return Err(Outcome::Skipped(format!("it takes none of those that the checks make: {refusal}")));
    }
    Ok(taken.iter().map(Words::name).collect::<Vec<_>>().join(", "))
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
    all
}

/// Vocabularies for models of other names: those that other engines know, and each word of the sentence by which the plugin
/// refused a model, for a good refusal says what is offered.
fn own(refusal: &str) -> Vec<Words> {
    let others = ["t5", "bert", "rwkv", "plamo2"].map(str::to_owned);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = refusal.split(|c: char| !is_part(c)).map(|word| word.trim_matches('.').to_owned());
    let names: BTreeSet<String> =
        others.into_iter().chain(named).filter(|name| (2..64).contains(&name.len())).collect();
    names.iter().take(64).map(|name| vocabulary::plain(name)).collect()
}

/// Checks a tokenizer of one vocabulary that the plugin takes.
fn check_one(
    table: &HeraldTokenizerTable,
    words: &Words,
    reference: &Plugin,
    first: bool,
    sink: &mut Sink<'_>,
) {
    let name = format!("tokenizer {}", words.name());
    type Check = fn(&Case<'_>) -> Verdict;
    let checks: [(&str, Check); 12] = [
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
        ("long runs", burden::long_runs),
    ];
    for (what, check) in checks {
        run(sink, format!("{name}, {what}"), || {
            let made = Made::create(table, words)?.map_err(|answer| {
                Outcome::Failed(Fault::Unstable, format!("the same vocabulary, once more, gave {}", answer.say()))
            })?;
            let reference = reference.create_tokenizer(&words.vocabulary()).ok();
            check(&Case { table, made, reference, first })
        });
    }
}
