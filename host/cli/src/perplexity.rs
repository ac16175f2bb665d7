//! `host perplexity`: how well a model predicts a text.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{input, output, progress};

/// Measure how well the model predicts a text
#[derive(Debug, Args)]
#[command(
    after_help = "The text is cut into windows. In the first, every token after the first counts; in each later one, the tokens
that no earlier window has counted. Perplexity is exp of the mean negative log-likelihood."
)]
pub(super) struct Perplexity {
    /// The text; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window [default: the context, at most 2048]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
    /// Distance between the starts of windows [default: half a window]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    stride: Option<u32>,
    /// Count only the predictions of tokens from this position on
    #[arg(long, value_name = "TOKEN", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    from: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Perplexity {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let text = input::read(&self.file)?;
        let engine = options.load()?;
        let window = self.window.map_or(engine.context().min(2048), |window| window as usize);
        let stride = self.stride.map_or(window / 2, |stride| stride as usize).max(1);
        if window > engine.context() || stride >= window {
            return Err(Failure::Usage(format!(
                "windows of {window} tokens every {stride} don't suit a context of {}: the stride must be less than \
                 the window, and the window no more than the context",
                engine.context()
            )));
        }
        let ids = engine.tokenizer().encode_prompt(&text, false)?;
        let min_tokens = self.from as usize + 1;
        if ids.len() < min_tokens {
            return Err(Failure::Failed(format!(
                "{}: it has {} tokens, where at least {min_tokens} were expected",
                self.file.display(),
                ids.len()
            )));
        }
        let bar = progress::bar("perplexity", ids.len() - 1, "tokens", options.quiet);
        let lookout = Lookout::begin();
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0_usize);
        // The first token whose prediction has not been counted.
        let mut next = self.from as usize;
        let mut begin = 0;
        let mut flat = true;
        while begin + window <= next {
            begin += stride;
        }
        while next < ids.len() {
            let end = ids.len().min(begin + window);
            let mut sequence = engine.sequence()?;
            sequence.set_stop(Some(lookout.stop()));
            // The tokens before the first that counts only provide context, so they need no logits.
            if begin < next - 1 {
                engine.prefill_while(&mut sequence, &ids[begin..next - 1], &mut |_| lookout.go_on())?;
            }
            let mut position = next;
            engine.logits_while(&mut sequence, &ids[next - 1..end - 1], &mut |logits| {
                let loss = loss(logits, ids[position]);
                flat &= logits.iter().all(|logit| *logit == logits[0]);
                (sum, squares, count) = (sum + loss, squares + loss * loss, count + 1);
                position += 1;
                bar.inc(1);
                lookout.go_on()
            })?;
            next = end;
            begin += stride;
        }
        bar.finish_and_clear();
        if flat {
            return Err(Failure::Failed(format!(
                "there is no perplexity: at each of {count} tokens all logits are the same, so {}, which computes them, predicts \
                 nothing",
                engine.head_backend()
            )));
        }
        let mean = sum / count as f64;
        let variance = (squares / count as f64 - mean * mean).max(0.0);
        let error = (variance / (count.max(2) - 1) as f64).sqrt();
        let perplexity = mean.exp();
        if self.json {
            return output::json(&json!({
                "perplexity": perplexity,
                "perplexity_error": perplexity * error,
                "mean_nll": mean,
                "mean_nll_error": error,
                "tokens": count,
                "window": window,
                "stride": stride,
                "model": engine.path().to_string_lossy(),
            }));
        }
        output::line(format!(
            "perplexity {perplexity:.4} ± {:.4} (mean negative log-likelihood {mean:.4} ± {error:.4} over {count} tokens)",
            perplexity * error
        ))
    }
}

/// The negative log-likelihood of a token.
fn loss(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    total.ln() - f64::from(logits[token as usize] - max)
}
