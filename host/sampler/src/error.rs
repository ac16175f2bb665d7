//! What can go wrong when a token is chosen.

/// Why a sampler could not be made, or could not choose a token. Each displays as one sentence.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// A field of the configuration is outside its range.
    #[error("sampler: {name} is {value}, expected {expected}")]
    InvalidParameter {
        /// The field of [`SamplerConfig`](super::SamplerConfig).
        name: &'static str,
        /// What it held.
        value: String,
        /// What it may hold.
        expected: String,
    },
    /// A token's id is not of the vocabulary.
    #[error("sampler: token {token} is outside the vocabulary, expected an id below {vocab_size}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Number of tokens in the vocabulary.
        vocab_size: usize,
    },
    /// The logits are not one for each token.
    #[error("sampler: got {found} logits, expected {expected}, one for each token of the vocabulary")]
    LogitsLength {
        /// How many came.
        found: usize,
        /// Number of tokens in the vocabulary.
        expected: usize,
    },
    /// A logit is NaN or positive infinity: the model's arithmetic has broken down.
    #[error("sampler: the logit of token {token} is {value}, expected a finite number or -inf")]
    BadLogit {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// No token has a probability above zero.
    #[error(
        "sampler: all {vocab_size} logits are -inf{cause}, expected at least one token that may be drawn"
    )]
    NothingToDraw {
        /// Number of tokens in the vocabulary.
        vocab_size: usize,
        /// Empty where the model gave them so, else what made them so.
        cause: &'static str,
    },
    /// The operating system gave no random seed.
    #[error(
        "sampler: the operating system gave no random seed ({0}), expected 8 bytes; a seed can be set instead"
    )]
    NoEntropy(String),
}
