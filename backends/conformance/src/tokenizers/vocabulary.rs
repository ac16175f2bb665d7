//! Vocabularies to make tokenizers of, learnt from the texts that are to be encoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use herald_api::abi::{self, AbiStruct, HeraldVocabulary};
use herald_api::{TokenType, Vocabulary};

use super::texts::TEXTS;

/// How many merges are learnt.
const MERGES: usize = 300;

/// A vocabulary, as a model file spells it.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) model: String,
    pub(super) pre: String,
    pub(super) tokens: Vec<Vec<u8>>,
    pub(super) types: Vec<u32>,
    pub(super) scores: Vec<f32>,
    pub(super) merges: Vec<Vec<u8>>,
    pub(super) unknown: Option<u32>,
    pub(super) add_space_prefix: bool,
    pub(super) remove_extra_whitespace: bool,
    pub(super) lowercase: bool,
    pub(super) strip_accents: bool,
    pub(super) charsmap: Vec<u8>,
    pub(super) strips: Vec<u8>,
}

impl Words {
    /// What tells it from others, for people: the model, then what is particular.
    pub(super) fn name(&self) -> String {
        let bytes = self.types.contains(&(TokenType::Byte as u32));
        let particular = match self.model.as_str() {
            "gpt2" if self.pre.is_empty() => "no pre-tokenizer",
            "gpt2" => &self.pre,
            "gemma4" => "characters",
            "bert" if self.lowercase => "lower case",
            "bert" => "case kept",
            _ if !self.strips.is_empty() => "tokens that take white space",
            _ if !self.charsmap.is_empty() => "normalised",
            _ if self.remove_extra_whitespace => "spaces collapsed",
            _ if !bytes => "no bytes",
            _ if self.add_space_prefix => "space prefix",
            _ => "no space prefix",
        };
        format!("{}, {particular}", self.model)
    }

    fn push(&mut self, token: &[u8], kind: TokenType, score: f32) -> u32 {
        self.tokens.push(token.to_vec());
        self.types.push(kind as u32);
        self.scores.push(score);
        self.tokens.len() as u32 - 1
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).map(|code| TokenType::from_code(*code))
    }

    /// Ids of one type.
    pub(super) fn of_kind(&self, kind: TokenType) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.types).filter(move |(_, code)| **code == kind as u32).map(|(id, _)| id)
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.tokens.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// For the safe handles.
    pub(super) fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary {
            model: &self.model,
            pre: &self.pre,
            tokens: self.tokens.iter().map(Vec::as_slice).collect(),
            types: &self.types,
            scores: &self.scores,
            merges: self.merges.iter().map(Vec::as_slice).collect(),
            unknown: self.unknown,
            add_space_prefix: self.add_space_prefix,
            remove_extra_whitespace: self.remove_extra_whitespace,
            lowercase: self.lowercase,
            strip_accents: self.strip_accents,
            charsmap: &self.charsmap,
            strips: &self.strips,
        }
    }

    /// Adds the tokens that aren't plain text, as most vocabularies have them.
    fn add_special(&mut self) {
        for control in ["<|start|>", "<|end|>"] {
            self.push(control.as_bytes(), TokenType::Control, 0.0);
        }
        self.push(b"<tool>", TokenType::UserDefined, 0.0);
        self.push(b"<reserved>", TokenType::Unused, 0.0);
    }
}

/// A byte-level BPE vocabulary for a pre-tokenizer.
pub(super) fn byte_level(pre: &str) -> Words {
    let mut words = Words { model: "gpt2".to_owned(), pre: pre.to_owned(), ..Words::default() };
    for byte in 0..=255 {
        words.push(letter(byte).to_string().as_bytes(), TokenType::Normal, 0.0);
    }
    static MERGED: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let spelt = |word: &str| word.bytes().map(|byte| letter(byte).to_string()).collect();
    for (left, right) in MERGED.get_or_init(|| learn(&corpus(spelt))) {
        words.merges.push(format!("{left} {right}").into_bytes());
        let whole = format!("{left}{right}");
        if !words.tokens.contains(&whole.as_bytes().to_vec()) {
            words.push(whole.as_bytes(), TokenType::Normal, 0.0);
        }
    }
    words.add_special();
    words.scores.clear();
    words
}

/// A SentencePiece vocabulary, with a token for each byte or without.
pub(super) fn sentencepiece(bytes: bool) -> Words {
    let mut words = Words { model: "llama".to_owned(), ..Words::default() };
    words.unknown = Some(words.push(b"<unk>", TokenType::Unknown, 0.0));
    words.push(b"<s>", TokenType::Control, 0.0);
    words.push(b"</s>", TokenType::Control, 0.0);
    if bytes {
        add_bytes(&mut words);
    }
    let spelt = |piece: &str| piece.replace(' ', "\u{2581}").into_bytes();
    let learnt = characters();
    for (rank, (left, right)) in learnt.merges.iter().enumerate() {
        words.push(&spelt(&format!("{left}{right}")), TokenType::Normal, -(rank as f32));
    }
    // Characters come after what they merge to. Some are left out, so that text has what the vocabulary lacks.
    for (index, letter) in learnt.letters.iter().enumerate().filter(|(index, _)| index % 7 != 3) {
        words.push(&spelt(letter), TokenType::Normal, -((MERGES + index) as f32));
    }
    if !words.tokens.iter().any(|token| token == "\u{2581}".as_bytes()) {
        words.push("\u{2581}".as_bytes(), TokenType::Normal, -1e4);
    }
    words.add_special();
    words
}

/// A vocabulary of characters that merge by rank, with bytes for those that it lacks.
pub(super) fn characters_by_rank() -> Words {
    let mut words = sentencepiece(true);
    words.model = "gemma4".to_owned();
    words.scores.clear();
    let spelt = |piece: &str| piece.replace(' ', "\u{2581}");
    let has = |words: &Words, token: &str| words.tokens.contains(&token.as_bytes().to_vec());
    for (left, right) in &characters().merges {
        let (left, right) = (spelt(left), spelt(right));
        // Some characters were left out.
        if has(&words, &left) && has(&words, &right) && has(&words, &format!("{left}{right}")) {
            words.merges.push(format!("{left} {right}").into_bytes());
        }
    }
    words
}

/// A unigram vocabulary, with rules of normalising or without.
pub(super) fn unigram(charsmap: bool) -> Words {
    let mut words = sentencepiece(false);
    words.model = "t5".to_owned();
    words.add_space_prefix = true;
    // Log-probabilities in place of ranks.
    words.scores.iter_mut().for_each(|score| *score = score.midpoint(-20.0) / 40.0);
    if charsmap {
        words.charsmap = one_rule();
    }
    words
}

/// Rules of normalising that make "b" of "a": a double array whose root has one child.
fn one_rule() -> Vec<u8> {
    let mut units = vec![0_u32; 0x200];
    units[0] = 0x100 << 10;
    units[0x161] = (0x160 << 10) | 1 << 8 | 0x61;
    units[0x161 ^ 0x160] = 1 << 31;
    let mut charsmap = ((units.len() * 4) as u32).to_le_bytes().to_vec();
    charsmap.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    charsmap.extend(b"b\0");
    charsmap
}

/// A WordPiece vocabulary: what begins a word has `▁` before it.
pub(super) fn wordpiece(lowercase: bool) -> Words {
    let mut words =
        Words { model: "bert".to_owned(), lowercase, strip_accents: lowercase, ..Words::default() };
    words.unknown = Some(words.push(b"[UNK]", TokenType::Unknown, 0.0));
    let learnt = characters();
    let merged = learnt.merges.iter().map(|(left, right)| format!("{left}{right}"));
    let letters = learnt.letters.iter().enumerate().filter(|(index, _)| index % 7 != 3);
    let mut spelt = BTreeSet::new();
    for piece in merged.chain(letters.map(|(_, letter)| letter.clone())) {
        let piece = if lowercase { piece.to_lowercase() } else { piece };
        for token in [piece.trim().to_owned(), format!("\u{2581}{}", piece.trim())] {
            if !piece.trim().is_empty() && !piece.trim().contains(' ') && spelt.insert(token.clone()) {
                words.push(token.as_bytes(), TokenType::Normal, 0.0);
            }
        }
    }
    words.add_special();
    words.scores.clear();
    words
}

/// A vocabulary of plain UTF-8 and bytes for a model of another name.
pub(super) fn plain(model: &str) -> Words {
    let mut words = Words { model: model.to_owned(), ..Words::default() };
    words.unknown = Some(words.push(b"<unk>", TokenType::Unknown, 0.0));
    add_bytes(&mut words);
    for (rank, (left, right)) in characters().merges.iter().enumerate() {
        words.push(format!("{left}{right}").as_bytes(), TokenType::Normal, -(rank as f32));
    }
    words.add_special();
    words
}

/// What is learnt of the texts' characters.
struct Characters {
    letters: BTreeSet<String>,
    merges: Vec<(String, String)>,
}

fn characters() -> &'static Characters {
    static LEARNT: OnceLock<Characters> = OnceLock::new();
    LEARNT.get_or_init(|| {
        let corpus = corpus(|word| word.chars().map(String::from).collect());
        let merges = learn(&corpus);
        Characters { letters: corpus.into_iter().flat_map(|(word, _)| word).collect(), merges }
    })
}

fn add_bytes(words: &mut Words) {
    for byte in 0..=255 {
        words.push(format!("<0x{byte:02X}>").as_bytes(), TokenType::Byte, 0.0);
    }
}

/// The character that stands for a byte in GPT-2's byte alphabet (its `bytes_to_unicode`).
fn letter(byte: u8) -> char {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !plain(*byte)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Words with how often they come, each taken apart into letters.
type Corpus = Vec<(Vec<String>, usize)>;

/// The words of all texts, each with the space before it. Special tokens are not spelt in them, so that no plain token spells one.
fn corpus(letters: impl Fn(&str) -> Vec<String>) -> Corpus {
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for text in TEXTS.iter().map(|(_, text)| *text).chain(["aaaaaaaaaaaaaaaa", " the the the"]) {
        let mut start = 0;
        for (space, _) in text.match_indices(' ').chain([(text.len(), "")]) {
            if space > start {
                *counted.entry(&text[start..space]).or_default() += 1;
                start = space;
            }
        }
    }
    counted.into_iter().map(|(word, count)| (letters(word), count)).collect()
}

/// The pairs that byte-pair encoding merges, best first (Sennrich et al., 2016).
fn learn(corpus: &Corpus) -> Vec<(String, String)> {
    // Pieces by number, in order of their first use.
    let mut pieces: Vec<String> = Vec::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut number = |piece: &str| {
        *numbers.entry(piece.to_owned()).or_insert_with(|| {
            pieces.push(piece.to_owned());
            pieces.len() - 1
        })
    };
    let mut words: Vec<(Vec<usize>, usize)> = corpus
        .iter()
        .map(|(word, count)| (word.iter().map(|letter| number(letter)).collect(), *count))
        .collect();
    let mut merges = Vec::new();
    while merges.len() < MERGES {
        let mut pairs: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *pairs.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        // Of equals the first in order.
        let best = pairs.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some(((left, right), _)) = best else { break };
        merges.push((pieces[left].clone(), pieces[right].clone()));
        let whole = pieces.len();
        pieces.push(format!("{}{}", pieces[left], pieces[right]));
        for (word, _) in &mut words {
            let mut at = 0;
            while at + 1 < word.len() {
                if (word[at], word[at + 1]) == (left, right) {
                    word.remove(at + 1);
                    word[at] = whole;
                }
                at += 1;
            }
        }
    }
    merges
}

/// A vocabulary in the memory that a plugin sees.
pub(super) struct Packed {
    model: Vec<u8>,
    pre: Vec<u8>,
    tokens: Joined,
    types: Vec<u32>,
    scores: Vec<f32>,
    charsmap: Vec<u8>,
    strips: Vec<u8>,
    merges: Joined,
    n_tokens: usize,
    n_merges: usize,
    pub(super) raw: HeraldVocabulary,
}

/// Pieces one after another, and where each begins and the last ends.
pub(super) struct Joined {
    pub(super) bytes: Vec<u8>,
    pub(super) offsets: Vec<u64>,
}

impl Joined {
    fn new(pieces: &[Vec<u8>]) -> Self {
        let ends = pieces.iter().scan(0, |end, piece| {
            *end += piece.len() as u64;
            Some(*end)
        });
        Self { bytes: pieces.concat(), offsets: std::iter::once(0).chain(ends).collect() }
    }
}

impl Packed {
    pub(super) fn new(words: &Words) -> Self {
        let mut packed = Self {
            model: words.model.clone().into_bytes(),
            pre: words.pre.clone().into_bytes(),
            tokens: Joined::new(&words.tokens),
            types: words.types.clone(),
            scores: words.scores.clone(),
            charsmap: words.charsmap.clone(),
            strips: words.strips.clone(),
            merges: Joined::new(&words.merges),
            n_tokens: words.tokens.len(),
            n_merges: words.merges.len(),
            raw: AbiStruct::empty(),
        };
        packed.raw.unknown = words.unknown.unwrap_or(abi::HERALD_NO_TOKEN);
        packed.raw.flags = [
            (words.add_space_prefix, abi::HERALD_VOCABULARY_ADD_SPACE_PREFIX),
            (words.remove_extra_whitespace, abi::HERALD_VOCABULARY_REMOVE_EXTRA_WHITESPACE),
            (words.lowercase, abi::HERALD_VOCABULARY_LOWERCASE),
            (words.strip_accents, abi::HERALD_VOCABULARY_STRIP_ACCENTS),
            (!words.charsmap.is_empty(), abi::HERALD_VOCABULARY_CHARSMAP),
            (!words.strips.is_empty(), abi::HERALD_VOCABULARY_STRIPS),
        ]
        .into_iter()
        .filter(|(there, _)| *there)
        .fold(0, |flags, (_, bit)| flags | bit);
        packed.point();
        packed
    }

    /// Points the struct at the vectors.
    fn point(&mut self) {
        let raw = &mut self.raw;
        (raw.model, raw.model_len) = (self.model.as_ptr().cast(), self.model.len());
        (raw.pre, raw.pre_len) = (self.pre.as_ptr().cast(), self.pre.len());
        raw.n_tokens = self.n_tokens;
        (raw.token_bytes, raw.token_offsets) = (self.tokens.bytes.as_ptr(), self.tokens.offsets.as_ptr());
        raw.token_types = if self.types.is_empty() { std::ptr::null() } else { self.types.as_ptr() };
        raw.token_scores = if self.scores.is_empty() { std::ptr::null() } else { self.scores.as_ptr() };
        raw.n_merges = self.n_merges;
        raw.token_strips = if self.strips.is_empty() { std::ptr::null() } else { self.strips.as_ptr() };
        (raw.charsmap, raw.charsmap_len) = (self.charsmap.as_ptr(), self.charsmap.len());
        (raw.merge_bytes, raw.merge_offsets) = (self.merges.bytes.as_ptr(), self.merges.offsets.as_ptr());
    }

    /// Has token `index` end before it begins.
    pub(super) fn turn_around(&mut self, index: usize) {
        self.tokens.offsets.swap(index, index + 1);
        self.point();
    }

    /// Overwrites all that the struct points at, as a host may once the call is over.
    pub(super) fn scribble(&mut self) {
        let [tokens, merges] = [&mut self.tokens.bytes, &mut self.merges.bytes];
        for bytes in [&mut self.model, &mut self.pre, tokens, merges, &mut self.charsmap, &mut self.strips] {
            bytes.fill(b'?');
        }
        self.tokens.offsets.fill(0);
        self.merges.offsets.fill(0);
        self.types.fill(TokenType::Unused as u32);
        self.scores.fill(f32::NAN);
    }
}
