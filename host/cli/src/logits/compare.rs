//! `host logits compare`: how far apart two files of logits are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap::Args;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

/// Compare two files of logits of the same tokens
#[derive(Debug, Args)]
#[command(
    after_help = "KL is the divergence of B's next-token probabilities from A's, in nats: A is the reference."
)]
pub(super) struct Compare {
    /// The reference
    a: PathBuf,
    /// The file that is compared with it
    b: PathBuf,
    /// Fail if the mean KL divergence is greater
    #[arg(long, value_name = "NATS", value_parser = bound)]
    max_kl: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A figure over all tokens.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Figure {
    mean: f64,
    max: f64,
    /// The token after which it is greatest, counted from 0.
    max_at: usize,
}

impl Figure {
    /// Takes the value of token `at`, which is the greatest or not, into a mean of `of` values.
    fn take(&mut self, at: usize, mean: f64, max: f64, of: usize) {
        self.mean += mean / of as f64;
        if max > self.max {
            (self.max, self.max_at) = (max, at);
        }
    }
}

/// How far two files are apart.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Difference {
    tokens: usize,
    vocabulary: usize,
    /// Absolute differences of logits.
    difference: Figure,
    /// KL divergence of B from A.
    kl: Figure,
    /// The share of tokens after which both have the same greatest logit.
    top1_agreement: f64,
}

impl Compare {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (a, b) = (Mapped::open(&self.a)?, Mapped::open(&self.b)?);
        let (a, b) = (a.logits(&self.a)?, b.logits(&self.b)?);
        let found = difference(&a, &b).map_err(|what| {
            Failure::Failed(format!("{} and {}: {what}", self.a.display(), self.b.display()))
        })?;
        if self.json {
            output::json(&found)?;
        } else {
            print(&found)?;
        }
        match self.max_kl {
            Some(most) if found.kl.mean > most => Err(Failure::Failed(format!(
                "{}: the mean KL divergence from {} is {:.3e}, where at most {most} was expected",
                self.b.display(),
                self.a.display(),
                found.kl.mean
            ))),
            _ => Ok(()),
        }
    }
}

fn print(found: &Difference) -> Result<(), Failure> {
    let mut table = output::table(&["", "MEAN", "MAX", "AFTER TOKEN"]);
    for (name, figure) in [("difference of logits", &found.difference), ("KL divergence", &found.kl)] {
        let Figure { mean, max, max_at } = figure;
        table.add_row(vec![
            name.to_owned(),
            format!("{mean:.3e}"),
            format!("{max:.3e}"),
            if *max > 0.0 { max_at.to_string() } else { String::new() },
        ]);
    }
    output::print_table(&table)?;
    output::line(format_args!(
        "the same most likely token after {:.2}% of {} tokens (vocabulary of {})",
        100.0 * found.top1_agreement,
        found.tokens,
        found.vocabulary
    ))
}

/// A file's bytes.
struct Mapped(memmap2::Mmap);

/// What a file holds.
struct Logits<'f> {
    ids: &'f [u8],
    /// Float32, `[tokens, vocabulary]`.
    rows: &'f [u8],
    vocabulary: usize,
}

impl Mapped {
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: &std::io::Error| Failure::file(path, "it can't be read", error);
        // A pipe can't be mapped, and opening it would wait.
        if !fs::metadata(path).map_err(|error| failed(&error))?.is_file() {
            return Err(Failure::Failed(format!("{}: it is no regular file", path.display())));
        }
        let file = File::open(path).map_err(|error| failed(&error))?;
        // SAFETY: the file is only read. Nothing here relies on bytes being the same when they are read again, should another
        // program write to it meanwhile.
        unsafe { memmap2::Mmap::map(&file) }.map(Self).map_err(|error| failed(&error))
    }

    fn logits(&self, path: &Path) -> Result<Logits<'_>, Failure> {
        let wrong = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
        let tensors = SafeTensors::deserialize(&self.0)
            .map_err(|error| wrong(format!("it is no safetensors file, as `host logits` writes: {error}")))?;
        let part = |name: &str, dtype: Dtype| {
            tensors.tensor(name).ok().filter(|tensor| tensor.dtype() == dtype).ok_or_else(|| {
                wrong(format!("it has no tensor {name} of type {dtype:?}, as `host logits` writes"))
            })
        };
        let (ids, logits) = (part("ids", Dtype::I32)?, part("logits", Dtype::F32)?);
        match (ids.shape(), logits.shape()) {
            (&[tokens], &[rows, vocabulary]) if tokens == rows && tokens > 0 && vocabulary > 0 => {
                Ok(Logits { ids: ids.data(), rows: logits.data(), vocabulary })
            }
            (ids, logits) => Err(wrong(format!(
                "it has ids of shape {ids:?} and logits of shape {logits:?}, where [T] and [T, V] were expected"
            ))),
        }
    }
}

fn row(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<4>().0.iter().map(|logit| f64::from(f32::from_le_bytes(*logit)))
}

/// The greatest logit's index, and the logarithm of the sum of all exponentials.
fn summary(logits: &[u8]) -> Result<(usize, f64), f64> {
    let (mut best, mut max) = (0, f64::NEG_INFINITY);
    for (index, logit) in row(logits).enumerate() {
        if logit.is_nan() || logit == f64::INFINITY {
            return Err(logit);
        }
        if logit > max {
            (best, max) = (index, logit);
        }
    }
    if max == f64::NEG_INFINITY {
        return Err(max);
    }
    Ok((best, max + row(logits).map(|logit| (logit - max).exp()).sum::<f64>().ln()))
}

fn difference(a: &Logits<'_>, b: &Logits<'_>) -> Result<Difference, String> {
    let tokens = a.ids.len() / 4;
    if (a.ids.len(), a.vocabulary) != (b.ids.len(), b.vocabulary) {
        return Err(format!(
            "they have {tokens} and {} tokens and vocabularies of {} and {}, where the same were expected",
            b.ids.len() / 4,
            a.vocabulary,
            b.vocabulary
        ));
    }
    if let Some(at) = (0..tokens).find(|at| a.ids[4 * at..4 * at + 4] != b.ids[4 * at..4 * at + 4]) {
        return Err(format!("their token {at} differs, where logits of the same tokens were expected"));
    }
    let mut found = Difference { tokens, vocabulary: a.vocabulary, ..Difference::default() };
    let mut same = 0;
    let bytes = 4 * a.vocabulary;
    for (at, (a, b)) in a.rows.chunks_exact(bytes).zip(b.rows.chunks_exact(bytes)).enumerate() {
        let of = |row: &[u8], name: &str| {
            summary(row).map_err(|logit| format!("{name} has the logit {logit} after token {at}"))
        };
        let ((best_a, sum_a), (best_b, sum_b)) = (of(a, "the first")?, of(b, "the second")?);
        same += usize::from(best_a == best_b);
        let (mut kl, mut total, mut max) = (0.0, 0.0, 0.0_f64);
        for (a, b) in row(a).zip(row(b)) {
            let difference = if a == b { 0.0 } else { (a - b).abs() };
            total += difference;
            max = max.max(difference);
            let p = (a - sum_a).exp();
            // What A rules out adds nothing, whatever B says of it.
            if p > 0.0 {
                kl += p * ((a - sum_a) - (b - sum_b));
            }
        }
        found.difference.take(at, total / found.vocabulary as f64, max, tokens);
        // Rounding may leave a little below 0.
        let kl = kl.max(0.0);
        found.kl.take(at, kl, kl, tokens);
    }
    found.top1_agreement = f64::from(same as u32) / tokens as f64;
    Ok(found)
}

fn bound(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|bound: &f64| *bound >= 0.0);
    number.ok_or_else(|| "a number from 0 was expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn compared(a: &[f32], b: &[f32]) -> Result<Difference, String> {
        let (ids, a, b) = (bytes(&[1.0, 2.0]), bytes(a), bytes(b));
        let of = |rows| Logits { ids: &ids, rows, vocabulary: 3 };
        difference(&of(&a), &of(&b))
    }

    #[test]
    fn the_same_logits_differ_by_nothing() {
        let rows = [1.0, -2.0, f32::NEG_INFINITY, 0.0, 5.0, 1.0];
        let found = compared(&rows, &rows).unwrap();
        assert_eq!((found.difference.max, found.kl.max, found.top1_agreement), (0.0, 0.0, 1.0));
    }

    /// Two rows whose probabilities are (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4), and their own: KL by hand.
    #[test]
    fn figures_are_those_of_their_formulas() {
        let [half, quarter] = [0.5_f32.ln(), 0.25_f32.ln()];
        let a = [half, quarter, quarter, half, quarter, quarter];
        let b = [half, quarter, quarter, quarter + 3.0, half + 3.0, quarter + 3.0];
        let found = compared(&a, &b).unwrap();
        let kl = 0.25 * 2_f64.ln();
        assert!((found.kl.max - kl).abs() < 1e-7 && (found.kl.mean - kl / 2.0).abs() < 1e-7, "{found:?}");
        assert_eq!((found.kl.max_at, found.top1_agreement), (1, 0.5));
        let most = 3.0 + 2_f64.ln();
        assert!((found.difference.max - most).abs() < 1e-6, "{found:?}");
        assert!((found.difference.mean - 1.5).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn what_a_reference_never_says_may_be_ruled_out() {
        let out = f32::NEG_INFINITY;
        let found = compared(&[0.0, 0.0, out, 0.0, 0.0, out], &[0.0, 0.0, -50.0, 0.0, 0.0, out]).unwrap();
        assert!(found.kl.max < 1e-12 && found.difference.max == f64::INFINITY, "{found:?}");
        let found = compared(&[0.0; 6], &[0.0, 0.0, out, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(found.kl.max, f64::INFINITY);
    }

    #[test]
    fn numbers_that_are_none_are_named() {
        for wrong in [f32::NAN, f32::INFINITY] {
            let said = compared(&[0.0; 6], &[0.0, 0.0, 0.0, 0.0, wrong, 0.0]).unwrap_err();
            assert!(said.contains("the second has the logit") && said.contains("after token 1"), "{said}");
        }
    }
}
