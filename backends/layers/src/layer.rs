//! What a layer of this crate offers beside the interface that hosts see.

use herald_api::EngineLayer;

use crate::linear::Linear;

/// A layer over a backend's kernels, whose matrices may still have to be packed.
pub(crate) trait Layer<'w>: EngineLayer {
    /// The matrices that it multiplies with.
    fn matrices(&mut self) -> Vec<&mut Linear<'w>>;
}
