//! The tables of the families: which published tensor becomes which of the file, of what shape, and how.

use std::collections::BTreeMap;

use super::error::{Result, refused};
use super::place::Place;
use super::recipe::Recipe;

/// A size that follows from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dim {
    One,
    Vocab,
    Positions,
    TokenTypes,
    Hidden,
    /// Heads of queries, and of keys and values.
    Heads,
    KvHeads,
    Head,
    /// All heads of queries, and of keys or values.
    Q,
    Kv,
    /// Queries, keys and values.
    Qkv,
    /// Queries and gates.
    GatedQ,
    Ff,
    TwoFf,
    Experts,
    ExpertFf,
    TwoExpertFf,
    SharedFf,
    TwoSharedFf,
    /// Three times the hidden size.
    Three,
    /// A convolution's width and channels.
    Kernel,
    Channels,
    /// State spaces: the inner size, all that enters, heads and groups.
    Inner,
    Enters,
    SsmHeads,
    Groups,
    /// Delta nets: heads of keys and of values, all values, and a value.
    KeyHeads,
    ValueHeads,
    TwoValueHeads,
    Values,
    Value,
    Key,
    /// Queries, keys and values; and gates with them.
    DeltaQkv,
    DeltaQkvz,
    /// Blocks of 32 weights in a row.
    HiddenBlocks,
    FfBlocks,
    /// Codes of a block in bytes.
    Sixteen,
}

/// The sizes of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes(BTreeMap<Dim, usize>);

impl Sizes {
    pub(super) fn set(&mut self, dim: Dim, size: usize) {
        self.0.insert(dim, size);
    }

    /// A size, if the model has one.
    pub(super) fn find(&self, dim: Dim) -> Option<usize> {
        match dim {
            Dim::One => Some(1),
            Dim::Sixteen => Some(16),
            Dim::Qkv => Some(self.find(Dim::Q)? + 2 * self.find(Dim::Kv)?),
            Dim::GatedQ => Some(2 * self.find(Dim::Q)?),
            Dim::TwoFf => Some(2 * self.find(Dim::Ff)?),
            Dim::TwoExpertFf => Some(2 * self.find(Dim::ExpertFf)?),
            Dim::TwoSharedFf => Some(2 * self.find(Dim::SharedFf)?),
            Dim::Three => Some(3 * self.find(Dim::Hidden)?),
            Dim::TwoValueHeads => Some(2 * self.find(Dim::ValueHeads)?),
            Dim::HiddenBlocks => Some(self.find(Dim::Hidden)? / 32),
            Dim::FfBlocks => Some(self.find(Dim::ExpertFf)? / 32),
            other => self.0.get(&other).copied(),
        }
    }

    /// A size.
    pub(super) fn get(&self, dim: Dim) -> Result<usize> {
        match self.find(dim) {
            Some(size) => Ok(size),
            None => refused(format!("the configuration doesn't say the size that is called {dim:?} here")),
        }
    }
}

/// Tensors of the file, by their names in a table.
pub(super) type Recipes = Vec<(&'static str, Recipe)>;

/// How a published tensor becomes one of the file, or several.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// As it is.
    Keep,
    /// The rows of each of so many heads, whose halves RoPE turns with each other, so that neighbours are turned with each other.
    Permuted(Dim),
    /// With one added.
    PlusOne,
    /// `-exp(x)`.
    NegExp,
    /// As a column.
    Column,
    /// `-exp(x)`, as a column.
    NegExpColumn,
    /// As a row for each of so many groups.
    Grouped(Dim),
    /// Without the second of three dimensions.
    Squeezed,
    /// With rows and columns swapped.
    Transposed,
    /// Its rows, some after the others, are those of several tensors.
    Split(&'static [(&'static str, Dim)]),
    /// One of the matrices that are stacked: of an expert.
    Stacked,
    /// As a function says.
    Special(fn(&Place<'_>) -> Result<Recipes>),
    /// It isn't needed: others say the same.
    Dropped,
}

/// A row of a family's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The published name: without a family's optional prefix, with `#` for numbers, and without `.weight` and `.bias`.
    pub(super) published: &'static str,
    /// The name in the file, without `blk.N.`.
    pub(super) gguf: &'static str,
    /// The published shape of the weight; a bias has the first of its sizes alone.
    pub(super) dims: &'static [Dim],
    pub(super) how: How,
    /// Whether both names are whole.
    pub(super) exact: bool,
}

/// A tensor that has a weight, and perhaps a bias.
pub(super) const fn row(published: &'static str, gguf: &'static str, dims: &'static [Dim], how: How) -> Row {
    Row { published, gguf, dims, how, exact: false }
}

/// A tensor whose names are whole.
pub(super) const fn exact(
    published: &'static str,
    gguf: &'static str,
    dims: &'static [Dim],
    how: How,
) -> Row {
    Row { published, gguf, dims, how, exact: true }
}

impl Row {
    /// Whether this is the row of a published name, and what follows on both names.
    pub(super) fn matches(&self, pattern: &str) -> Option<&'static str> {
        if self.exact {
            return (pattern == self.published).then_some("");
        }
        match pattern.strip_prefix(self.published)? {
            ".weight" => Some(".weight"),
            ".bias" => Some(".bias"),
            _ => None,
        }
    }
}
