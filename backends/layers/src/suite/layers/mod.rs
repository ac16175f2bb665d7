//! A plugin's layers through the C boundary: what they compute, in every way that a batch can be cut, and what they refuse.

mod attention;
mod batches;
mod delta_net;
mod embedding_and_head;
mod latent;
mod mlp;
mod moe;
mod norms;
mod order;
mod page_selection;
mod per_layer_embedding;
mod recurrent;
mod refusals;

use herald_api::{LayerKind, Mask};

use super::Subject;

pub(super) fn check(plugin: &Subject<'_>) {
    let kinds = plugin.layer_kinds();
    assert!(!kinds.is_empty(), "{} offers no layers to check", plugin.name());
    for kind in kinds {
        match kind {
            LayerKind::Attention => {
                attention::check(plugin, Mask::Causal);
                page_selection::check(plugin);
                refusals::check_attention_calls(plugin);
            }
            LayerKind::ChunkedAttention => attention::check(plugin, Mask::Chunked),
            LayerKind::BidirectionalAttention => attention::check(plugin, Mask::Bidirectional),
            LayerKind::Mlp => mlp::check(plugin),
            LayerKind::Embedding => embedding_and_head::check_embedding(plugin),
            LayerKind::Head => embedding_and_head::check_head(plugin),
            LayerKind::Mamba1 => recurrent::check_mamba1(plugin),
            LayerKind::Mamba2 => recurrent::check_mamba2(plugin),
            LayerKind::ShortConv => recurrent::check_short_conv(plugin),
            LayerKind::Moe => moe::check(plugin),
            LayerKind::PerLayerEmbedding => per_layer_embedding::check(plugin),
            LayerKind::DeltaNet => delta_net::check(plugin),
            other => {
                panic!("the suite has no reference for the {} layers of {}", other.name(), plugin.name())
            }
        }
        refusals::check(plugin, kind);
    }
}
