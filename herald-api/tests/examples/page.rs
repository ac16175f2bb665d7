//! The plugin that docs/PLUGINS.md shows in C compiles as the page says, loads and runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use herald_api::import::{Forward, LayerSpec, SharedBytes, SharedWeight};
use herald_api::{
    ActivationPrecision, AlignedBytes, DType, Embedding, Hardware, LayerDesc, LayerKind, LayerParams,
    Parallel, Status, WeightRole,
};

use crate::{load, run};

/// The page's code in one language.
fn code(language: &str, containing: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PLUGINS.md");
    let page = fs::read_to_string(page).expect("the page can be read");
    let begin = format!("```{language}\n");
    let blocks = page.split(begin.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.map(str::to_owned).find(|code| code.contains(containing)).expect("the page has the code")
}

#[test]
fn the_pages_plugin_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, plugin) = (folder.path().join("lookup.c"), folder.path().join("libherald_lookup.so"));
    fs::write(&source, code("c", "HeraldPlugin PLUGIN")).expect("the source can be written");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-I"]);
    cc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../include"));
    run(cc.arg("-o").arg(&plugin).arg(&source));
    let plugin = load(&plugin);
    assert_eq!((plugin.name(), plugin.layer_kinds()), ("lookup", vec![LayerKind::Embedding]));
    assert_eq!(plugin.probe(&Hardware::features_only()).expect("a score").score, 120);
    let values: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_ne_bytes()).collect();
    let spec = |dtype: DType| LayerSpec {
        desc: LayerDesc {
            block: 0,
            hidden: 2,
            residual_scale: 1.0,
            norm_eps: 0.0,
            activations: ActivationPrecision::default(),
            params: LayerParams::Embedding(Embedding { vocabulary: 3, scale: 10.0, positions: None }),
        },
        weights: vec![SharedWeight {
            role: WeightRole::Embedding,
            name: "token_embd.weight".to_owned(),
            dtype,
            dims: vec![2, 3],
            data: SharedBytes::new(Arc::new(values.clone()), 0..6 * dtype.block_bytes())
                .expect("the range is within the bytes"),
        }],
        max_tokens: 4,
        max_workers: 1,
        page_tokens: 16,
        max_lora_rank: 0,
        packs: None,
    };
    let refused = plugin.supports_layer(&spec(DType::F16), Parallel::serial()).expect_err("not offered");
    assert_eq!(refused.status(), Status::Unsupported);
    let layer = plugin.create_layer(spec(DType::F32), Parallel::serial()).expect("the layer");
    let mut output = [0.0; 6];
    let request = Forward {
        n_tokens: 3,
        tokens: &[2, 0, 1],
        positions: &[],
        input: None,
        output: &mut output,
        parallel: Parallel::serial(),
    };
    let mut scratch = AlignedBytes::zeroed(layer.scratch_bytes()).expect("no scratch memory");
    layer.forward(request, None, &mut scratch).expect("the call is sound");
    assert_eq!(output, [40.0, 50.0, 0.0, 10.0, 20.0, 30.0]);
}
