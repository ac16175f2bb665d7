//! Ranks: how well documents answer a query, by a model that was made to tell (a reranker, or cross-encoder).

use super::NeuroEngine;
use crate::error::{Error, Result};
use crate::model::RankStep;
use crate::stop::Stop;

/// The metadata of the text that a language model reads a pair in, as llama.cpp's converter names it.
const TEMPLATE: &str = "tokenizer.chat_template.rerank";

impl NeuroEngine {
    /// Whether the model ranks documents.
    #[must_use]
    pub fn can_rank(&self) -> bool {
        !self.plan.rank.is_empty()
    }

    /// A score of each document, in order: the higher, the better it answers the query. Of encoders scores are any numbers; of language
    /// models that answer yes or no the probability of yes. `stop` ends the work.
    ///
    /// # Errors
    /// Where the model doesn't rank, and as [`NeuroEngine::prefill`].
    pub fn rank(&self, query: &str, documents: &[&str], stop: Option<&Stop>) -> Result<Vec<f32>> {
        self.check_rank()?;
        let pairs = documents.iter().map(|document| self.rank_ids(query, document));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        self.rank_pairs(&pairs.iter().map(Vec::as_slice).collect::<Vec<_>>(), stop)
    }

    /// The tokens of a query with a document, as the model reads them: in the file's template, or one after the other, each ended as
    /// the tokenizer says.
    ///
    /// # Errors
    /// As [`AscTokenizer::encode`](crate::AscTokenizer::encode).
    pub fn rank_ids(&self, query: &str, document: &str) -> Result<Vec<u32>> {
        let Some(template) = self.gguf.metadata().get::<&str>(TEMPLATE)? else {
            return self.tokenizer.encode_pair(query, document);
        };
        // What the query spells out is no place for the document.
        let mut text = String::with_capacity(template.len() + query.len() + document.len());
        let mut rest = template;
        while let Some(at) = rest.find('{') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{query}") {
                text.push_str(query);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{document}") {
                text.push_str(document);
                rest = after;
            } else {
                text.push('{');
                rest = &rest[1..];
            }
        }
        text.push_str(rest);
        self.tokenizer.encode(&text, true)
    }

    /// As [`NeuroEngine::rank`], of pairs that are given by their tokens, as [`NeuroEngine::rank_ids`] makes them.
    ///
    /// # Errors
    /// As [`NeuroEngine::rank`].
    pub fn rank_pairs(&self, pairs: &[&[u32]], stop: Option<&Stop>) -> Result<Vec<f32>> {
        self.check_rank()?;
        let pooled = self.embed(pairs, self.pooling(), stop)?;
        pooled.into_iter().map(|vector| self.score(vector)).collect()
    }

    fn check_rank(&self) -> Result<()> {
        if self.can_rank() {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{} doesn't rank documents: a reranker was expected, whose file says pooling_type = 4",
            self.path.display()
        )))
    }

    /// Takes a pooled vector through the model's steps to a score.
    fn score(&self, mut vector: Vec<f32>) -> Result<f32> {
        let mut layers = self.rank_layers.iter();
        for step in &self.plan.rank {
            match step {
                RankStep::Layer(_) => {
                    let Some(layer) = layers.next() else { break };
                    let mut result = vec![0.0; layer.output_width()];
                    self.apply(layer, &vector, &mut result)?;
                    vector = result;
                }
                RankStep::Tanh => vector.iter_mut().for_each(|x| *x = x.tanh()),
                RankStep::Gelu => vector.iter_mut().for_each(|x| *x = gelu(*x)),
                RankStep::Softmax => softmax(&mut vector),
            }
        }
        let path = self.path.display();
        vector.first().copied().ok_or_else(|| Error::Invalid(format!("{path} gives no scores")))
    }
}

/// GELU (arXiv 1606.08415): `x/2 (1 + erf(x / sqrt 2))`.
fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))) as f32
}

/// The error function, by its series, or by the continued fraction of its complement where that is faster.
fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    if magnitude < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            let next = term / f64::from(2 * n + 1);
            sum += next;
            if next.abs() < 1e-17 {
                break;
            }
        }
        return 2.0 / std::f64::consts::PI.sqrt() * sum;
    }
    let fraction = (1..60).rev().fold(magnitude, |below, n| magnitude + f64::from(n) / 2.0 / below);
    let complement = (-x * x).exp() / std::f64::consts::PI.sqrt() / fraction;
    (1.0 - complement).copysign(x)
}

fn softmax(vector: &mut [f32]) {
    let highest = vector.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = vector.iter().map(|x| f64::from(x - highest).exp()).sum();
    vector.iter_mut().for_each(|x| *x = (f64::from(*x - highest).exp() / sum) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_as_tabulated() {
        // Of the error function: Abramowitz and Stegun, table 7.1.
        for (x, expected) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
            assert!((erf(x) - expected).abs() < 1e-10 && (erf(-x) + expected).abs() < 1e-10, "{x}");
        }
        assert!((erf(3.5) - 0.999_999_256_9).abs() < 1e-10);
        assert!((gelu(1.0) - 0.841_344_8).abs() < 1e-6);
    }

    #[test]
    fn probabilities_add_up_to_one() {
        let mut vector = [1000.0, 1001.0];
        softmax(&mut vector);
        assert!((vector[1] - 0.731_058_6).abs() < 1e-6 && (vector[0] + vector[1] - 1.0).abs() < 1e-6);
    }
}
