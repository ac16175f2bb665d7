//! Attention's parameters, by the names that GGUF gives them.

use herald_api::{Attention, Mask, RopeKind, RopeScaling};

use super::{Keys, ModelError};

/// Attention as most transformers have it: heads and RoPE from the usual keys, over all earlier tokens, scaled by the root
/// of the key's size. One for each block.
pub(super) fn usual_attention(
    keys: &Keys<'_>,
    blocks: usize,
    rope: RopeKind,
) -> Result<Vec<Attention>, ModelError> {
    let attention = attention_of_some(keys, blocks, rope)?;
    attention
        .into_iter()
        .enumerate()
        .map(|(block, attention)| attention.ok_or_else(|| no_heads(keys, block)))
        .collect()
}

/// The error for a block without attention, where every block needs it.
pub(super) fn no_heads(keys: &Keys<'_>, block: usize) -> ModelError {
    let value = format!("0 for block {block}");
    keys.bad("attention.head_count_kv", value, "at least 1 for each block".to_owned())
}

/// As [`usual_attention`], for models of which some blocks have no attention: their KV heads are given as 0.
pub(super) fn attention_of_some(
    keys: &Keys<'_>,
    blocks: usize,
    rope: RopeKind,
) -> Result<Vec<Option<Attention>>, ModelError> {
    let hidden = keys.size("embedding_length")?;
    let heads = keys.sizes("attention.head_count", blocks)?;
    let kv_heads = match keys.optional_array("attention.head_count_kv")? {
        Some(_) => keys.sizes("attention.head_count_kv", blocks)?,
        None => match keys.optional_size("attention.head_count_kv")? {
            Some(n) => vec![n; blocks],
            None => heads.clone(),
        },
    };
    let key_length = keys.optional_size("attention.key_length")?;
    let value_length = keys.optional_size("attention.value_length")?;
    let rope_dims = keys.optional_size("rope.dimension_count")?;
    let rope_base = keys.optional_float("rope.freq_base")?.unwrap_or(10_000.0);
    let rope_scaling = rope_scaling(keys)?;
    heads
        .into_iter()
        .zip(kv_heads)
        .map(|(n_heads, n_kv_heads)| {
            if n_kv_heads == 0 {
                return Ok(None);
            }
            if n_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
                let expected = format!("a divisor of {n_heads} query heads");
                return Err(keys.bad("attention.head_count_kv", n_kv_heads, expected));
            }
            let key_dim = key_length.unwrap_or(hidden / n_heads);
            let value_dim = value_length.unwrap_or(hidden / n_heads);
            let rope_dims = rope_dims.unwrap_or(key_dim);
            if rope_dims > key_dim || !rope_dims.is_multiple_of(2) {
                let expected = format!("an even number of at most {key_dim} (the size of a key)");
                return Err(keys.bad("rope.dimension_count", rope_dims, expected));
            }
            Ok(Some(Attention {
                n_heads,
                n_kv_heads,
                key_dim,
                value_dim,
                window: None,
                mask: Mask::Causal,
                rope,
                rope_dims,
                rope_base,
                rope_scaling,
                softcap: None,
                latent: None,
                shares_kv: false,
                scale: 1.0 / (key_dim as f32).sqrt(),
            }))
        })
        .collect()
}

/// RoPE's scaling for long contexts, as `rope.scaling.*` gives it. (Llama 3's comes as a tensor.)
pub(super) fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling, ModelError> {
    let factor = || match keys.optional_float("rope.scaling.factor")? {
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => Err(keys.bad("rope.scaling.factor", factor, "a number above 0".to_owned())),
        None => Ok(1.0),
    };
    const OF_YARN: [&str; 6] = [
        "rope.scaling.yarn_truncate",
        "rope.scaling.original_context_length",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scaling.attn_factor",
    ];
    let kind = keys.optional_text("rope.scaling.type")?;
    if kind != Some("yarn") {
        keys.disregard(&OF_YARN);
    }
    match kind {
        // A factor alone is linear; older files have it under another name.
        None => {
            let factors = [factor()?, keys.optional_float("rope.scale_linear")?.unwrap_or(1.0)];
            let factor = factors.into_iter().find(|factor| *factor > 0.0 && *factor != 1.0);
            Ok(factor.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor }))
        }
        Some("none") => {
            keys.disregard(&["rope.scaling.factor"]);
            Ok(RopeScaling::None)
        }
        Some("linear") => Ok(RopeScaling::Linear { factor: factor()? }),
        Some("yarn") => {
            let context = keys.optional_size("rope.scaling.original_context_length")?;
            let number =
                |key: &str, usual: f32| Ok::<_, ModelError>(keys.optional_float(key)?.unwrap_or(usual));
            Ok(RopeScaling::Yarn {
                factor: factor()?,
                original_context: context.map_or_else(|| keys.size("context_length"), Ok)? as u32,
                ext_factor: number("rope.scaling.yarn_ext_factor", 1.0)?,
                attn_factor: number("rope.scaling.attn_factor", 1.0)?,
                beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
                whole_pairs: keys.optional_flag("rope.scaling.yarn_truncate")?.unwrap_or(true),
            })
        }
        Some(other) => {
            Err(keys.bad("rope.scaling.type", format!("{other:?}"), "none, linear or yarn".to_owned()))
        }
    }
}

/// Which blocks attend within a window: as the file says block by block, or all but every `pattern`-th.
pub(super) fn windowed(keys: &Keys<'_>, blocks: usize, pattern: usize) -> Result<Vec<bool>, ModelError> {
    const KEY: &str = "attention.sliding_window_pattern";
    if let Some(flags) = keys.optional_array(KEY)? {
        if flags.len() != blocks {
            let expected = format!("one for each of {blocks} blocks");
            return Err(keys.bad(KEY, format!("{} flags", flags.len()), expected));
        }
        return Ok(flags.into_iter().map(|flag| flag != 0).collect());
    }
    let pattern = keys.optional_size(KEY)?.unwrap_or(pattern);
    Ok((0..blocks).map(|block| !(block + 1).is_multiple_of(pattern)).collect())
}
