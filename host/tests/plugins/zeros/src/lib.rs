//! For the host's tests: a plugin that every machine prefers, and whose layers immediately return zeros: as fast as
//! possible, and worthless. Benchmarks must notice.
//!
//! `cargo build --locked --manifest-path host/tests/plugins/zeros/Cargo.toml --target-dir FOLDER` makes
//! `FOLDER/debug/libherald_zeros.so`.

use herald_api::{
    Call, EngineLayer, Hardware, LayerFactory, LayerKind, LayerRequest, Page, Probe, Result, abi,
};

fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: 1_000_000, variant: "idle".to_owned() })
}

struct Zeros;

impl LayerFactory for Zeros {
    const KINDS: &'static [LayerKind] = &LayerKind::ALL;

    fn supports(_: &LayerRequest<'_, '_>) -> Result<()> {
        Ok(())
    }

    fn create<'w>(_: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>> {
        Ok(Box::new(Zeros))
    }
}

impl EngineLayer for Zeros {
    fn scratch_bytes(&self) -> usize {
        0
    }

    fn page_formats(&self) -> u32 {
        1 << abi::HERALD_PAGE_Q4
    }

    fn score_width(&self) -> usize {
        1
    }

    fn summary_bytes(&self) -> usize {
        8
    }

    fn summarise(&self, _: &Page<'_>, summary: &mut [u8]) -> Result<()> {
        summary.fill(0);
        Ok(())
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        call.output.fill(0.0);
        Ok(())
    }
}

herald_api::export_plugin! {
    name: "zeros",
    version: "1.0.0",
    description: "Returns zeros immediately",
    probe: probe,
    layers: Zeros,
}
