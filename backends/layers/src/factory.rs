//! The layers of a backend that brings a table of kernels.

use std::marker::PhantomData;

use herald_api::{EngineLayer, Error, LayerFactory, LayerKind, LayerParams, LayerRequest, Observer, Result};

use crate::attention::Attention;
use crate::delta_net::DeltaNet;
use crate::embedding::Embedding;
use crate::head::Head;
use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::mamba1::Mamba1;
use crate::mamba2::Mamba2;
use crate::mlp::Mlp;
use crate::moe::Moe;
use crate::observed;
use crate::per_layer_embedding::PerLayerEmbedding;
use crate::short_conv::ShortConv;

/// A backend's table of kernels, chosen once for the CPU that it runs on.
pub trait HasKernels: 'static {
    /// The table.
    fn kernels() -> &'static Kernels;
}

/// The layers of this crate over a backend's kernels.
pub struct Layers<B>(PhantomData<B>);

impl<B: HasKernels> LayerFactory for Layers<B> {
    const KINDS: &'static [LayerKind] = &LayerKind::ALL;

    fn supports(request: &LayerRequest<'_, '_>) -> Result<()> {
        // Making a layer is cheap until its matrices are packed: it reads no weights but norms and biases.
        layer(B::kernels(), request).map(drop)
    }

    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>> {
        let mut layer = layer(B::kernels(), request)?;
        for matrix in layer.matrices() {
            matrix.pack(&request.parallel, request.packs.as_ref())?;
        }
        Ok(layer)
    }

    fn observe(observer: Option<Observer>) -> Result<()> {
        observed::set(observer);
        Ok(())
    }
}

fn layer<'w>(kernels: &'static Kernels, request: &LayerRequest<'w, '_>) -> Result<Box<dyn Layer<'w> + 'w>> {
    Ok(match &request.desc.params {
        LayerParams::Attention(params) => Box::new(Attention::new(kernels, request, params)?),
        LayerParams::Mlp(params) => Box::new(Mlp::new(kernels, request, params)?),
        LayerParams::Embedding(params) => Box::new(Embedding::new(kernels, request, params)?),
        LayerParams::Head(params) => Box::new(Head::new(kernels, request, params)?),
        LayerParams::Mamba1(params) => Box::new(Mamba1::new(kernels, request, params)?),
        LayerParams::Mamba2(params) => Box::new(Mamba2::new(kernels, request, params)?),
        LayerParams::ShortConv(params) => Box::new(ShortConv::new(kernels, request, params)?),
        LayerParams::Moe(params) => Box::new(Moe::new(kernels, request, params)?),
        LayerParams::PerLayerEmbedding(params) => Box::new(PerLayerEmbedding::new(kernels, request, params)?),
        LayerParams::DeltaNet(params) => Box::new(DeltaNet::new(kernels, request, params)?),
        other => {
            return Err(Error::unsupported(format!("{} has no layers of the kind {other:?}", kernels.name)));
        }
    })
}
