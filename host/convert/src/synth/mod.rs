//! Model files with a real model's shape and random weights, to measure speed, here and in other engines, if the real model
//! is too large to fetch or not free to share. Such a model's text means nothing.

mod blocks;
mod recipe;
mod shapes;
#[cfg(test)]
mod tests;

use std::io::Write;

use herald_api::DType;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng;

use herald::gguf::{ArrayBuf, GgufError, Value, Writer};
use recipe::{Fact, Fill, Recipe};

/// The seed of the random weights, which makes the file reproducible.
const SEED: u64 = 0x4845_5241_4c44;

/// How a model's matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// All of one element type.
    Plain(DType),
    /// The usual 4-bit mixture: Q4_K, with Q6_K for the head and for half of the value and down projections.
    Q4KM,
}

impl Storage {
    /// The storage of this name: an element type's, or `q4_k_m`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("q4_k_m") {
            return Some(Self::Q4KM);
        }
        DType::from_name(name).map(Self::Plain)
    }
}

/// The known models: architecture and size.
#[must_use]
pub fn models() -> Vec<(&'static str, &'static str)> {
    shapes::ALL.iter().map(|shape| (shape.architecture, shape.size)).collect()
}

/// Writes a model; `None` if it is unknown.
///
/// # Errors
/// If writing to `out` fails.
pub fn write<W: Write>(
    architecture: &str,
    size: &str,
    storage: Storage,
    out: W,
) -> Option<Result<W, GgufError>> {
    let shape = shapes::ALL.iter().find(|shape| shape.architecture == architecture && shape.size == size)?;
    Some(write_recipe(&(shape.recipe)(), storage, out))
}

/// Writes a model of about two megabytes that any machine runs in a moment, with attention, Mamba-2 and MLPs, most of it in the
/// usual 4-bit mixture and one MLP in F32: enough to see whether a backend computes.
///
/// # Errors
/// If writing to `out` fails.
pub fn write_smallest<W: Write>(out: W) -> Result<W, GgufError> {
    write_recipe(&shapes::smallest(), Storage::Q4KM, out)
}

/// What comes before the weights, and each tensor's type.
fn head(recipe: &Recipe, storage: Storage) -> Result<(Writer, Vec<DType>), GgufError> {
    let mut writer = Writer::new();
    for (key, fact) in &recipe.facts {
        let array;
        let value = match fact {
            Fact::Number(number) => Value::U32(*number),
            Fact::Real(number) => Value::F32(*number),
            Fact::Flag(flag) => Value::Bool(*flag),
            Fact::Text(text) => Value::from(text.as_str()),
            Fact::Numbers(numbers) => {
                array = ArrayBuf::from(&numbers[..]);
                Value::from(&array)
            }
            Fact::Flags(flags) => {
                array = ArrayBuf::from(&flags[..]);
                Value::from(&array)
            }
            Fact::Texts(texts) => {
                array = ArrayBuf::strings(texts);
                Value::from(&array)
            }
        };
        writer.metadata(key, value)?;
    }
    let types: Vec<DType> = recipe.tensors.iter().map(|tensor| recipe.dtype(tensor, storage)).collect();
    for (tensor, dtype) in recipe.tensors.iter().zip(&types) {
        writer.tensor(&tensor.name, *dtype, &tensor.dims)?;
    }
    Ok((writer, types))
}

fn write_recipe<W: Write>(recipe: &Recipe, storage: Storage, out: W) -> Result<W, GgufError> {
    let (writer, types) = head(recipe, storage)?;
    let mut random = Pcg64Mcg::seed_from_u64(SEED);
    let mut data = writer.begin(out)?;
    for (tensor, dtype) in recipe.tensors.iter().zip(&types) {
        let elements = tensor.dims.iter().product();
        data.tensor(&match tensor.fill {
            Fill::Matrix | Fill::Weights | Fill::Mxfp4 => {
                // Products of rows with activations of size 1 then have about size 1 too.
                let deviation = 1.0 / (tensor.dims[0] as f32).sqrt();
                blocks::random(*dtype, elements, deviation, &mut random)
            }
            Fill::Between(low, high) => blocks::floats(elements, &mut random, |x| low + x * (high - low)),
            // Mamba's initialisation: time steps between 0.001 and 0.1, decays up to 16.
            Fill::TimeBias => blocks::floats(elements, &mut random, |x| {
                let dt = (0.001_f32.ln() + x * 100.0_f32.ln()).exp();
                dt.exp_m1().ln()
            }),
            Fill::Decay => blocks::floats(elements, &mut random, |x| -(x * 16.0_f32.ln()).exp()),
            Fill::FirstQuarter => blocks::first_quarter(elements),
        })?;
    }
    data.finish()
}
