//! From the tables to the file's tensors: each published tensor gets its place, or is refused by name.

use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::error::{Result, refused};
use super::families::Model;
use super::recipe::{Change, Content, Part, Recipe, Rows};
use super::shards::{Published, Shards, Stored};
use super::table::{Dim, How, Recipes, Row, Sizes};

/// Parts of names of tensors that no engine of language models reads: those that others repeat, and those of models that see or hear.
const NEEDLESS: &[&str] =
    &[".rotary_emb.inv_freq", ".attention.masked_bias", ".attn.masked_bias", ".attn.bias", ".attention.bias"];
const OTHER_SENSES: &[&str] = &[
    "visual.",
    "vision.",
    "vision_",
    "audio.",
    "audio_",
    "multi_modal_projector.",
    "mm_projector.",
    "image_newline",
    "patch_embed",
];

/// The file's tensors, and the published ones that are left out.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) tensors: BTreeMap<String, Recipe>,
    pub(super) left_out: Vec<String>,
}

/// A published tensor on its way to the file.
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) tensor: &'a Published,
    pub(super) shards: &'a Shards,
    pub(super) config: &'a Config,
    pub(super) sizes: &'a Sizes,
}

/// The matrices of a stack, by expert.
type Stack = BTreeMap<usize, Published>;

/// Gives each tensor of a checkpoint its place.
pub(super) fn place(model: &Model, config: &Config, shards: &Shards) -> Result<Placed> {
    let mut placed = Placed::default();
    let mut stacks: BTreeMap<String, Stack> = BTreeMap::new();
    for (name, tensor) in shards.tensors() {
        let shorter = name.replace("language_model.", "");
        if is_left_out(model, &shorter) {
            placed.left_out.push(name.clone());
            continue;
        }
        let stem = model.prefixes.iter().find_map(|prefix| shorter.strip_prefix(prefix)).unwrap_or(&shorter);
        let (pattern, numbers) = pattern_of(stem);
        let Some((row, ending)) = row_of(model, &pattern) else {
            return refused(format!("tensor {name:?} is none that {} has", model.called));
        };
        let at = Place { name, tensor, shards, config, sizes: &model.sizes };
        at.check_shape(row, ending)?;
        let prefix = match numbers.first() {
            None => String::new(),
            Some(&block) if block < model.blocks => format!("blk.{block}."),
            Some(block) => {
                return refused(format!(
                    "tensor {name:?} is of block {block}, where the last is {}",
                    model.blocks - 1
                ));
            }
        };
        match row.how {
            How::Stacked => {
                let stack = stacks.entry(format!("{prefix}{}{ending}", row.gguf)).or_default();
                stack.insert(numbers.get(1).copied().unwrap_or_default(), tensor.clone());
            }
            _ => {
                for (gguf, recipe) in at.recipes(row)? {
                    placed.add(format!("{prefix}{gguf}{ending}"), recipe)?;
                }
            }
        }
    }
    for (name, stack) in stacks {
        placed.add(name.clone(), stacked(&name, &stack, model.sizes.get(Dim::Experts)?)?)?;
    }
    for (name, recipe) in &model.extra {
        placed.add((*name).to_owned(), recipe.clone())?;
    }
    placed.check(model, config)?;
    Ok(placed)
}

/// The name with `#` for its numbers, and these.
fn pattern_of(name: &str) -> (String, Vec<usize>) {
    let mut numbers = Vec::new();
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| match part.parse() {
            Ok(number) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                numbers.push(number);
                "#"
            }
            _ => part,
        })
        .collect();
    (parts.join("."), numbers)
}

fn row_of<'m>(model: &'m Model, pattern: &str) -> Option<(&'m Row, &'static str)> {
    let rows = model.tables.iter().flat_map(|table| table.iter());
    rows.filter_map(|row| row.matches(pattern).map(|ending| (row, ending))).next()
}

fn is_left_out(model: &Model, name: &str) -> bool {
    NEEDLESS.iter().any(|end| name.ends_with(end))
        || OTHER_SENSES.iter().any(|part| name.contains(part))
        || model.left_out.iter().any(|start| name.starts_with(start))
}

/// One tensor of the matrices of all experts.
fn stacked(name: &str, stack: &Stack, experts: usize) -> Result<Recipe> {
    if let Some(missing) = (0..experts).find(|expert| !stack.contains_key(expert)) {
        return refused(format!(
            "tensor {name:?} is a stack of {experts} experts, and there is no expert {missing}"
        ));
    }
    if let Some(expert) = stack.keys().find(|expert| **expert >= experts) {
        return refused(format!(
            "tensor {name:?} is a stack of {experts} experts, and there is an expert {expert}"
        ));
    }
    let mut dims = vec![experts];
    dims.extend(stack.values().next().into_iter().flat_map(|tensor| &tensor.dims));
    Ok(Recipe { dims, content: Content::Parts(stack.values().map(Part::whole).collect(), Change::None) })
}

impl Placed {
    fn add(&mut self, name: String, recipe: Recipe) -> Result<()> {
        if !recipe.is_complete() {
            return refused(format!("tensor {name:?} would not be of the shape {:?}", recipe.dims));
        }
        match self.tensors.insert(name.clone(), recipe) {
            None => Ok(()),
            Some(_) => refused(format!("two published tensors would be {name:?}, where one was expected")),
        }
    }

    /// Refuses a checkpoint where tensors are missing: blocks of a kind have the same ones.
    fn check(&self, model: &Model, config: &Config) -> Result<()> {
        let rows = model.tables.iter().flat_map(|table| table.iter());
        for row in rows.filter(|row| !row.published.contains('#') && !row.exact) {
            let optional = ["", "output"].contains(&row.gguf);
            if !optional && !self.tensors.contains_key(&format!("{}.weight", row.gguf)) {
                return refused(format!("there is no tensor {}.weight, which was expected", row.published));
            }
        }
        let has_head_row = model.tables.iter().flat_map(|table| table.iter()).any(|row| row.gguf == "output");
        if has_head_row && !config.is_tied()? && !self.tensors.contains_key("output.weight") {
            return refused(format!(
                "there is no tensor lm_head.weight, and {} doesn't say that embeddings are tied",
                config.path().display()
            ));
        }
        let mut blocks: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); model.blocks];
        for name in self.tensors.keys() {
            let of_block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            if let Some((block, part)) = of_block
                && let Some(parts) = block.parse().ok().and_then(|block: usize| blocks.get_mut(block))
            {
                parts.insert(part);
            }
        }
        let kind = |block: usize| model.kinds.get(block).copied().unwrap_or_default();
        for (block, parts) in blocks.iter().enumerate() {
            if parts.is_empty() {
                return refused(format!(
                    "there is no tensor of block {block}, where {} blocks were expected",
                    model.blocks
                ));
            }
            let alike = blocks.iter().enumerate().filter(|(other, _)| kind(*other) == kind(block));
            for (other, others) in alike {
                if let Some(part) = others.difference(parts).next() {
                    return refused(format!("block {block} has no tensor {part:?}, which block {other} has"));
                }
            }
        }
        Ok(())
    }
}

impl Place<'_> {
    /// A refusal of the tensor: what it is, and what was expected.
    pub(super) fn bad<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        refused(format!("tensor {:?} {what}", self.name))
    }

    fn check_shape(&self, row: &Row, ending: &str) -> Result<()> {
        if matches!(row.how, How::Dropped) {
            return Ok(());
        }
        // A bias has a number for each output.
        let outputs = if matches!(row.how, How::Transposed) { 1..2 } else { 0..1 };
        let dims = if ending == ".bias" { row.dims.get(outputs).unwrap_or_default() } else { row.dims };
        let expected = dims.iter().map(|dim| self.sizes.get(*dim)).collect::<Result<Vec<usize>>>()?;
        let (found, dims) = (&self.tensor.dims, &expected);
        if found != dims {
            let path = self.config.path().display();
            return self.bad(format_args!(
                "is of shape {found:?}, where {dims:?} was expected, which follows from {path}"
            ));
        }
        let held = match self.tensor.stored {
            Stored::Floats(_) => return Ok(()),
            Stored::Bytes if matches!(row.how, How::Special(_)) => return Ok(()),
            Stored::Bytes => "U8".to_owned(),
            Stored::Otherwise(dtype) => format!("{dtype:?}"),
        };
        self.bad(format_args!("is of type {held}, where F32, F16 or BF16 was expected"))
    }

    /// The tensors of the file that it becomes, by their names in the table.
    fn recipes(&self, row: &Row) -> Result<Recipes> {
        let dims = self.tensor.dims.clone();
        let whole = Part::whole(self.tensor);
        let first = dims.first().copied().unwrap_or(1);
        let one = |dims: Vec<usize>, part: Part, change: Change| {
            Ok(vec![(row.gguf, Recipe { dims, content: Content::Parts(vec![part], change) })])
        };
        match row.how {
            How::Keep => one(dims, whole, Change::None),
            How::PlusOne => one(dims, whole, Change::PlusOne),
            How::NegExp => one(dims, whole, Change::NegExp),
            How::Column => one(vec![first, 1], whole, Change::None),
            How::NegExpColumn => one(vec![first, 1], whole, Change::NegExp),
            How::Grouped(groups) => {
                let groups = self.sizes.get(groups)?;
                one(vec![groups, first / groups], whole, Change::None)
            }
            How::Squeezed if dims.len() < 3 => one(dims, whole, Change::None),
            How::Squeezed => one(vec![first, dims.last().copied().unwrap_or(1)], whole, Change::None),
            How::Transposed => match *dims.as_slice() {
                [rows, columns] => one(vec![columns, rows], whole.transposed(), Change::None),
                _ => one(dims, whole, Change::None),
            },
            How::Permuted(heads) => {
                let rows = permuted(first, self.sizes.get(heads)?);
                one(dims, whole.rows(Rows::List(rows)), Change::None)
            }
            How::Split(parts) => self.split(parts),
            How::Special(recipes) => recipes(self),
            How::Stacked | How::Dropped => Ok(Vec::new()),
        }
    }

    /// Several tensors of the rows of one; of each matrix, where it is a stack.
    fn split(&self, parts: &[(&'static str, Dim)]) -> Result<Recipes> {
        let rows_at = self.tensor.dims.len().saturating_sub(2);
        let all = self.tensor.dims.get(rows_at).copied().unwrap_or(1);
        let matrices: usize = self.tensor.dims.iter().take(rows_at).product();
        let mut recipes = Vec::new();
        let mut start = 0;
        for (name, dim) in parts {
            let count = self.sizes.get(*dim)?;
            let of_matrix = |matrix| {
                let begin = matrix * all + start;
                Part::whole(self.tensor).rows(Rows::Range(begin..begin + count))
            };
            let mut dims = self.tensor.dims.clone();
            if let Some(rows) = dims.get_mut(rows_at) {
                *rows = count;
            }
            let content = Content::Parts((0..matrices).map(of_matrix).collect(), Change::None);
            recipes.push((*name, Recipe { dims, content }));
            start += count;
        }
        if start != all {
            return self.bad(format_args!("has {all} rows, where {start} were expected"));
        }
        Ok(recipes)
    }
}

/// Rows of heads whose halves RoPE turns with each other, in the order in which neighbours are.
fn permuted(rows: usize, heads: usize) -> Vec<u32> {
    let half = rows / heads.max(1) / 2;
    let of_head =
        |head: usize| (0..half).flat_map(move |pair| [0, 1].map(|which| (head * 2 + which) * half + pair));
    (0..heads).flat_map(of_head).map(|row| row as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_heads_become_neighbours() {
        assert_eq!(permuted(8, 2), [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[test]
    fn numbers_of_names_are_found() {
        let (pattern, numbers) = pattern_of("layers.12.mlp.experts.3.w1.weight");
        assert_eq!((pattern.as_str(), &numbers[..]), ("layers.#.mlp.experts.#.w1.weight", &[12, 3][..]));
    }
}
