//! What a model's file says of the model, for the commands that show it.

use std::collections::BTreeMap;

use herald::gguf::Gguf;

/// Names of `general.file_type`, as llama.cpp gives them.
const FILE_TYPES: [(u32, &str); 36] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];

/// The number of its parameters.
pub(super) fn parameters(gguf: &Gguf) -> usize {
    gguf.tensors().map(|tensor| tensor.elements()).sum()
}

/// Its element types by name, each with the number of its tensors and their bytes.
pub(super) fn types(gguf: &Gguf) -> BTreeMap<&'static str, (usize, usize)> {
    let mut types: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let entry = types.entry(tensor.dtype().name()).or_default();
        *entry = (entry.0 + 1, entry.1 + tensor.bytes());
    }
    types
}

/// A text of its metadata.
pub(super) fn text<'a>(gguf: &'a Gguf, key: &str) -> Option<&'a str> {
    gguf.metadata().get::<&str>(key).ok().flatten().filter(|text| !text.is_empty())
}

/// Its architecture.
pub(super) fn architecture(gguf: &Gguf) -> Option<&str> {
    text(gguf, "general.architecture")
}

/// The tokens that it was trained for.
pub(super) fn context(gguf: &Gguf) -> Option<u64> {
    let key = format!("{}.context_length", architecture(gguf)?);
    gguf.metadata().get::<u64>(&key).ok().flatten()
}

/// Its quant: as the file says, or else the type of most of its bytes.
pub(super) fn quant(gguf: &Gguf) -> String {
    let said = gguf.metadata().get::<u32>("general.file_type").ok().flatten();
    let named =
        FILE_TYPES.iter().find(|(number, _)| Some(*number) == said).map(|(_, name)| (*name).to_owned());
    let most = || types(gguf).into_iter().max_by_key(|(_, (_, bytes))| *bytes);
    named.or_else(|| most().map(|(name, _)| name.to_owned())).unwrap_or_default()
}

/// Its licence, with where that is.
pub(super) fn licence(gguf: &Gguf) -> (Option<&str>, Option<&str>) {
    let name = text(gguf, "general.license").filter(|licence| *licence != "other");
    (name.or_else(|| text(gguf, "general.license.name")), text(gguf, "general.license.link"))
}

/// A count of parameters in millions or billions, as models are called.
pub(super) fn rounded(parameters: usize) -> String {
    match parameters {
        0..1_000_000_000 => format!("{:.1} million", parameters as f64 / 1e6),
        _ => format!("{:.2} billion", parameters as f64 / 1e9),
    }
}
