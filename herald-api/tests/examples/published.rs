//! Plugins that were built against the headers of earlier versions, as they were shipped: they load and run unchanged.

use std::path::Path;

use herald_api::import::Plugin;
use herald_api::{DecodeOptions, EncodeOptions, Hardware, LayerKind, Tokenizer, Vocabulary};

use crate::layer::{an_mlp_runs, mlps_are_the_reference};
use crate::load;

fn published(file: &str) -> Plugin {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/abi").join(file))
}

#[test]
fn of_version_0_1_0() {
    let plugin = published("libherald_example_c.v0.1.0.so");
    assert_eq!((plugin.name(), plugin.version()), ("example-c", "1.0.0"));
    assert_eq!(plugin.layer_kinds(), [LayerKind::Mlp]);
    assert!(plugin.offers_tokenizers() && plugin.tier_kinds().is_empty());
    let probe = plugin.probe(&Hardware::detect(2, 0)).expect("it runs anywhere");
    assert_eq!((probe.score, probe.variant.as_str()), (50, "c"));

    an_mlp_runs(&plugin);
    mlps_are_the_reference(&plugin);

    let tokens: Vec<&[u8]> = vec![b"a", b"b", b"ab", b"abab", b"\n"];
    let vocabulary = Vocabulary { model: "longest-match", tokens, ..Vocabulary::default() };
    let tokenizer = plugin.create_tokenizer(&vocabulary).expect("the tokenizer");
    let mut ids = Vec::new();
    tokenizer.encode("ababab\nb", EncodeOptions::default(), &mut ids).expect("ids");
    assert_eq!(ids, [3, 2, 4, 1]);
    let mut bytes = Vec::new();
    tokenizer.decode(&ids, DecodeOptions::default(), &mut bytes).expect("bytes");
    assert_eq!(bytes, b"ababab\nb");
}
