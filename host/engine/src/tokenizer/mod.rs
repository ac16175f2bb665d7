//! `AscTokenizer`: a model's tokenizer, made by a plugin, with what the model file says of its special tokens.

mod controls;
mod ends;
mod vocabulary;

use std::collections::HashSet;
use std::path::Path;

use herald_api::import::TokenizerHandle;
use herald_api::{DecodeOptions, EncodeOptions, TokenType, Tokenizer};

use crate::error::{Error, Result};
use crate::gguf::{Gguf, Metadata};
use controls::Controls;
pub(crate) use vocabulary::{VocabularyOf, vocabulary};

/// Pre-tokenizers of models that begin every text with BOS although their files may not say so (llama.cpp's list).
const BOS_BY_PRE: [&str; 11] = [
    "chameleon",
    "falcon-h1",
    "falcon3",
    "jina-v5-nano",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "pixtral",
    "tekken",
];

/// Pre-tokenizers of models that begin every text with BOS whatever their files say.
const ALWAYS_BOS: [&str; 2] = ["gemma4", "granite-embed-multi-311m"];

/// The tokens that a model wants around every prompt.
struct Around {
    bos: Option<u32>,
    eos: Option<u32>,
    before: Option<u32>,
    after: Option<u32>,
    /// What stands between two texts that are read together.
    between: Vec<u32>,
}

impl Around {
    /// As the file says; where it doesn't, as llama.cpp takes it for the kind of tokenizer.
    fn new(metadata: &Metadata, of_file: &VocabularyOf<'_>) -> Result<Self> {
        let special = |name: &str| special(metadata, of_file, name);
        let (model, pre) = (of_file.model, of_file.pre);
        let usual = |id: u32| Some(id).filter(|id| of_file.kind(*id) == TokenType::Control);
        let (usual_bos, usual_eos) = match model {
            "llama" => (usual(1), usual(2)),
            "t5" => (None, usual(1)),
            "bert" => (of_file.find("[CLS]"), None),
            _ => (None, None),
        };
        let bos = special("bos")?.or(if model == "bert" { special("cls")? } else { None }).or(usual_bos);
        let eos = special("eos")?.or(usual_eos);
        let adds = |name: &str| metadata.get::<bool>(&format!("tokenizer.ggml.add_{name}_token"));
        let always = model == "gemma4" || (model == "gpt2" && ALWAYS_BOS.contains(&pre));
        let usually = model == "llama" || model == "bert" || (model == "gpt2" && BOS_BY_PRE.contains(&pre));
        let add_bos = always || adds("bos")?.unwrap_or(usually);
        let add_eos = adds("eos")?.unwrap_or(model == "t5");
        let add_sep = adds("sep")?.unwrap_or(model == "bert");
        // GGUF's key has always been spelt so. Some files have an id in it that they don't use, and none of theirs.
        let sep = if add_sep { special("seperator")? } else { None };
        let sep = sep.or(if model == "bert" { of_file.find("[SEP]") } else { None });
        let after = if add_sep && model == "bert" { sep.or(eos) } else { eos.filter(|_| add_eos) };
        let between =
            [eos.filter(|_| add_eos), sep.or(eos).filter(|_| add_sep)].into_iter().flatten().collect();
        Ok(Self { bos, eos, before: bos.filter(|_| add_bos), after, between })
    }
}

/// The token that the file names for a purpose.
fn special(metadata: &Metadata, of_file: &VocabularyOf<'_>, name: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match metadata.get::<u32>(&key)? {
        Some(id) if id as usize >= of_file.tokens.len() => {
            Err(metadata.fault(&key, format!("an id below {}", of_file.tokens.len())).into())
        }
        id => Ok(id),
    }
}

/// Says what a file leaves out or has wrong of its vocabulary.
fn warn(path: &Path, of_file: &VocabularyOf<'_>) {
    let path = path.display();
    if of_file.model == "gpt2" && of_file.pre.is_empty() {
        tracing::warn!(
            "{path} doesn't say how text is split (tokenizer.ggml.pre): it is split as by default, which may give the model \
             other tokens than it was trained on; --set tokenizer.ggml.pre=NAME sets it, converting the model anew mends it"
        );
    }
    for token in &of_file.ends.mistyped {
        tracing::warn!(
            "{path}: the token {token} ends a turn, and the file takes it for text: it is a control token here"
        );
    }
}

/// A model's tokenizer.
pub struct AscTokenizer {
    handle: TokenizerHandle,
    n_tokens: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    before: Option<u32>,
    after: Option<u32>,
    between: Vec<u32>,
    ends: HashSet<u32>,
    /// The most bytes of text that a token stands for, where each byte of a text is a part of some token.
    longest: Option<usize>,
    controls: Controls,
}

impl AscTokenizer {
    /// `of_file`: the vocabulary of `gguf`.
    pub(crate) fn new(
        gguf: &Gguf,
        of_file: &VocabularyOf<'_>,
        handle: TokenizerHandle,
        n_tokens: usize,
    ) -> Result<Self> {
        let metadata = gguf.metadata();
        if of_file.tokens.len() > n_tokens {
            return Err(Error::Invalid(format!(
                "{}: the tokenizer has {} tokens, where at most the {n_tokens} of the embedding were expected",
                gguf.paths().next().unwrap_or(Path::new("the model")).display(),
                of_file.tokens.len()
            )));
        }
        warn(gguf.paths().next().unwrap_or(Path::new("the model")), of_file);
        let Around { bos, eos, before, after, between } = Around::new(metadata, of_file)?;
        let mut ends = of_file.ends.ids.clone();
        ends.extend(eos);
        for name in ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"] {
            ends.extend(special(metadata, of_file, name)?);
        }
        let is_control = |id: &u32| of_file.kind(*id) == TokenType::Control;
        let controls = (0..of_file.tokens.len() as u32).filter(is_control);
        let controls = Controls::new(controls.map(|id| (id, of_file.tokens[id as usize])));
        let longest = of_file.longest();
        Ok(Self {
            handle,
            n_tokens: of_file.tokens.len(),
            bos,
            eos,
            before,
            after,
            between,
            ends,
            longest,
            controls,
        })
    }

    /// The most bytes of text that `n` tokens can hold, so that a longer text need not be tokenized to see that it is too long.
    /// `None` where the tokenizer leaves some of a text out, such as white space, or takes a whole word for unknown.
    #[must_use]
    pub fn most_bytes(&self, n: usize) -> Option<usize> {
        self.longest.map(|longest| longest.saturating_mul(n))
    }

    /// Tokens of the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.n_tokens
    }

    /// The token that begins a text, where the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, where the model has one.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that the model wants before every prompt, where it wants one.
    #[must_use]
    pub fn prompt_bos(&self) -> Option<u32> {
        self.before
    }

    /// Whether this token ends a generation: the end of the text or of a turn.
    #[must_use]
    pub fn ends_generation(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The ids of a text, without BOS and EOS. `special`: special tokens that are spelt out in it are recognised.
    ///
    /// # Errors
    /// Where the vocabulary can't express the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let options = EncodeOptions { special, continues: false };
        self.handle
            .encode(text, options, &mut ids)
            .map_err(|source| Error::Plugin { what: "tokenizing".to_owned(), source })?;
        Ok(ids)
    }

    /// The control token that is spelt so.
    #[must_use]
    pub fn control_token(&self, text: &str) -> Option<u32> {
        self.controls.id(text)
    }

    /// The text with `mark` after the first character of each control token that it spells, for [`AscTokenizer::encode_marked`]; `None`
    /// where it spells none.
    #[must_use]
    pub fn mark_controls(&self, text: &str, mark: char) -> Option<String> {
        self.controls.mark(text, mark)
    }

    /// The ids of a text as [`AscTokenizer::encode`] gives them with special tokens recognised, but for those that hold a `mark`: they
    /// are text, as if they were no tokens. The marks themselves are left out.
    ///
    /// # Errors
    /// As [`AscTokenizer::encode`].
    pub fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for (piece, special) in self.controls.pieces(text, mark) {
            let options = EncodeOptions { special, continues: !ids.is_empty() };
            self.handle
                .encode(&piece, options, &mut ids)
                .map_err(|source| Error::Plugin { what: "tokenizing".to_owned(), source })?;
        }
        Ok(ids)
    }

    /// The ids of a prompt from those of its text: with the BOS and EOS (of WPM its separator) that the model wants, where they aren't
    /// there.
    #[must_use]
    pub fn as_prompt(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.prompt_bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        if let Some(after) = self.after.filter(|after| ids.last() != Some(after)) {
            ids.push(after);
        }
        ids
    }

    /// The ids of a prompt: as [`AscTokenizer::encode`], with the BOS and EOS (of WPM its separator) that the model wants. What the
    /// text itself spells out, as chat templates do, is not doubled.
    ///
    /// # Errors
    /// As [`AscTokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        Ok(self.as_prompt(self.encode(text, special)?))
    }

    /// The ids of two texts that are read together, such as a query and a document: with what the model wants before, between and
    /// after them. Special tokens that they spell out are text.
    ///
    /// # Errors
    /// As [`AscTokenizer::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.before.into_iter().collect();
        ids.extend(self.encode(first, false)?);
        ids.extend(&self.between);
        ids.extend(self.encode(second, false)?);
        ids.extend(self.after);
        Ok(ids)
    }

    /// The text of tokens; bytes that are no UTF-8 become U+FFFD. `special`: special tokens are written out.
    ///
    /// # Errors
    /// Where an id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String> {
        let bytes = self.bytes(ids, DecodeOptions { special, continues: false })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of a token that continues a text; they may be part of a UTF-8 character.
    ///
    /// # Errors
    /// Where the id is outside the vocabulary.
    pub fn token_bytes(&self, token: u32, special: bool) -> Result<Vec<u8>> {
        // A model may have rows that its tokenizer has no token for; they stand for nothing.
        if token as usize >= self.n_tokens {
            return Ok(Vec::new());
        }
        self.bytes(&[token], DecodeOptions { special, continues: true })
    }

    fn bytes(&self, ids: &[u32], options: DecodeOptions) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.handle
            .decode(ids, options, &mut bytes)
            .map_err(|source| Error::Plugin { what: "detokenizing".to_owned(), source })?;
        Ok(bytes)
    }

    pub(crate) fn bos_text(&self) -> String {
        self.special_text(self.bos)
    }

    pub(crate) fn eos_text(&self) -> String {
        self.special_text(self.eos)
    }

    fn special_text(&self, token: Option<u32>) -> String {
        token.and_then(|token| self.decode(&[token], true).ok()).unwrap_or_default()
    }
}
