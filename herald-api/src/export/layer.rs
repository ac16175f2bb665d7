//! Engine layers: a [`LayerFactory`] as a `HeraldLayerTable`.

use std::ffi::c_void;

use crate::abi::{
    self, AbiStruct, HeraldCall, HeraldError, HeraldLayer, HeraldLayerInfo, HeraldLayerRequest,
    HeraldLayerTable, HeraldObserver, HeraldPage, HeraldTensor,
};
use crate::marshal::{catch, guard, slice, text};
use crate::sequence::{Needs, Sequences};
use crate::validate;
use crate::{
    Call, DType, EngineLayer, Error, Fetch, LayerDesc, LayerFactory, LayerParams, LayerRequest, Observer,
    PackStore, Page, Parallel, Result, Weight, WeightRole,
};

/// Scratch memory is aligned to this many bytes: a cache line, and the widest vector.
const SCRATCH_ALIGN: usize = 64;

/// No slice may be longer.
const MAX_SCRATCH: u64 = isize::MAX as u64;

/// A layer and what a call must bring, which the boundary checks for it.
struct Exported {
    layer: Box<dyn EngineLayer>,
    desc: LayerDesc,
    max_tokens: usize,
    max_workers: usize,
    /// What the layer said when it was made: what a call brings is bounded by the same numbers that the host was told.
    needs: Needs,
    scratch_bytes: usize,
    score_width: usize,
    /// The roles of the weights that it was made with.
    roles: Vec<WeightRole>,
}

struct Tables<F>(F);

impl<F: LayerFactory> Tables<F> {
    const TABLE: HeraldLayerTable = HeraldLayerTable {
        struct_size: size_of::<HeraldLayerTable>(),
        kinds: F::KINDS.as_ptr().cast(),
        n_kinds: F::KINDS.len(),
        supports: Some(supports::<F>),
        create: Some(create::<F>),
        info: Some(info),
        forward: Some(forward),
        destroy: Some(destroy),
        summarise: Some(summarise),
        observe: Some(observe::<F>),
    };
    const STATIC: &'static HeraldLayerTable = &Self::TABLE;
}

/// The C table of a factory's layers.
#[must_use]
pub fn layer_table<F: LayerFactory>() -> *const HeraldLayerTable {
    // LayerKind is repr(u32) with the ABI's numbers, so KINDS is an array of those.
    Tables::<F>::STATIC
}

unsafe extern "C" fn supports<F: LayerFactory>(
    request: *const HeraldLayerRequest,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract for both.
    unsafe { guard(error, || F::supports(&read_request(request)?)) }
}

unsafe extern "C" fn create<F: LayerFactory>(
    request: *const HeraldLayerRequest,
    out: *mut *mut HeraldLayer,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract for all three: in particular, weights hold until destroy, so 'static is as long as
    // the layer can tell.
    unsafe {
        guard(error, || {
            if out.is_null() {
                return Err(Error::invalid("layer_create was given nowhere to put the layer (out is null)"));
            }
            let request: LayerRequest<'static, '_> = read_request(request)?;
            let layer = F::create(&request)?;
            let made = Exported {
                needs: Needs {
                    state_bytes: layer.state_bytes(),
                    summary_bytes: layer.summary_bytes(),
                    page_formats: layer.page_formats(),
                    max_lora_rank: layer.max_lora_rank(),
                },
                scratch_bytes: layer.scratch_bytes(),
                score_width: layer.score_width(),
                layer,
                roles: request.weights.iter().map(|weight| weight.role).collect(),
                desc: request.desc,
                max_tokens: request.max_tokens,
                max_workers: request.max_workers,
            };
            out.write(Box::into_raw(Box::new(made)).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn info(
    layer: *const HeraldLayer,
    out: *mut HeraldLayerInfo,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the layer came from `create`.
    unsafe {
        guard(error, || {
            let Exported { layer, needs, scratch_bytes, score_width, .. } = exported(layer)?;
            let answer = HeraldLayerInfo {
                scratch_bytes: *scratch_bytes as u64,
                state_bytes: needs.state_bytes as u64,
                weight_bytes: layer.weight_bytes() as u64,
                page_formats: needs.page_formats,
                score_width: *score_width as u32,
                summary_bytes: needs.summary_bytes as u64,
                batch_invariant_tokens: u32::try_from(layer.batch_invariant_tokens()).unwrap_or(u32::MAX),
                max_lora_rank: needs.max_lora_rank as u64,
                ..AbiStruct::empty()
            };
            abi::write(out, &answer).map_err(Error::invalid)
        })
    }
}

unsafe extern "C" fn forward(
    layer: *const HeraldLayer,
    call: *const HeraldCall,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the layer came from `create`, and the call's buffers are as HeraldCall says.
    unsafe {
        guard(error, || {
            let exported = exported(layer)?;
            let call = abi::read(call).map_err(Error::invalid)?;
            let mut call = read_call(exported, &call)?;
            validate::check(&call, &exported.desc, exported.max_workers, exported.needs)?;
            validate::check_loras(&call, &exported.desc, |role| exported.roles.contains(&role))?;
            check_selectable_pages(exported, &call)?;
            exported.layer.forward(&mut call)
        })
    }
}

/// Selectable pages come with a way to fetch them, and with memory for their scores, to a layer that can choose among them.
fn check_selectable_pages(exported: &Exported, call: &Call<'_>) -> Result<()> {
    let n_pages: usize = call.sequences.iter().map(|sequence| sequence.selectable_starts().len()).sum();
    let width = exported.score_width;
    let scores = call.fetch.as_ref().map_or(0, Fetch::n_scores);
    if n_pages > 0 && (width == 0 || n_pages.checked_mul(width).is_none_or(|needed| needed > scores)) {
        return Err(Error::invalid(format!(
            "a call brought {n_pages} selectable pages and memory for {scores} scores, where {width} for each were expected"
        )));
    }
    Ok(())
}

unsafe extern "C" fn summarise(
    layer: *const HeraldLayer,
    page: *const HeraldPage,
    summary: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the layer came from `create`, the page is whole, and summary has room.
    unsafe {
        guard(error, || {
            let exported = exported(layer)?;
            let page = Page::from_raw(abi::read(page).map_err(Error::invalid)?).map_err(Error::invalid)?;
            let LayerParams::Attention(shape) = &exported.desc.params else {
                return Err(Error::unsupported("only attention makes summaries of pages"));
            };
            let slots = shape.n_kv_heads.saturating_mul(page.capacity());
            let key = shape.key_dim.saturating_mul(size_of::<i16>()).saturating_add(size_of::<f32>());
            let bytes = slots.saturating_mul(key);
            let len = exported.needs.summary_bytes;
            if page.format() != abi::HERALD_PAGE_I16
                || page.key_bytes().len() != bytes
                || page.n_tokens() != page.capacity()
                || (len > 0 && (summary.is_null() || !summary.cast::<u64>().is_aligned()))
            {
                return Err(Error::invalid(format!(
                    "a page of format {} with {} of {} tokens and {} bytes of keys was to be summarised at {summary:p}, \
                     where a whole page of format {} with {bytes} bytes of keys and aligned memory was expected",
                    page.format(),
                    page.n_tokens(),
                    page.capacity(),
                    page.key_bytes().len(),
                    abi::HERALD_PAGE_I16
                )));
            }
            let summary =
                if len == 0 { &mut [][..] } else { std::slice::from_raw_parts_mut(summary.cast(), len) };
            exported.layer.summarise(&page, summary)
        })
    }
}

unsafe extern "C" fn observe<F: LayerFactory>(
    observer: *const HeraldObserver,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract for both.
    unsafe { guard(error, || F::observe(Observer::from_raw(observer)?)) }
}

unsafe extern "C" fn destroy(layer: *mut HeraldLayer) {
    if !layer.is_null() {
        // SAFETY: the host's contract: it came from `create`, and no call is running on it. A panic in a layer's drop
        // must not cross either.
        let dropped = catch(|| unsafe { drop(Box::from_raw(layer.cast::<Exported>())) });
        if dropped.is_err() {
            super::log(super::Level::Error, "a layer panicked while it was destroyed");
        }
    }
}

/// # Safety
/// `layer` is null or came from `create`.
unsafe fn exported<'a>(layer: *const HeraldLayer) -> Result<&'a Exported> {
    // SAFETY: the host's contract: null, or what `create` gave and `destroy` hasn't had.
    unsafe { layer.cast::<Exported>().as_ref() }.ok_or_else(|| Error::invalid("the layer is null"))
}

/// # Safety
/// As `HeraldLayerRequest` says; what the request points to holds for `'w`, and what it lends for `'p`.
unsafe fn read_request<'w, 'p>(request: *const HeraldLayerRequest) -> Result<LayerRequest<'w, 'p>> {
    // SAFETY: the host's contract for HeraldLayerRequest; each struct is checked as it is read.
    unsafe {
        let raw = abi::read(request).map_err(Error::invalid)?;
        let desc = LayerDesc::from_raw(raw.desc)?;
        let weights = slice(raw.weights, raw.n_weights, "the list of weights")?
            .iter()
            .map(|weight| read_weight(*weight))
            .collect::<Result<Vec<_>>>()?;
        if raw.max_tokens == 0 || raw.max_workers == 0 || raw.page_tokens == 0 {
            return Err(Error::invalid(
                "max_tokens, max_workers or page_tokens is 0, where at least 1 was expected",
            ));
        }
        Ok(LayerRequest {
            desc,
            weights,
            max_tokens: raw.max_tokens as usize,
            max_workers: raw.max_workers as usize,
            page_tokens: raw.page_tokens as usize,
            max_lora_rank: raw.max_lora_rank as usize,
            parallel: Parallel::from_raw(raw.parallel).map_err(Error::invalid)?,
            packs: PackStore::from_raw(raw.packs)?,
        })
    }
}

/// # Safety
/// As for [`read_request`].
unsafe fn read_weight<'w>(weight: *const HeraldTensor) -> Result<Weight<'w>> {
    // SAFETY: the host's contract for HeraldTensor; struct and slices are checked as they are read.
    unsafe {
        let raw = abi::read(weight).map_err(Error::invalid)?;
        let name = text(raw.name, raw.name_len, "a weight's name")?;
        let role = WeightRole::from_code(raw.role).ok_or_else(|| {
            Error::unsupported(format!("weight {name} has role {}, which this plugin doesn't know", raw.role))
        })?;
        let dtype = DType::from_code(raw.dtype).ok_or_else(|| {
            Error::unsupported(format!(
                "weight {name} has dtype {}, which this plugin doesn't know",
                raw.dtype
            ))
        })?;
        let columns = raw.dims[0] as usize;
        let rows = raw.dims[1..].iter().try_fold(1_usize, |rows, dim| rows.checked_mul(*dim as usize));
        let row_bytes = dtype.row_bytes(columns);
        let bytes = rows.zip(row_bytes).and_then(|(rows, bytes)| rows.checked_mul(bytes));
        let (Some(rows), Some(bytes)) = (rows, bytes) else {
            return Err(Error::invalid(format!(
                "weight {name} has dimensions {:?}, which are no whole number of {dtype} blocks or overflow",
                raw.dims
            )));
        };
        if bytes as u64 != raw.data_bytes || bytes == 0 {
            return Err(Error::invalid(format!(
                "weight {name} has {} bytes, where {bytes} were expected for {rows} rows of {columns} {dtype}",
                raw.data_bytes
            )));
        }
        let bytes = slice(raw.data.cast::<u8>(), bytes, name)?;
        Ok(Weight { role, name, dtype, columns, rows, bytes })
    }
}

/// # Safety
/// As `HeraldCall` says, for the lifetime `'a`.
unsafe fn read_call<'a>(exported: &'a Exported, raw: &HeraldCall) -> Result<Call<'a>> {
    let n_tokens = raw.n_tokens;
    if n_tokens == 0 || n_tokens > exported.max_tokens {
        return Err(Error::invalid(format!(
            "a call brought {n_tokens} tokens, where 1 to {} were expected",
            exported.max_tokens
        )));
    }
    let scratch = exported.scratch_bytes;
    let aligned = !raw.scratch.is_null() && (raw.scratch as usize).is_multiple_of(SCRATCH_ALIGN);
    if scratch > 0 && (raw.scratch_bytes < scratch as u64 || raw.scratch_bytes > MAX_SCRATCH || !aligned) {
        return Err(Error::invalid(format!(
            "a call brought {} bytes of scratch memory at {:p}, where {scratch} aligned to {SCRATCH_ALIGN} were \
             expected",
            raw.scratch_bytes, raw.scratch
        )));
    }
    let hidden = exported.desc.hidden;
    let (reads_activations, width) = match &exported.desc.params {
        LayerParams::Embedding(_) => (false, hidden),
        LayerParams::Head(head) => (true, head.vocabulary),
        _ => (true, hidden),
    };
    let len = |width: usize| {
        n_tokens
            .checked_mul(width)
            .ok_or_else(|| Error::invalid(format!("{n_tokens} tokens of {width} overflow")))
    };
    // A pointer may be left out (null) where the layer's kind has no use for it.
    let optional = |pointer: *const u32| if pointer.is_null() { 0 } else { n_tokens };
    // SAFETY: the host's contract for HeraldCall; `slice` and `Sequences` check what can be checked.
    unsafe {
        if raw.output.is_null() || !raw.output.is_aligned() {
            return Err(Error::invalid(format!(
                "a call's output is at {:p}, where aligned memory was expected",
                raw.output
            )));
        }
        Ok(Call {
            n_tokens,
            tokens: slice(raw.tokens, optional(raw.tokens), "the token ids")?,
            positions: slice(raw.positions, optional(raw.positions), "the positions")?,
            input: if raw.input.is_null() || !reads_activations {
                None
            } else {
                Some(slice(raw.input, len(hidden)?, "the input activations")?)
            },
            output: std::slice::from_raw_parts_mut(raw.output, len(width)?),
            sequences: Sequences::from_raw(raw.sequences, raw.n_sequences, n_tokens, exported.needs)
                .map_err(Error::invalid)?,
            scratch: if scratch == 0 {
                &mut []
            } else {
                std::slice::from_raw_parts_mut(raw.scratch.cast(), raw.scratch_bytes as usize)
            },
            parallel: Parallel::from_raw(raw.parallel).map_err(Error::invalid)?,
            fetch: match &exported.desc.params {
                LayerParams::Attention(shape) => Fetch::from_raw(raw.fetch, n_tokens, shape, exported.needs)?,
                _ => None,
            },
        })
    }
}
