//! A synthetic model's recipe: its metadata, its tensors, and how they are filled.

use herald_api::DType;

use super::Storage;
use crate::quantize::is_weighty;

/// A metadata value.
pub(super) enum Fact {
    Number(u32),
    Real(f32),
    Flag(bool),
    Text(String),
    Numbers(Vec<i32>),
    Flags(Vec<bool>),
    Texts(Vec<String>),
}

/// A tensor's content.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    /// A matrix of weights, in the requested type.
    Matrix,
    /// A matrix of weights in float32, whatever type is requested.
    Weights,
    /// A matrix of weights in MXFP4, whatever type is requested.
    Mxfp4,
    /// Float32 numbers between two bounds.
    Between(f32, f32),
    /// Biases of time steps.
    TimeBias,
    /// Decays of states.
    Decay,
    /// Divisors of RoPE's frequencies: 1 in the first quarter, and so large after it that nothing turns.
    FirstQuarter,
}

/// A tensor.
pub(super) struct Tensor {
    pub(super) name: String,
    /// Dimensions in GGUF's order: a row's length first.
    pub(super) dims: Vec<usize>,
    pub(super) fill: Fill,
}

/// A model under construction.
pub(super) struct Recipe {
    architecture: &'static str,
    blocks: usize,
    pub(super) facts: Vec<(String, Fact)>,
    pub(super) tensors: Vec<Tensor>,
}

/// Attention's sizes.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) n: usize,
    pub(super) kv: usize,
    pub(super) dim: usize,
}

/// Mamba's sizes; `heads` is the rank of dt in the first Mamba.
#[derive(Clone, Copy)]
pub(super) struct Ssm {
    pub(super) inner: usize,
    pub(super) state: usize,
    pub(super) heads: usize,
}

/// Taps of Mamba's convolutions.
const TAPS: usize = 4;

/// Kinds of tokens: those of text, and those that steer.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

impl Recipe {
    /// A model with an embedding, and a separate head or a tied one.
    pub(super) fn new(
        architecture: &'static str,
        [hidden, blocks, vocabulary, context]: [usize; 4],
        tied: bool,
    ) -> Self {
        let mut recipe = Self { architecture, blocks, facts: Vec::new(), tensors: Vec::new() };
        recipe.facts.push(("general.architecture".to_owned(), Fact::Text(architecture.to_owned())));
        recipe.facts.push(("general.name".to_owned(), Fact::Text(format!("random {architecture}"))));
        recipe.number("block_count", blocks);
        recipe.number("context_length", context);
        recipe.number("embedding_length", hidden);
        recipe.number("vocab_size", vocabulary);
        recipe.vocabulary(vocabulary);
        recipe.tensor("token_embd.weight", &[hidden, vocabulary], Fill::Matrix);
        if !tied {
            recipe.tensor("output.weight", &[hidden, vocabulary], Fill::Matrix);
        }
        recipe
    }

    /// Adds a metadata value under the architecture's prefix.
    pub(super) fn fact(&mut self, key: &str, fact: Fact) {
        self.facts.push((format!("{}.{key}", self.architecture), fact));
    }

    pub(super) fn number(&mut self, key: &str, number: usize) {
        self.fact(key, Fact::Number(number as u32));
    }

    pub(super) fn real(&mut self, key: &str, number: f32) {
        self.fact(key, Fact::Real(number));
    }

    pub(super) fn tensor(&mut self, name: impl Into<String>, dims: &[usize], fill: Fill) {
        self.tensors.push(Tensor { name: name.into(), dims: dims.to_vec(), fill });
    }

    pub(super) fn of_block(&mut self, block: usize, name: &str, dims: &[usize], fill: Fill) {
        self.tensor(format!("blk.{block}.{name}"), dims, fill);
    }

    pub(super) fn matrix(&mut self, block: usize, name: &str, dims: &[usize]) {
        self.of_block(block, &format!("{name}.weight"), dims, Fill::Matrix);
    }

    pub(super) fn norm(&mut self, block: usize, name: &str, len: usize) {
        self.of_block(block, name, &[len], Fill::Between(0.9, 1.1));
    }

    pub(super) fn bias(&mut self, block: usize, name: &str, dims: &[usize]) {
        self.of_block(block, name, dims, Fill::Between(-0.1, 0.1));
    }

    /// Attention's metadata; `blocks`: which blocks have attention, if not all do.
    pub(super) fn heads(&mut self, heads: Heads, of_blocks: Option<&[usize]>) {
        self.number("attention.head_count", heads.n);
        match of_blocks {
            None => self.number("attention.head_count_kv", heads.kv),
            Some(blocks) => {
                let counts =
                    (0..self.blocks).map(|block| if blocks.contains(&block) { heads.kv as i32 } else { 0 });
                let counts = Fact::Numbers(counts.collect());
                self.fact("attention.head_count_kv", counts);
            }
        }
        self.number("attention.key_length", heads.dim);
        self.number("attention.value_length", heads.dim);
    }

    /// Mamba's metadata.
    pub(super) fn ssm(&mut self, ssm: Ssm, groups: Option<usize>) {
        self.number("ssm.conv_kernel", TAPS);
        self.number("ssm.inner_size", ssm.inner);
        self.number("ssm.state_size", ssm.state);
        self.number("ssm.time_step_rank", ssm.heads);
        if let Some(groups) = groups {
            self.number("ssm.group_count", groups);
        }
    }

    pub(super) fn attention(&mut self, block: usize, hidden: usize, heads: Heads) {
        let Heads { n, kv, dim } = heads;
        self.matrix(block, "attn_q", &[hidden, n * dim]);
        self.matrix(block, "attn_k", &[hidden, kv * dim]);
        self.matrix(block, "attn_v", &[hidden, kv * dim]);
        self.matrix(block, "attn_output", &[n * dim, hidden]);
    }

    pub(super) fn mlp(&mut self, block: usize, hidden: usize, width: usize) {
        self.matrix(block, "ffn_gate", &[hidden, width]);
        self.matrix(block, "ffn_up", &[hidden, width]);
        self.matrix(block, "ffn_down", &[width, hidden]);
    }

    pub(super) fn experts(&mut self, block: usize, hidden: usize, width: usize, experts: usize) {
        self.of_block(block, "ffn_gate_inp.weight", &[hidden, experts], Fill::Between(-0.05, 0.05));
        self.matrix(block, "ffn_gate_exps", &[hidden, width, experts]);
        self.matrix(block, "ffn_up_exps", &[hidden, width, experts]);
        self.matrix(block, "ffn_down_exps", &[width, hidden, experts]);
    }

    /// The expert that all tokens use.
    pub(super) fn shared_expert(&mut self, block: usize, hidden: usize, width: usize) {
        self.matrix(block, "ffn_gate_shexp", &[hidden, width]);
        self.matrix(block, "ffn_up_shexp", &[hidden, width]);
        self.matrix(block, "ffn_down_shexp", &[width, hidden]);
    }

    /// A Mamba layer, with or without norms of dt, B and C.
    pub(super) fn mamba1(&mut self, block: usize, hidden: usize, ssm: Ssm, norms: bool) {
        let Ssm { inner, state, heads: rank } = ssm;
        self.matrix(block, "ssm_in", &[hidden, 2 * inner]);
        self.conv(block, inner);
        self.matrix(block, "ssm_x", &[inner, rank + 2 * state]);
        self.of_block(block, "ssm_dt.weight", &[rank, inner], Fill::Between(-0.1, 0.1));
        self.of_block(block, "ssm_dt.bias", &[inner], Fill::TimeBias);
        self.of_block(block, "ssm_a", &[state, inner], Fill::Decay);
        self.of_block(block, "ssm_d", &[inner], Fill::Between(0.9, 1.1));
        self.matrix(block, "ssm_out", &[inner, hidden]);
        if norms {
            self.norm(block, "ssm_dt_norm.weight", rank);
            self.norm(block, "ssm_b_norm.weight", state);
            self.norm(block, "ssm_c_norm.weight", state);
        }
    }

    /// A Mamba-2 layer of one group, with or without a norm of its output.
    pub(super) fn mamba2(&mut self, block: usize, hidden: usize, ssm: Ssm, norm: bool) {
        let Ssm { inner, state, heads } = ssm;
        let channels = inner + 2 * state;
        self.matrix(block, "ssm_in", &[hidden, inner + channels + heads]);
        self.conv(block, channels);
        self.of_block(block, "ssm_dt.bias", &[heads], Fill::TimeBias);
        self.of_block(block, "ssm_a", &[1, heads], Fill::Decay);
        self.of_block(block, "ssm_d", &[1, heads], Fill::Between(0.9, 1.1));
        if norm {
            self.of_block(block, "ssm_norm.weight", &[inner, 1], Fill::Between(0.9, 1.1));
        }
        self.matrix(block, "ssm_out", &[inner, hidden]);
    }

    fn conv(&mut self, block: usize, channels: usize) {
        self.of_block(block, "ssm_conv1d.weight", &[TAPS, channels], Fill::Between(-0.5, 0.5));
        self.of_block(block, "ssm_conv1d.bias", &[channels], Fill::Between(-0.1, 0.1));
    }

    /// A short convolution.
    pub(super) fn short_conv(&mut self, block: usize, hidden: usize, taps: usize) {
        self.matrix(block, "shortconv.in_proj", &[hidden, 3 * hidden]);
        self.of_block(block, "shortconv.conv.weight", &[taps, hidden], Fill::Between(-0.8, 0.8));
        self.matrix(block, "shortconv.out_proj", &[hidden, hidden]);
    }

    /// A byte-level vocabulary: every byte, and made-up words.
    fn vocabulary(&mut self, size: usize) {
        let shown = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
        // GPT-2 writes unprintable bytes as the characters from 256.
        let bytes = (0..=255_u8).filter(shown).map(char::from);
        let hidden = (0..=255_u8).filter(|byte| !shown(byte)).zip(256..);
        let hidden = hidden.filter_map(|(_, code)| char::from_u32(code));
        let mut tokens: Vec<String> = bytes.chain(hidden).map(String::from).collect();
        tokens.push("<|end|>".to_owned());
        tokens.push("th".to_owned());
        tokens.extend((tokens.len()..size).map(|id| format!("w{id}")));
        let end = 256;
        let kinds = (0..size).map(|id| if id == end { CONTROL } else { NORMAL }).collect();
        self.tokenizer("gpt2", "gpt-2", tokens, kinds);
        self.tokenizer_fact("merges", Fact::Texts(vec!["t h".to_owned()]));
        self.tokenizer_fact("bos_token_id", Fact::Number(end as u32));
        self.tokenizer_fact("eos_token_id", Fact::Number(end as u32));
    }

    /// In place of the byte-level vocabulary one of word pieces, as BERT's converter writes it: a piece that begins a word has a mark.
    pub(super) fn word_pieces(&mut self, size: usize) {
        const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        self.facts.retain(|(key, _)| !key.starts_with("tokenizer."));
        let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).into();
        for letter in '!'..='~' {
            tokens.extend([format!("\u{2581}{letter}"), letter.to_string()]);
        }
        tokens.extend((tokens.len()..size).map(|id| format!("\u{2581}w{id}")));
        let kinds = (0..size).map(|id| if id < SPECIAL.len() { CONTROL } else { NORMAL }).collect();
        self.tokenizer("bert", "default", tokens, kinds);
        let names = ["padding", "unknown", "bos", "seperator", "mask"];
        for (id, name) in names.into_iter().enumerate() {
            self.tokenizer_fact(&format!("{name}_token_id"), Fact::Number(id as u32));
        }
        self.tokenizer_fact("eos_token_id", Fact::Number(3));
        self.tokenizer_fact("token_type_count", Fact::Number(2));
    }

    fn tokenizer(&mut self, model: &str, pre: &str, tokens: Vec<String>, kinds: Vec<i32>) {
        self.tokenizer_fact("model", Fact::Text(model.to_owned()));
        self.tokenizer_fact("pre", Fact::Text(pre.to_owned()));
        self.tokenizer_fact("tokens", Fact::Texts(tokens));
        self.tokenizer_fact("token_type", Fact::Numbers(kinds));
    }

    fn tokenizer_fact(&mut self, key: &str, fact: Fact) {
        self.facts.push((format!("tokenizer.ggml.{key}"), fact));
    }

    /// A tensor's type: the requested one, or one whose blocks divide a row.
    pub(super) fn dtype(&self, tensor: &Tensor, storage: Storage) -> DType {
        match tensor.fill {
            Fill::Matrix => {}
            Fill::Mxfp4 => return DType::Mxfp4,
            _ => return DType::F32,
        }
        let wanted = match storage {
            Storage::Plain(dtype) => dtype,
            Storage::Q4KM if self.wants_more(&tensor.name) => DType::Q6K,
            Storage::Q4KM => DType::Q4K,
        };
        herald_formats::dtype_for_rows(wanted, tensor.dims[0])
    }

    /// Whether the usual mixture gives a tensor more bits.
    fn wants_more(&self, name: &str) -> bool {
        let head = if self.tensors.iter().any(|tensor| tensor.name == "output.weight") {
            "output.weight"
        } else {
            "token_embd.weight"
        };
        name == head || is_weighty(name, self.blocks)
    }
}
