//! Handles whose insides only the plugin that made them knows. The header forward-declares them (C has no way to write
//! an empty struct), so they stand apart from the types that it is generated from.

/// A layer, known only to the plugin that made it.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayer {
    _private: [u8; 0],
}

/// A tokenizer, known only to the plugin that made it.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTokenizer {
    _private: [u8; 0],
}

/// A memory tier, known only to the plugin that made it.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTier {
    _private: [u8; 0],
}
