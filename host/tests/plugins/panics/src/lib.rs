//! For the host's tests: a plugin that every machine prefers, that claims to offer everything, and that panics whenever it
//! must create something.
//!
//! `cargo build --locked --manifest-path host/tests/plugins/panics/Cargo.toml --target-dir FOLDER` makes
//! `FOLDER/debug/libherald_panics.so`.

use herald_api::{
    EngineLayer, Hardware, LayerFactory, LayerKind, LayerRequest, MemoryTier, Probe, Result, TierConfig,
    TierFactory, TierKind, Tokenizer, TokenizerFactory, Vocabulary,
};

fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: 1_000_000, variant: "hot".to_owned() })
}

struct Panics;

impl LayerFactory for Panics {
    const KINDS: &'static [LayerKind] = &LayerKind::ALL;

    fn supports(_: &LayerRequest<'_, '_>) -> Result<()> {
        Ok(())
    }

    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>> {
        panic!("no {} layer can be created", request.desc.kind().name())
    }
}

impl TokenizerFactory for Panics {
    fn create(_: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        panic!("no tokenizer can be created")
    }
}

impl TierFactory for Panics {
    const KINDS: &'static [TierKind] = &TierKind::ALL;

    fn create(config: &TierConfig) -> Result<Box<dyn MemoryTier>> {
        panic!("no {} tier can be created", config.kind.name())
    }
}

herald_api::export_plugin! {
    name: "panics",
    version: "1.0.0",
    description: "Panics whenever it must create something",
    probe: probe,
    layers: Panics,
    tokenizers: Panics,
    tiers: Panics,
}
