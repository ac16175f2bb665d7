//! Layers of a plugin.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::forward::{Batch, Fetcher, Forward};
use super::page::PageHandle;
use super::weight::{SharedWeight, check_weight, raw_weight};
use super::{Inner, Plugin, refused};
use crate::abi::{
    self, AbiStruct, HeraldCall, HeraldError, HeraldFetch, HeraldLayer, HeraldLayerInfo, HeraldLayerRequest,
    HeraldObserver, HeraldTensor,
};
use crate::marshal::{guard, try_call};
use crate::observer::{self, Watch};
use crate::packs;
use crate::sequence::{Needs, Sequences, check_pages};
use crate::validate;
use crate::{
    AlignedBytes, Attention, Call, Error, LayerDesc, LayerParams, PackKeeper, Parallel, Product, Result,
    Status,
};

/// No layer is believed that asks for more scratch memory or state than this.
const MAX_BYTES: u64 = 1 << 34;

/// Nor one that wants to work in more floats for each selectable page than this.
const MAX_SCORE_WIDTH: u32 = 1 << 16;

/// A layer that the host wants.
#[derive(Clone)]
pub struct LayerSpec {
    /// Its description.
    pub desc: LayerDesc,
    /// Its weights.
    pub weights: Vec<SharedWeight>,
    /// The most tokens that a forward call will bring.
    pub max_tokens: usize,
    /// The most workers that a forward call will bring.
    pub max_workers: usize,
    /// Tokens of a KV page.
    pub page_tokens: usize,
    /// The largest rank of the low-rank updates that forward calls will bring ([`Batch::push_lora`]); 0: they bring none.
    pub max_lora_rank: usize,
    /// Where packed weights are kept; `None`: nowhere.
    pub packs: Option<Arc<dyn PackKeeper>>,
}

/// A layer that a plugin made.
pub struct LayerHandle {
    raw: NonNull<HeraldLayer>,
    plugin: Arc<Inner>,
    spec: LayerSpec,
    scratch_bytes: usize,
    weight_bytes: usize,
    score_width: usize,
    batch_invariant_tokens: usize,
    needs: Needs,
}

// SAFETY: the ABI's contract: any thread may call forward and destroy, and forward doesn't change the layer.
unsafe impl Send for LayerHandle {}
// SAFETY: as for Send.
unsafe impl Sync for LayerHandle {}

/// A plugin that shows what its layers multiply, until this is dropped.
#[must_use = "products are shown until it is dropped"]
pub struct Observing {
    plugin: Arc<Inner>,
    /// Where the plugin has its address; taken where the plugin may go on using it.
    watch: Option<Box<Watch>>,
}

impl Drop for Observing {
    fn drop(&mut self) {
        let stopped = observe(&self.plugin, std::ptr::null());
        if let (Err(_), Some(watch)) = (stopped, self.watch.take()) {
            Box::leak(watch);
        }
    }
}

/// Calls the plugin's `observe`.
fn observe(plugin: &Inner, observer: *const HeraldObserver) -> Result<()> {
    let Some(observe) = plugin.layers.as_ref().and_then(|table| table.observe) else {
        return Err(Error::unsupported("its layers don't show what they multiply"));
    };
    // SAFETY: the ABI's contract; the observer is null, or good until the next one.
    try_call(|error| unsafe { observe(observer, error) })
}

impl LayerHandle {
    /// Has the layer's plugin show each product of a weight matrix that any of its layers computes to a closure, from any thread,
    /// before it is computed. The plugin shows them to one closure at a time: the last.
    ///
    /// # Errors
    /// [`Status::Unsupported`] where it doesn't show them.
    pub fn observe(&self, watch: Arc<dyn Fn(&Product<'_>) + Send + Sync>) -> Result<Observing> {
        let watch = Box::new(watch);
        observe(&self.plugin, &observer::raw(&watch))?;
        Ok(Observing { plugin: Arc::clone(&self.plugin), watch: Some(watch) })
    }
}

impl Plugin {
    /// Whether the plugin would make this layer. One that has no `supports` is taken to support its kinds.
    ///
    /// # Errors
    /// [`Status::Unsupported`] with what is missing; otherwise as the plugin failed.
    pub fn supports_layer(&self, spec: &LayerSpec, parallel: Parallel<'_>) -> Result<()> {
        let kind = spec.desc.kind();
        let Some(table) = self.0.layers.as_ref().filter(|_| self.0.layer_kinds.contains(&(kind as u32)))
        else {
            return Err(Error::unsupported(format!("{} offers no {} layers", self.name(), kind.name())));
        };
        let Some(supports) = table.supports else { return Ok(()) };
        with_request(spec, parallel, |request| {
            // SAFETY: the ABI's contract; everything that the request points to lives for the call.
            try_call(|error| unsafe { supports(request, error) })
        })
    }

    /// Has the plugin make a layer, and checks what it says the layer needs.
    ///
    /// # Errors
    /// [`Status::Unsupported`] where it doesn't offer this one; any other failure is the plugin's fault.
    pub fn create_layer(&self, spec: LayerSpec, parallel: Parallel<'_>) -> Result<LayerHandle> {
        self.supports_layer(&spec, parallel)?;
        let table = self.0.layers.as_ref().filter(|table| table.destroy.is_some());
        let Some((table, create, info)) = table.and_then(|table| Some((table, table.create?, table.info?)))
        else {
            return Err(Error::unsupported(format!("{} offers no layers", self.name())));
        };
        let mut raw = std::ptr::null_mut();
        with_request(&spec, parallel, |request| {
            // SAFETY: the ABI's contract. The layer may keep the weights' bytes and names and its
            // packed weights, which `spec` keeps alive and where they are: the handle drops it after the layer.
            try_call(|error| unsafe { create(request, &mut raw, error) })
        })?;
        let raw = NonNull::new(raw)
            .ok_or_else(|| refused("its layer_create succeeded without a layer".to_owned()))?;
        let mut handle = LayerHandle {
            raw,
            plugin: Arc::clone(&self.0),
            spec,
            scratch_bytes: 0,
            weight_bytes: 0,
            score_width: 0,
            batch_invariant_tokens: 0,
            needs: Needs::default(),
        };
        debug_assert!(table.forward.is_some());
        let mut answer: HeraldLayerInfo = AbiStruct::empty();
        // SAFETY: the ABI's contract; the answer is our own.
        try_call(|error| unsafe { info(raw.as_ptr(), &mut answer, error) })?;
        for (bytes, what) in [
            (answer.scratch_bytes, "scratch memory"),
            (answer.state_bytes, "recurrent state"),
            (answer.summary_bytes, "summaries"),
        ] {
            if bytes > MAX_BYTES {
                return Err(refused(format!(
                    "its {} layer asks for {bytes} bytes of {what}, where at most {MAX_BYTES} were expected",
                    handle.spec.desc.kind().name()
                )));
            }
        }
        if !answer.summary_bytes.is_multiple_of(8) || answer.score_width > MAX_SCORE_WIDTH {
            return Err(refused(format!(
                "its {} layer asks for summaries of {} bytes and {} scores a page, where a multiple of 8 and at most \
                 {MAX_SCORE_WIDTH} were expected",
                handle.spec.desc.kind().name(),
                answer.summary_bytes,
                answer.score_width
            )));
        }
        // A layer chooses pages where it has all that this takes.
        let chooses = table.summarise.is_some() && answer.score_width > 0;
        handle.needs = Needs {
            state_bytes: answer.state_bytes as usize,
            summary_bytes: if chooses { answer.summary_bytes as usize } else { 0 },
            page_formats: answer.page_formats,
            max_lora_rank: usize::try_from(answer.max_lora_rank).unwrap_or(usize::MAX),
        };
        handle.score_width = answer.score_width as usize;
        handle.batch_invariant_tokens = answer.batch_invariant_tokens as usize;
        handle.scratch_bytes = answer.scratch_bytes as usize;
        handle.weight_bytes = usize::try_from(answer.weight_bytes).unwrap_or(usize::MAX);
        Ok(handle)
    }
}

impl LayerHandle {
    /// The description that it was made from.
    #[must_use]
    pub fn desc(&self) -> &LayerDesc {
        &self.spec.desc
    }

    /// The name of the plugin that made it.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin.name
    }

    /// Bytes of scratch memory that a call needs.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// Bytes of recurrent state for each sequence.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.needs.state_bytes
    }

    /// Bytes that the layer says it allocated for weights.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Whether it reads whole pages of this format (`HERALD_PAGE_*`).
    #[must_use]
    pub fn reads(&self, format: u32) -> bool {
        format == abi::HERALD_PAGE_I16 || (format < 32 && self.needs.page_formats & (1 << format) != 0)
    }

    /// Bytes of a page's summary; 0: the layer does no page selection.
    #[must_use]
    pub fn summary_bytes(&self) -> usize {
        self.needs.summary_bytes
    }

    /// The most tokens of a sequence in a call that get, to the bit, the results and the state of one call a token; 0: not promised.
    #[must_use]
    pub fn batch_invariant_tokens(&self) -> usize {
        self.batch_invariant_tokens
    }

    /// The largest rank of low-rank updates that it adds to its products; 0: it adds none.
    #[must_use]
    pub fn max_lora_rank(&self) -> usize {
        self.needs.max_lora_rank
    }

    /// Has the layer summarise a whole page that begins at token `start`, into `summary_bytes` bytes aligned to 8.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] where the memory is not so much, or the page not of the layer's shape in 16-bit integers;
    /// otherwise as the plugin failed.
    pub fn summarise(&self, page: &PageHandle, start: usize, summary: &mut [u8]) -> Result<()> {
        let table = self.plugin.layers.as_ref();
        let Some(summarise) = table.and_then(|table| table.summarise).filter(|_| self.summary_bytes() > 0)
        else {
            return Err(Error::unsupported("the layer makes no summaries of pages"));
        };
        if summary.len() != self.summary_bytes() || !summary.as_ptr().cast::<u64>().is_aligned() {
            return Err(Error::invalid(format!(
                "a summary has {} bytes, where {} at an aligned address were expected",
                summary.len(),
                self.summary_bytes()
            )));
        }
        let shape = self.attention()?;
        let bytes = page_bytes(shape, page.capacity());
        let found = (page.bytes().0.len(), page.bytes().1.len());
        if page.format() != abi::HERALD_PAGE_I16 || bytes != Some(found) {
            return Err(Error::invalid(format!(
                "a page of format {} with {found:?} bytes of keys and values was to be summarised, where format {} with \
                 {bytes:?} was expected",
                page.format(),
                abi::HERALD_PAGE_I16
            )));
        }
        let mut raw = page.raw();
        raw.start = start as u64;
        raw.n_tokens = raw.capacity;
        // SAFETY: the ABI's contract: the page and the memory for the summary are borrowed for the call.
        try_call(|error| unsafe { summarise(self.raw.as_ptr(), &raw, summary.as_mut_ptr().cast(), error) })
    }

    /// The shape of what chooses pages.
    fn attention(&self) -> Result<&Attention> {
        match &self.spec.desc.params {
            LayerParams::Attention(shape) => Ok(shape),
            _ => Err(Error::unsupported("only attention chooses pages")),
        }
    }

    /// Elements of a token's output: the hidden size, or the head's vocabulary.
    #[must_use]
    pub fn output_width(&self) -> usize {
        match &self.spec.desc.params {
            LayerParams::Head(head) => head.vocabulary,
            _ => self.spec.desc.hidden,
        }
    }

    /// Runs the layer over a batch.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] where the call's shapes are wrong; otherwise as the plugin failed.
    pub fn forward(
        &self,
        request: Forward<'_>,
        batch: Option<&mut Batch<'_>>,
        scratch: &mut AlignedBytes,
    ) -> Result<()> {
        self.forward_fetching(request, batch, scratch, None)
    }

    /// As [`LayerHandle::forward`]; `fetcher` brings selected pages; without one the batch may have no selectable pages.
    ///
    /// # Errors
    /// As [`LayerHandle::forward`], and as the fetcher failed.
    pub fn forward_fetching(
        &self,
        request: Forward<'_>,
        mut batch: Option<&mut Batch<'_>>,
        scratch: &mut AlignedBytes,
        fetcher: Option<&mut dyn Fetcher>,
    ) -> Result<()> {
        let n_tokens = request.n_tokens;
        self.check_lengths(&request, scratch.len())?;
        let params = &self.spec.desc.params;
        let residual = !matches!(params, LayerParams::Embedding(_) | LayerParams::Head(_));
        let list: &[*const abi::HeraldSequence] = match batch.as_deref_mut().filter(|_| residual) {
            Some(batch) => {
                let list = batch.sequences(n_tokens, self.needs, false)?;
                // SAFETY: the list is the batch's own, which stays borrowed during the call and makes another one where pages
                // are fetched.
                unsafe { std::slice::from_raw_parts(list.as_ptr(), list.len()) }
            }
            None => &[],
        };
        // SAFETY: the list is the batch's own, which holds what it points to.
        let sequences = unsafe {
            Sequences::from_raw(list.as_ptr(), list.len(), n_tokens, self.needs).map_err(Error::invalid)?
        };
        let call = Call {
            n_tokens,
            tokens: request.tokens,
            positions: request.positions,
            input: request.input,
            output: request.output,
            sequences,
            scratch,
            parallel: request.parallel,
            fetch: None,
        };
        validate::check(&call, &self.spec.desc, self.spec.max_workers, self.needs)?;
        let has_weight = |role| self.spec.weights.iter().any(|weight| weight.role == role);
        validate::check_loras(&call, &self.spec.desc, has_weight)?;
        let selects = call.sequences.iter().any(|sequence| !sequence.selectable_starts().is_empty());
        if !selects {
            return self.forward_call(call, list, std::ptr::null());
        }
        let (Some(batch), Some(fetcher)) = (batch, fetcher.filter(|_| self.summary_bytes() > 0)) else {
            return Err(Error::invalid(
                "selectable pages came without anyone to fetch them, or to a layer that can't choose",
            ));
        };
        let shape = self.attention()?;
        let (scores, n_scores) = batch.scores(self.score_width)?;
        let mut fetching = Fetching { batch, fetcher: Some(fetcher), n_tokens, shape, needs: self.needs };
        let raw = HeraldFetch {
            context: (&raw mut fetching).cast(),
            scores,
            n_scores,
            run: Some(fetch),
            ..AbiStruct::empty()
        };
        self.forward_call(call, list, &raw)
    }

    /// Checks that the request's buffers fit each other and the layer.
    fn check_lengths(&self, request: &Forward<'_>, scratch_bytes: usize) -> Result<()> {
        let n_tokens = request.n_tokens;
        let is = |len: usize, width: usize| n_tokens.checked_mul(width) == Some(len);
        let ids_fit = |ids: &[u32]| ids.is_empty() || ids.len() == n_tokens;
        let hidden = self.spec.desc.hidden;
        let fits = match &self.spec.desc.params {
            LayerParams::Embedding(_) => request.tokens.len() == n_tokens,
            LayerParams::Head(_) => request.input.is_some_and(|input| is(input.len(), hidden)),
            _ => request.input.is_none_or(|input| is(input.len(), hidden)),
        };
        let within = (1..=self.spec.max_tokens).contains(&n_tokens) && scratch_bytes >= self.scratch_bytes;
        let output_fits = is(request.output.len(), self.output_width());
        if within && fits && output_fits && ids_fit(request.tokens) && ids_fit(request.positions) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a call of the {} layer of block {} brought {n_tokens} tokens (of at most {}), {} ids, {} positions, {} \
             activations, room for {} results and {scratch_bytes} bytes of scratch memory (of at least {}), which don't \
             fit each other",
            self.spec.desc.kind().name(),
            self.spec.desc.block,
            self.spec.max_tokens,
            request.tokens.len(),
            request.positions.len(),
            request.input.map_or(0, <[f32]>::len),
            request.output.len(),
            self.scratch_bytes
        )))
    }

    fn forward_call(
        &self,
        request: Call<'_>,
        sequences: &[*const abi::HeraldSequence],
        fetch: *const HeraldFetch,
    ) -> Result<()> {
        let ids = |ids: &[u32]| if ids.is_empty() { std::ptr::null() } else { ids.as_ptr() };
        let raw = HeraldCall {
            n_tokens: request.n_tokens,
            tokens: ids(request.tokens),
            positions: ids(request.positions),
            input: request.input.map_or(std::ptr::null(), <[f32]>::as_ptr),
            output: request.output.as_mut_ptr(),
            sequences: sequences.as_ptr(),
            n_sequences: sequences.len(),
            scratch: request.scratch.as_mut_ptr().cast(),
            scratch_bytes: request.scratch.len() as u64,
            parallel: request.parallel.raw(),
            fetch,
            ..AbiStruct::empty()
        };
        let forward = self.plugin.layers.as_ref().and_then(|table| table.forward);
        let forward =
            forward.ok_or_else(|| Error::new(Status::Internal, "the plugin has no forward function"))?;
        // SAFETY: the ABI's contract. Every buffer has the size that the call states, output and scratch are borrowed
        // mutably (through `Call`), and pages and states are held by the batch.
        try_call(|error| unsafe { forward(self.raw.as_ptr(), &raw, error) })
    }
}

/// What a call for pages works with.
struct Fetching<'f, 'b> {
    batch: &'f mut Batch<'b>,
    /// `None` once it was called.
    fetcher: Option<&'f mut dyn Fetcher>,
    n_tokens: usize,
    shape: &'f Attention,
    needs: Needs,
}

unsafe extern "C" fn fetch(
    context: *mut c_void,
    sequences: *mut *const *const abi::HeraldSequence,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the plugin's contract: the context that it was lent, on the call's thread, once; sequences is its own.
    unsafe {
        guard(error, || {
            let fetching = &mut *context.cast::<Fetching<'_, '_>>();
            if sequences.is_null() {
                return Err(Error::invalid("HeraldFetch was given nowhere to put the sequences"));
            }
            let Some(fetcher) = fetching.fetcher.take() else {
                return Err(Error::invalid(
                    "HeraldFetch was called twice in a call, where once was expected",
                ));
            };
            let n_pages: usize = fetching.batch.n_selectable().iter().sum();
            let scores = fetching.batch.take_scores();
            let fetched = fetcher.fetch(&scores[..n_pages.min(scores.len())], fetching.batch);
            fetching.batch.give_scores(scores);
            fetched?;
            let list = fetching.batch.sequences(fetching.n_tokens, fetching.needs, true)?;
            // What was fetched is checked as what the call began with.
            let made = Sequences::from_raw(list.as_ptr(), list.len(), fetching.n_tokens, fetching.needs);
            for sequence in made.map_err(Error::invalid)?.iter() {
                check_pages(&sequence, fetching.shape, fetching.needs.page_formats)
                    .map_err(Error::invalid)?;
            }
            sequences.write(list.as_ptr());
            Ok(())
        })
    }
}

/// Bytes of the keys and values of an attention layer's page in 16-bit integers; `None` where that overflows.
fn page_bytes(shape: &Attention, capacity: usize) -> Option<(usize, usize)> {
    let bytes = |dim: usize| {
        let slot = dim.checked_mul(size_of::<i16>())?.checked_add(size_of::<f32>())?;
        shape.n_kv_heads.checked_mul(capacity)?.checked_mul(slot)
    };
    Some((bytes(shape.key_dim)?, bytes(shape.value_dim)?))
}

impl Drop for LayerHandle {
    fn drop(&mut self) {
        if let Some(destroy) = self.plugin.layers.as_ref().and_then(|table| table.destroy) {
            // SAFETY: the layer came from this plugin, and `self` is the only handle to it.
            unsafe { destroy(self.raw.as_ptr()) };
        }
    }
}

/// Builds the C request, which lives for the call of `body`, once the spec is known to fit it.
fn with_request(
    spec: &LayerSpec,
    parallel: Parallel<'_>,
    body: impl FnOnce(*const HeraldLayerRequest) -> Result<()>,
) -> Result<()> {
    let number = |value: usize, what: &str| {
        u32::try_from(value).map_err(|_| {
            let most = u32::MAX;
            Error::invalid(format!(
                "a layer was asked for with {value} {what}, where at most {most} were expected"
            ))
        })
    };
    let (max_tokens, max_workers) =
        (number(spec.max_tokens, "tokens")?, number(spec.max_workers, "workers")?);
    let page_tokens = number(spec.page_tokens, "tokens of a page")?;
    spec.weights.iter().try_for_each(check_weight)?;
    // SAFETY: the description is our own, which lives for the call.
    let same = spec.desc.with_raw(|raw| unsafe { LayerDesc::from_raw(raw) })?;
    if sizes(&same) != sizes(&spec.desc) {
        return Err(Error::invalid(format!(
            "a layer's description has the sizes {:?}, numbers past those of the ABI, which would make them {:?}",
            sizes(&spec.desc),
            sizes(&same)
        )));
    }
    let weights: Vec<HeraldTensor> = spec.weights.iter().map(raw_weight).collect();
    let pointers: Vec<*const HeraldTensor> = weights.iter().map(std::ptr::from_ref).collect();
    let store = spec.packs.as_ref().map(packs::raw);
    spec.desc.with_raw(|desc| {
        body(&HeraldLayerRequest {
            desc,
            weights: pointers.as_ptr(),
            n_weights: pointers.len(),
            parallel: parallel.raw(),
            max_tokens,
            max_workers,
            page_tokens,
            max_lora_rank: spec.max_lora_rank as u64,
            packs: store.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            ..AbiStruct::empty()
        })
    })
}

/// What of a description bounds a call's buffers.
fn sizes(desc: &LayerDesc) -> [usize; 5] {
    let [a, b, c, d] = match &desc.params {
        LayerParams::Embedding(embedding) => [embedding.vocabulary, 0, 0, 0],
        LayerParams::Head(head) => [head.vocabulary, 0, 0, 0],
        LayerParams::Attention(shape) => [shape.n_heads, shape.n_kv_heads, shape.key_dim, shape.value_dim],
        _ => [0; 4],
    };
    [desc.hidden, a, b, c, d]
}
