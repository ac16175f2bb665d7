//! The engine-layer interface: layers and who makes them.

use crate::{
    Call, DType, Error, LayerDesc, LayerKind, Observer, PackStore, Page, Parallel, Result, WeightRole,
};

/// One weight: a view of the model file's bytes, whose size has been checked against its shape.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'w> {
    /// What the layer uses it for.
    pub role: WeightRole,
    /// The tensor's name in the model file.
    pub name: &'w str,
    /// The element type.
    pub dtype: DType,
    /// Elements of a row.
    pub columns: usize,
    /// Rows: the product of the other dimensions.
    pub rows: usize,
    /// The rows' bytes, one after another, at no particular alignment.
    pub bytes: &'w [u8],
}

/// A layer that the host wants.
#[derive(Clone, Debug)]
pub struct LayerRequest<'w, 'p> {
    /// Its description.
    pub desc: LayerDesc,
    /// Its weights.
    pub weights: Vec<Weight<'w>>,
    /// The most tokens that a forward call will bring.
    pub max_tokens: usize,
    /// The most workers that a forward call will bring.
    pub max_workers: usize,
    /// Tokens of a KV page.
    pub page_tokens: usize,
    /// The largest rank of the low-rank updates that forward calls will bring ([`crate::Sequence::loras`]); 0: they bring none.
    pub max_lora_rank: usize,
    /// Threads to prepare weights with.
    pub parallel: Parallel<'p>,
    /// Where the host keeps packed weights, where it does.
    pub packs: Option<PackStore<'w, 'p>>,
}

/// A backend's engine layers. The implementing type carries no data: it names the functions of a table.
pub trait LayerFactory: 'static {
    /// The kinds that it offers, at least in some forms.
    const KINDS: &'static [LayerKind];

    /// Whether [`LayerFactory::create`] would accept the request; cheap, reads no weight data.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] with what is missing, or [`crate::Status::InvalidArgument`].
    fn supports(request: &LayerRequest<'_, '_>) -> Result<()>;

    /// Makes a layer, which may keep views of the weights.
    ///
    /// # Errors
    /// As [`LayerFactory::supports`], and [`crate::Status::OutOfMemory`].
    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>>;

    /// Shows this observer each product of a weight matrix from then on, in place of an earlier one; `None`: nobody. When it
    /// returns, nothing is being shown to an earlier one any more.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] where layers don't show their products.
    fn observe(_observer: Option<Observer>) -> Result<()> {
        Err(Error::unsupported("its layers don't show what they multiply"))
    }
}

/// A layer of a model. It doesn't change: calls may come from many threads at once, each with its own buffers.
pub trait EngineLayer: Send + Sync {
    /// Bytes of scratch memory that a call of `max_tokens` needs.
    fn scratch_bytes(&self) -> usize;

    /// Bytes of recurrent state for each sequence.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Bytes that the layer itself allocated for weights.
    fn weight_bytes(&self) -> usize {
        0
    }

    /// Formats of whole pages that it reads besides 16-bit integers: bit `HERALD_PAGE_*` of each.
    fn page_formats(&self) -> u32 {
        0
    }

    /// Float32 elements of scores that it works in for each selectable page; 0: it does no page selection.
    fn score_width(&self) -> usize {
        0
    }

    /// Bytes of a page's summary; 0: it makes none.
    fn summary_bytes(&self) -> usize {
        0
    }

    /// Where a sequence has at most this many tokens in a call, the results and the state are, to the bit, those of one call a
    /// token, whatever other sequences' tokens are in the call; 0: not promised.
    fn batch_invariant_tokens(&self) -> usize {
        0
    }

    /// The largest rank of low-rank updates that it adds to its products ([`crate::Sequence::loras`]): at least what was asked for,
    /// or 0: it adds none, and is brought none.
    fn max_lora_rank(&self) -> usize {
        0
    }

    /// Makes the summary of a whole page, by which the layer later scores it.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] where it makes none.
    fn summarise(&self, _page: &Page<'_>, _summary: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("the layer makes no summaries of pages"))
    }

    /// Runs the layer over a batch. Allocates nothing.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the call contradicts the layer's contract.
    fn forward(&self, call: &mut Call<'_>) -> Result<()>;
}
