//! Low-rank updates: each sequence's own reach the plugin, and what doesn't fit the layer is refused.

use std::sync::Arc;

use herald_api::abi::{self, AbiStruct, HeraldError, HeraldLayer, HeraldLayerInfo};
use herald_api::import::{BatchBuffers, Forward, LayerHandle, LayerSpec, PageUse, SharedBytes, SharedWeight};
use herald_api::{AlignedBytes, DType, Lora, Parallel, Result, WeightRole};

use crate::plugin::SCRATCH_BYTES;
use crate::support::*;
use crate::works::Held;

/// Attention with a matrix of queries, whose calls may bring updates up to this rank.
fn order(max_lora_rank: usize) -> LayerSpec {
    let bytes = Arc::new(vec![0_u8; HIDDEN * HIDDEN * 4]);
    let data = SharedBytes::new(bytes, 0..HIDDEN * HIDDEN * 4).expect("the range is within the bytes");
    let mut spec = attention_spec();
    spec.weights.push(SharedWeight {
        role: WeightRole::Query,
        name: "blk.7.attn_q".to_owned(),
        dtype: DType::F32,
        dims: vec![HIDDEN as u64, HIDDEN as u64],
        data,
    });
    LayerSpec { max_lora_rank, ..spec }
}

const NUMBERS: [f32; 4 * HIDDEN] = [0.5; 4 * HIDDEN];

fn lora(rank: usize, scale: f32) -> Lora<'static> {
    let part = &NUMBERS[..rank * HIDDEN];
    Lora { role: WeightRole::Query, rank, columns: HIDDEN, rows: HIDDEN, down: part, up: part, scale }
}

/// Runs three sequences of a token each with these updates; what the plugin saw of each, as sums of scales.
fn run(layer: &LayerHandle, loras: [&[Lora<'static>]; 3]) -> Result<Vec<f32>> {
    let plugin = loaded();
    let mut held: Vec<Held> = (0..3).map(|_| Held::new(&plugin, 1)).collect();
    let mut buffers = BatchBuffers::default();
    let mut batch = buffers.begin();
    for (held, loras) in held.iter_mut().zip(loras) {
        let pages = held.pages.iter_mut().map(|page| (0, PageUse::Own(page)));
        batch.push(1, 0, Some(&mut held.state), pages)?;
        loras.iter().for_each(|lora| batch.push_lora(*lora));
    }
    let mut output = vec![0.0; 3 * HIDDEN];
    let request = Forward {
        n_tokens: 3,
        tokens: &[],
        positions: &[0, 0, 0],
        input: None,
        output: &mut output,
        parallel: Parallel::serial(),
    };
    layer.forward(request, Some(&mut batch), &mut AlignedBytes::zeroed(SCRATCH_BYTES)?)?;
    Ok(output.iter().skip(2).step_by(HIDDEN).copied().collect())
}

fn make(max_lora_rank: usize) -> LayerHandle {
    loaded().create_layer(order(max_lora_rank), Parallel::serial()).expect("the layer")
}

#[test]
fn each_sequence_has_its_own() {
    let layer = make(3);
    assert_eq!(layer.max_lora_rank(), 3);
    let seen = run(&layer, [&[lora(1, 1.0), lora(3, 4.0)], &[], &[lora(2, 16.0)]]);
    assert_eq!(seen.expect("a sound call"), [5.0, 0.0, 16.0]);
    assert_eq!(run(&layer, [&[], &[], &[]]).expect("a sound call"), [0.0; 3]);
}

#[test]
fn what_does_not_fit_the_layer_is_refused() {
    let with = |lora| run(&make(3), [&[], &[lora], &[]]);
    let ok = lora(2, 1.0);
    says(with(lora(4, 1.0)), "rank 4 and scale 1, where a rank of 1 to 3");
    says(with(lora(2, f32::NAN)), "rank 2 and scale NaN");
    says(with(Lora { rank: 0, ..ok }), "HeraldLora has rank 0");
    // Fewer numbers than the shape says never get that far.
    says(with(Lora { down: &NUMBERS[..3], ..ok }), "HeraldLora has rank 0");
    says(with(Lora { columns: 0, down: &[], ..ok }), "rows of 0 at");
    says(
        with(Lora { role: WeightRole::Key, ..ok }),
        "its weight Key for 4 rows of 4, where none was expected",
    );
    says(with(Lora { role: WeightRole::Norm, ..ok }), "its weight Norm for 4 rows of 4, where none");
    let narrow = Lora { columns: 3, down: &NUMBERS[..6], ..ok };
    says(with(narrow), "its weight Query for 4 rows of 3, where 4 rows of 4 was expected");
    says(run(&make(0), [&[], &[ok], &[]]), "HeraldSequence 1 has 1 low-rank updates");
}

/// A plugin from before there were any says nothing of them.
unsafe extern "C" fn info_of_before(
    layer: *const HeraldLayer,
    out: *mut HeraldLayerInfo,
    error: *mut HeraldError,
) -> u32 {
    let info = Tables::new().layers.info.expect("info");
    let mut answer: HeraldLayerInfo = AbiStruct::empty();
    // SAFETY: the host's contract, passed on; the answer is our own.
    let status = unsafe { info(layer, &mut answer, error) };
    answer.max_lora_rank = 0;
    // SAFETY: out is the host's.
    unsafe { abi::write(out, &answer).expect("the host's struct") };
    status
}

#[test]
fn a_plugin_from_before_is_brought_none() {
    let mut tables = Tables::new();
    tables.layers.info = Some(info_of_before);
    let layer = tables.load().expect("a plugin").create_layer(order(3), Parallel::serial());
    let layer = layer.expect("the layer");
    assert_eq!(layer.max_lora_rank(), 0);
    run(&layer, [&[], &[], &[]]).expect("a sound call");
    says(run(&layer, [&[lora(1, 1.0)], &[], &[]]), "for a layer that takes ranks up to 0");
}
