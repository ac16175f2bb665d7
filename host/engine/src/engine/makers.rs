//! Which plugin made which part of a model, in lines for people.

use herald_api::import::LayerHandle;
use herald_api::{LayerKind, TierKind};

/// A line for each plugin that makes some of the layers or memory tiers, or the tokenizer, in the order of the layers. `tiers`:
/// each kind, and who makes it. `for_prompts` are the layers of a second plugin.
pub(super) fn lines(
    layers: &[LayerHandle],
    for_prompts: &[Option<LayerHandle>],
    tiers: &[(TierKind, String)],
    tokenizer: Option<&str>,
) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let makers = layers.iter().chain(for_prompts.iter().flatten()).map(LayerHandle::plugin);
    for name in makers.chain(tiers.iter().map(|(_, name)| &name[..])).chain(tokenizer) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let line = |name: &str| {
        let mut parts = Vec::new();
        let own: Vec<&LayerHandle> = layers.iter().filter(|layer| layer.plugin() == name).collect();
        if own.len() == layers.len() {
            parts.push(format!("all {} layers", layers.len()));
        } else if !own.is_empty() {
            parts.push(format!("{} of {} layers ({})", own.len(), layers.len(), kinds(&own)));
        }
        let prompts: Vec<&LayerHandle> =
            for_prompts.iter().flatten().filter(|layer| layer.plugin() == name).collect();
        if !prompts.is_empty() {
            parts.push(format!("{} layers for prompts ({})", prompts.len(), kinds(&prompts)));
        }
        let kinds: Vec<&str> =
            tiers.iter().filter(|(_, maker)| maker == name).map(|(kind, _)| kind.name()).collect();
        if !kinds.is_empty() {
            parts.push(format!("memory tiers ({})", kinds.join(", ")));
        }
        if tokenizer == Some(name) {
            parts.push("the tokenizer".to_owned());
        }
        format!("{name}: {}", parts.join(", "))
    };
    names.into_iter().map(line).collect()
}

/// The kinds of layers, each with the blocks that they are in.
fn kinds(layers: &[&LayerHandle]) -> String {
    let of = |layer: &&LayerHandle| (layer.desc().kind(), layer.desc().block);
    by_kind(&layers.iter().map(of).collect::<Vec<_>>())
}

fn by_kind(layers: &[(LayerKind, usize)]) -> String {
    let mut found: Vec<(LayerKind, Vec<usize>)> = Vec::new();
    for (kind, block) in layers {
        match found.iter_mut().find(|(known, _)| known == kind) {
            Some((_, blocks)) => blocks.push(*block),
            None => found.push((*kind, vec![*block])),
        }
    }
    let text = |(kind, blocks): &(LayerKind, Vec<usize>)| match kind {
        LayerKind::Embedding | LayerKind::Head => kind.name().to_owned(),
        _ if blocks.len() == 1 => format!("{} of block {}", kind.name(), blocks[0]),
        _ => format!("{} of blocks {}", kind.name(), ranges(blocks)),
    };
    found.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Rising numbers, those that follow one another as a range.
fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_a_row_are_a_range() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        let layers = [
            (LayerKind::Embedding, 0),
            (LayerKind::Attention, 0),
            (LayerKind::Mlp, 0),
            (LayerKind::Attention, 1),
            (LayerKind::Head, 2),
        ];
        assert_eq!(by_kind(&layers), "embedding, attention of blocks 0-1, mlp of block 0, head");
    }
}
