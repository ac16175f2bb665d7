//! Having the plugins make the memory tiers that a model's layers need.

use std::sync::Arc;

use herald_api::import::{LayerHandle, TierHandle};
use herald_api::{Attention, LayerParams, TierConfig, TierKind, abi};

use super::archives::Archives;
use super::fault::{BuildError, BuildResult, PluginRanking};
use crate::kv_cache::{LayerNeeds, Ledger, PagesNeeds, TierTraffic};
use crate::model::ModelPlan;
use crate::options::LoadOptions;
use crate::plugin::Loaded;

/// What each layer keeps of each sequence, and what counts it.
pub(super) struct MemoryParts {
    pub(super) needs: Vec<LayerNeeds>,
    pub(super) traffic: Arc<TierTraffic>,
    pub(super) ledger: Arc<Ledger>,
    /// The kinds of tiers, and the plugins that made them.
    pub(super) makers: Vec<(TierKind, String)>,
}

pub(super) fn build_tiers(
    layers: &[LayerHandle],
    plan: &ModelPlan,
    plugins: &PluginRanking,
    options: &LoadOptions,
) -> BuildResult<MemoryParts> {
    let archives = Archives::new(&options.memory);
    let mut tiers = Tiers { plugins, options, made: Vec::new(), makers: Vec::new(), archives };
    let (traffic, ledger): (Arc<TierTraffic>, Arc<Ledger>) = Default::default();
    let needs =
        layers.iter().enumerate().map(|(index, layer)| match (&layer.desc().params, layer.state_bytes()) {
            (LayerParams::Attention(_), _) if let Some(filler) = plan.layers[index].pages_of => {
                Ok(LayerNeeds::PagesOf(filler))
            }
            (LayerParams::Attention(attention), _) => {
                let readers =
                    layers.iter().zip(&plan.layers).filter(|(_, plan)| plan.pages_of == Some(index));
                let readers: Vec<_> = readers.map(|(reader, _)| reader).chain([layer]).collect();
                let OfLayer { active, compressed, archive } = tiers.for_layers(&readers, attention)?;
                Ok(LayerNeeds::Pages(PagesNeeds {
                    tier: active,
                    compressed,
                    archive,
                    traffic: Arc::clone(&traffic),
                    ledger: Arc::clone(&ledger),
                    selected_pages: options.memory.selected_pages,
                    trained_context: plan.context,
                    summary_bytes: layer.summary_bytes(),
                }))
            }
            (_, 0) => Ok(LayerNeeds::Nothing),
            (_, bytes) => Ok(LayerNeeds::State(bytes)),
        });
    let needs = needs.collect::<BuildResult<_>>()?;
    let mut makers = tiers.makers;
    makers.extend(tiers.archives.maker().map(|maker| (TierKind::Archived, maker.to_owned())));
    Ok(MemoryParts { needs, traffic, ledger, makers })
}

/// The tiers so far: layers whose pages have the same shape share them.
struct Tiers<'b> {
    plugins: &'b PluginRanking,
    options: &'b LoadOptions,
    made: Vec<TierHandle>,
    makers: Vec<(TierKind, String)>,
    archives: Archives,
}

/// The tiers of one layer.
struct OfLayer {
    active: TierHandle,
    compressed: Option<TierHandle>,
    archive: Option<TierHandle>,
}

impl Tiers<'_> {
    /// The tiers of a layer and of those that read its pages.
    fn for_layers(&mut self, layers: &[&LayerHandle], attention: &Attention) -> BuildResult<OfLayer> {
        let config = TierConfig {
            kind: TierKind::Active,
            n_kv_heads: attention.n_kv_heads,
            key_dim: attention.key_dim,
            value_dim: attention.value_dim,
            page_tokens: self.options.page_tokens,
            state_bytes: 0,
            capacity_bytes: None,
            path: None,
            lz4: false,
        };
        let active = self.tier(&config)?;
        // Pages are compressed where the layers read such pages and can select among them. Behind a sliding window there is
        // nothing to select.
        let chooses = |layer: &&&LayerHandle| layer.summary_bytes() > 0;
        let selects =
            layers.iter().all(|layer| chooses(&layer)) || self.options.memory.selected_pages.is_none();
        // They all take one summary of a page.
        let agree = layers.windows(2).all(|pair| pair[0].summary_bytes() == pair[1].summary_bytes());
        let compresses = layers.iter().all(|layer| layer.reads(abi::HERALD_PAGE_Q4))
            && agree
            && selects
            && attention.window.is_none()
            && !self.options.memory.is_exact();
        let compressed = if compresses {
            match self.tier(&TierConfig { kind: TierKind::Compressed, ..config.clone() }) {
                Ok(tier) => Some(tier),
                Err(BuildError::Other(none)) => {
                    tracing::debug!("older pages stay uncompressed: {none}");
                    None
                }
                Err(fault) => return Err(fault),
            }
        } else {
            None
        };
        let archive = match compressed {
            Some(_) => self.archives.tier(&config, &self.plugins.ranked)?,
            None => None,
        };
        Ok(OfLayer { active, compressed, archive })
    }

    /// A tier of this configuration, the same one each time.
    fn tier(&mut self, config: &TierConfig) -> BuildResult<TierHandle> {
        if let Some(tier) = self.made.iter().find(|tier| tier.config() == config) {
            return Ok(tier.clone());
        }
        let part = || format!("the {} memory tier", config.kind.name());
        let (tier, maker) = self.plugins.first_of(part, |Loaded { plugin, .. }| {
            plugin.create_tier(config).map(|tier| (tier, plugin.name().to_owned()))
        })?;
        if !self.makers.contains(&(config.kind, maker.clone())) {
            self.makers.push((config.kind, maker));
        }
        self.made.push(tier.clone());
        Ok(tier)
    }
}
