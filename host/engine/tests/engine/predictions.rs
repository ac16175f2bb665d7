//! A real model's predictions beside those of the exact weights (dequantised to float32, computed in float32 by PyTorch).

use herald::NeuroEngine;
use safetensors::SafeTensors;

/// How far predictions are from the exact ones, in mean over the tokens of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    /// The Kullback-Leibler divergence, over the exact ones' likeliest tokens.
    pub(crate) divergence: f64,
    /// The share of tokens after which the likeliest token is the exact one.
    pub(crate) agreement: f64,
}

pub(crate) fn words(tensors: &SafeTensors<'_>, name: &str) -> Vec<[u8; 4]> {
    let data = tensors.tensor(name).expect("the tensor is there").data();
    data.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect()
}

/// That of an engine on text number `text` of `exact`: its `ids`, and for each token `top_ids` and their `top_logprobs`, the
/// likeliest first.
pub(crate) fn distance(engine: &NeuroEngine, exact: &SafeTensors<'_>, text: u64) -> Distance {
    let number = |name: &str| words(exact, &format!("t{text}.{name}"));
    let ids: Vec<u32> = number("ids").into_iter().map(u32::from_le_bytes).collect();
    let top_ids: Vec<u32> = number("top_ids").into_iter().map(u32::from_le_bytes).collect();
    let top: Vec<f32> = number("top_logprobs").into_iter().map(f32::from_le_bytes).collect();
    let width = top.len() / ids.len();
    let mut rows = top_ids.chunks_exact(width).zip(top.chunks_exact(width));
    let (mut sum, mut agreed) = (0.0, 0);
    let mut sequence = engine.sequence().expect("a sequence");
    engine
        .logits(&mut sequence, &ids, &mut |logits| {
            let (top_ids, top) = rows.next().expect("a row for each token");
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
            let norm = f64::from(max) + total.ln();
            for (id, exact) in top_ids.iter().zip(top) {
                let exact = f64::from(*exact);
                sum += exact.exp() * (exact - (f64::from(logits[*id as usize]) - norm));
            }
            agreed += usize::from(logits[top_ids[0] as usize] == max);
        })
        .expect("a pass");
    Distance { divergence: sum / ids.len() as f64, agreement: agreed as f64 / ids.len() as f64 }
}

/// Checks that the divergence on each text is at most `share` of llama.cpp's on the same file, and that over all texts the likeliest
/// token is the exact one no less often than there. `llama_cpp`: that distance on each text.
pub(crate) fn check(
    who: &str,
    engine: &NeuroEngine,
    exact: &SafeTensors<'_>,
    llama_cpp: &[Distance],
    share: f64,
) {
    let mut agreements = [0.0, 0.0];
    for (text, theirs) in (0..).zip(llama_cpp) {
        let ours = distance(engine, exact, text);
        let bound = share * theirs.divergence;
        println!(
            "{who}, text {text}: {ours:?}, where the divergence may be {bound:.6}; llama.cpp: {theirs:?}"
        );
        assert!(ours.divergence <= bound, "{who}, text {text}: {ours:?}, where {bound} is allowed");
        let tokens = words(exact, &format!("t{text}.ids")).len() as f64;
        agreements[0] += tokens * ours.agreement;
        agreements[1] += tokens * theirs.agreement;
    }
    let [ours, theirs] = agreements;
    assert!(ours >= theirs, "{who}: the likeliest token is right {ours} times, llama.cpp's {theirs} times");
}
