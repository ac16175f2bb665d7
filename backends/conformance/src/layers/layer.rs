//! A layer that a plugin made, through its C table: what was asked, what it answered, and whether both fit.

use std::ffi::c_char;
use std::ptr::{self, NonNull};

use herald_api::abi::{
    AbiStruct, HERALD_STATUS_INVALID_ARGUMENT, HERALD_STATUS_OK, HERALD_STATUS_UNSUPPORTED, HeraldError,
    HeraldLayer, HeraldLayerDesc, HeraldLayerInfo, HeraldLayerRequest, HeraldLayerTable, HeraldTensor,
};
use herald_api::import::Plugin;
use herald_api::{DType, LayerDesc, WeightRole};

use super::structs::{Age, Structs};
use crate::guard::{Guarded, Place};
use crate::hooks::{Counters, Watch};
use crate::pool::{Lent, Pool, Sharing};
use crate::{Fault, Outcome};

/// The most scratch memory or state that is believed of the small layers that are checked.
const MAX_BYTES: u64 = 1 << 28;

/// A plugin's layers, with what checks lend to it.
#[derive(Clone, Copy)]
pub(super) struct Maker<'p> {
    pub(super) table: &'p HeraldLayerTable,
    pub(super) pool: &'p Pool,
    /// The process runs nothing but the checks, so its threads and its memory tell about the plugin.
    pub(super) alone: bool,
}

/// A weight of a layer.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) role: WeightRole,
    pub(super) dtype: DType,
    /// A row's length first.
    pub(super) dims: Vec<usize>,
    pub(super) bytes: Vec<u8>,
    pub(super) name: String,
}

/// The largest calls that a layer is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_tokens: usize,
    pub(super) max_workers: usize,
    pub(super) page_tokens: usize,
}

/// Changes the weights of a request.
pub(super) type Spoil<'s> = dyn Fn(&mut Vec<HeraldTensor>) + 's;

/// What a plugin is asked to make.
pub(super) struct Order<'o> {
    pub(super) desc: &'o LayerDesc,
    pub(super) tensors: &'o [Tensor],
    pub(super) limits: Limits,
    pub(super) age: Age,
    /// What is changed about the weights, which are otherwise sound.
    pub(super) spoil: Option<&'o Spoil<'o>>,
    /// A kind in place of the layer's own.
    pub(super) kind: Option<u32>,
    /// A number in place of one of the kind's parameters: its offset, and the number.
    pub(super) parameter: Option<(usize, u32)>,
    /// Whether it gets a buffer for a sentence.
    pub(super) with_error: bool,
}

impl<'o> Order<'o> {
    pub(super) fn new(desc: &'o LayerDesc, tensors: &'o [Tensor], limits: Limits) -> Self {
        Self {
            desc,
            tensors,
            limits,
            age: Age::Today,
            spoil: None,
            kind: None,
            parameter: None,
            with_error: true,
        }
    }
}

/// A status other than OK, with its sentence.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u32,
    pub(super) sentence: String,
}

/// A layer, with the weights that it may go on reading.
pub(super) struct Layer<'p> {
    pub(super) maker: Maker<'p>,
    raw: NonNull<HeraldLayer>,
    pub(super) info: HeraldLayerInfo,
    pub(super) desc: LayerDesc,
    _weights: Weights,
}

// SAFETY: the ABI's contract: any thread may call forward, and any number at once: a layer doesn't change.
unsafe impl Sync for Layer<'_> {}

impl Layer<'_> {
    pub(super) fn raw(&self) -> *mut HeraldLayer {
        self.raw.as_ptr()
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        if let Some(destroy) = self.maker.table.destroy {
            // SAFETY: the layer came from this plugin, and nothing else refers to it.
            unsafe { destroy(self.raw.as_ptr()) };
        }
    }
}

/// Read-only copies of weights' bytes.
struct Weights {
    kept: Vec<Guarded>,
    raw: Vec<HeraldTensor>,
}

impl Weights {
    fn new(tensors: &[Tensor]) -> Result<Self, Outcome> {
        let mut weights = Self { kept: Vec::new(), raw: Vec::new() };
        for tensor in tensors {
            // Files keep them at any alignment: they end where readable memory does.
            let data = Guarded::copy_of("a weight", &tensor.bytes, 1, Place::High)?;
            let name = Guarded::copy_of("a weight's name", tensor.name.as_bytes(), 1, Place::High)?;
            let mut dims = [1; 4];
            dims.iter_mut().zip(&tensor.dims).for_each(|(to, from)| *to = *from as u64);
            weights.raw.push(HeraldTensor {
                role: tensor.role as u32,
                dtype: tensor.dtype.code(),
                n_dims: tensor.dims.len() as u32,
                dims,
                data: data.pointer().cast_const().cast(),
                data_bytes: data.len() as u64,
                name: name.pointer().cast_const().cast::<c_char>(),
                name_len: name.len(),
                ..AbiStruct::empty()
            });
            weights.kept.extend([data, name]);
        }
        Ok(weights)
    }
}

/// A request for a layer, with all that it points to.
pub(super) struct Request<'r> {
    pub(super) raw: *const HeraldLayerRequest,
    weights: Weights,
    structs: Structs,
    lent: Box<Lent<'r>>,
}

/// A buffer for a plugin's sentence, between guard pages.
pub(super) struct Sentence {
    kept: Guarded,
}

impl Sentence {
    pub(super) fn new() -> Result<Self, Outcome> {
        let size = size_of::<HeraldError>();
        let mut kept = Guarded::new("HeraldError", size, align_of::<usize>(), Place::High, 0xff)?;
        let bytes = kept.bytes_mut();
        bytes[..size_of::<usize>()].copy_from_slice(&size.to_ne_bytes());
        bytes[size_of::<usize>()] = 0;
        Ok(Self { kept })
    }

    pub(super) fn pointer(&self) -> *mut HeraldError {
        self.kept.pointer().cast()
    }

    /// What the plugin wrote.
    pub(super) fn read(&self) -> Result<String, Outcome> {
        self.kept.check_beside()?;
        let message = &self.kept.bytes()[size_of::<usize>()..];
        let bad =
            |what: &str| Outcome::Failed(Fault::BadMessage, format!("the sentence of a failed call {what}"));
        let end = message.iter().position(|byte| *byte == 0).ok_or_else(|| bad("has no NUL at its end"))?;
        let text = std::str::from_utf8(&message[..end]).map_err(|_| bad("isn't UTF-8"))?;
        Ok(text.to_owned())
    }
}

impl<'p> Maker<'p> {
    pub(super) fn new(plugin: &'p Plugin, pool: &'p Pool, alone: bool) -> Option<Self> {
        Some(Self { table: plugin.layer_table()?, pool, alone })
    }

    /// The request for a layer as C has it.
    pub(super) fn request<'r>(self, order: &Order<'_>, counters: &'r Counters) -> Result<Request<'r>, Outcome>
    where
        'p: 'r,
    {
        let weights = Weights::new(order.tensors)?;
        let mut raw_weights = weights.raw.clone();
        if let Some(spoil) = order.spoil {
            spoil(&mut raw_weights);
        }
        let mut structs = Structs::new(order.age);
        let list = structs.list(&raw_weights)?;
        let lent = Box::new(Lent::new(self.pool, Sharing::Ragged(order.limits.max_workers), counters));
        let parallel = structs.one(&lent.raw())?;
        let desc = order.desc.with_raw(|desc| {
            let desc = HeraldLayerDesc { kind: order.kind.unwrap_or(desc.kind), ..*desc };
            structs.desc(&desc, order.parameter)
        })?;
        let raw = structs.one(&HeraldLayerRequest {
            desc,
            weights: list,
            n_weights: raw_weights.len(),
            parallel,
            max_tokens: order.limits.max_tokens as u32,
            max_workers: order.limits.max_workers as u32,
            page_tokens: order.limits.page_tokens as u32,
            ..AbiStruct::empty()
        })?;
        Ok(Request { raw, weights, structs, lent })
    }

    /// Has the plugin make the layer: first asks whether it would, then compares.
    pub(super) fn make(self, order: &Order<'_>) -> Result<Result<Layer<'p>, Refusal>, Outcome> {
        let counters = Counters::default();
        let Request { raw: request, weights, structs, lent } = self.request(order, &counters)?;
        let would = match self.table.supports {
            Some(supports) => Some(self.call(order.with_error, "supports", &counters, |error| {
                // SAFETY: the ABI's contract: everything that the request points to lives for the call.
                unsafe { supports(request, error) }
            })?),
            None => None,
        };
        let made = self.create(order, request, &counters)?;
        if let Some(misuse) = lent.misuse() {
            return Err(Outcome::Failed(Fault::MisusesParallel, format!("layer_create: {misuse}")));
        }
        structs.check_beside()?;
        if counters.threads() > 0 {
            let sentence = "layer_create started a thread or a process, where it was to use the threads that it was lent";
            return Err(Outcome::Failed(Fault::StartsThreads, sentence.to_owned()));
        }
        match (&would, &made) {
            (Some(Ok(())), Err(refusal)) if refusal.status == HERALD_STATUS_UNSUPPORTED => {
                let sentence =
                    format!("supports said yes, and layer_create UNSUPPORTED: {}", refusal.sentence);
                Err(Outcome::Failed(Fault::Refuses, sentence))
            }
            (Some(Err(refusal)), Ok(raw)) => {
                self.discard(*raw);
                let status = status_name(refusal.status);
                let sentence = format!("supports answered {status}, and layer_create made the layer");
                Err(Outcome::Failed(Fault::WrongStatus, sentence))
            }
            _ => match made {
                Ok(raw) => self.finish(raw, order, weights).map(Ok),
                Err(refusal) => Ok(Err(refusal)),
            },
        }
    }

    fn create(
        self,
        order: &Order<'_>,
        request: *const HeraldLayerRequest,
        counters: &Counters,
    ) -> Result<Result<NonNull<HeraldLayer>, Refusal>, Outcome> {
        let Some(create) = self.table.create else {
            return Err(Outcome::Failed(Fault::Refused, "its table of layers has no create".to_owned()));
        };
        /// An address that no layer has.
        const UNTOUCHED: usize = 0x5aa5_0000;
        let mut out = Guarded::new("the pointer to the new layer", 8, 8, Place::High, 0)?;
        out.bytes_mut().copy_from_slice(&UNTOUCHED.to_ne_bytes());
        let pointer = out.pointer().cast::<*mut HeraldLayer>();
        let answer = self.call(order.with_error, "layer_create", counters, |error| {
            // SAFETY: as for supports; the weights' bytes outlive the layer.
            unsafe { create(request, pointer, error) }
        })?;
        out.check_beside()?;
        // SAFETY: the buffer holds a pointer.
        let raw = unsafe { pointer.read() };
        match answer {
            Ok(()) if raw as usize == UNTOUCHED || raw.is_null() => {
                let sentence = "layer_create returned OK without a layer".to_owned();
                Err(Outcome::Failed(Fault::NotWritten, sentence))
            }
            Ok(()) => Ok(Ok(NonNull::new(raw).unwrap_or(NonNull::dangling()))),
            Err(_) if raw as usize != UNTOUCHED => {
                let sentence = "layer_create failed, and wrote to *out all the same";
                Err(Outcome::Failed(Fault::WritesOutside, sentence.to_owned()))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn discard(self, raw: NonNull<HeraldLayer>) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the layer was just made, and nothing else refers to it.
            unsafe { destroy(raw.as_ptr()) };
        }
    }

    /// Asks a new layer what it needs.
    fn finish(
        self,
        raw: NonNull<HeraldLayer>,
        order: &Order<'_>,
        weights: Weights,
    ) -> Result<Layer<'p>, Outcome> {
        let empty: HeraldLayerInfo = AbiStruct::empty();
        let mut layer = Layer { maker: self, raw, info: empty, desc: order.desc.clone(), _weights: weights };
        let Some(info) = self.table.info else {
            return Err(Outcome::Failed(Fault::Refused, "its table of layers has no info".to_owned()));
        };
        let mut structs = Structs::new(order.age);
        let answer = structs.writable(&empty)?;
        // SAFETY: the ABI's contract; the answer is ours, for the fields that its size covers.
        self.call(order.with_error, "info", &Counters::default(), |error| unsafe {
            info(raw.as_ptr(), answer, error)
        })?
        .map_err(|refusal| {
            let status = status_name(refusal.status);
            Outcome::Failed(Fault::WrongStatus, format!("info answered {status}: {}", refusal.sentence))
        })?;
        structs.check_beside()?;
        // SAFETY: a struct of the ABI, as long as its own size says.
        layer.info = unsafe { herald_api::abi::read(answer.cast_const()) }.map_err(|what| {
            Outcome::Failed(Fault::WritesOutside, format!("info changed the struct's size: {what}"))
        })?;
        layer.check_info(order)?;
        Ok(layer)
    }

    /// Calls a function of the table that fills an error; `Err(Err)`: the sentence breaks the ABI.
    pub(super) fn call(
        self,
        with_error: bool,
        what: &str,
        counters: &Counters,
        call: impl FnOnce(*mut HeraldError) -> u32,
    ) -> Result<Result<(), Refusal>, Outcome> {
        let error = Sentence::new()?;
        let status = {
            // SAFETY: the counters outlive this block.
            let _watch = unsafe { Watch::begin(counters) };
            call(if with_error { error.pointer() } else { ptr::null_mut() })
        };
        if status == HERALD_STATUS_OK {
            return error.kept.check_beside().map(Ok);
        }
        let sentence = error.read()?;
        if status_name(status) == UNKNOWN_STATUS {
            let text = format!("{what} answered with status {status}, which the ABI doesn't have");
            return Err(Outcome::Failed(Fault::WrongStatus, text));
        }
        if with_error && sentence.is_empty() {
            let text = format!("{what} answered {} without a sentence", status_name(status));
            return Err(Outcome::Failed(Fault::BadMessage, text));
        }
        Ok(Err(Refusal { status, sentence }))
    }
}

impl Layer<'_> {
    /// Whether what the layer says that it needs can be.
    fn check_info(&self, order: &Order<'_>) -> Result<(), Outcome> {
        let wrong = |what: &str, bytes: u64, expected: String| {
            Err(Outcome::Failed(
                Fault::WrongLength,
                format!("info says {bytes} bytes of {what}, where {expected} expected"),
            ))
        };
        let info = &self.info;
        for (bytes, what) in [
            (info.scratch_bytes, "scratch memory"),
            (info.state_bytes, "recurrent state"),
            (info.summary_bytes, "a summary"),
        ] {
            if bytes > MAX_BYTES {
                return wrong(what, bytes, format!("at most {MAX_BYTES} were"));
            }
        }
        let own: usize = order.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
        let most = 64 * own as u64 + (1 << 20);
        if info.weight_bytes > most {
            return wrong("weights", info.weight_bytes, format!("of {own} bytes at most {most} were"));
        }
        match (self.desc.params.state_elements(self.desc.hidden), info.state_bytes) {
            (None, 1..) => wrong("recurrent state", info.state_bytes, "none were".to_owned()),
            (Some(1..), 0) => wrong("recurrent state", 0, "some were".to_owned()),
            _ => Ok(()),
        }
    }
}

const UNKNOWN_STATUS: &str = "an unknown status";

/// A status as the header names it.
pub(super) fn status_name(status: u32) -> &'static str {
    match status {
        HERALD_STATUS_OK => "OK",
        HERALD_STATUS_INVALID_ARGUMENT => "INVALID_ARGUMENT",
        HERALD_STATUS_UNSUPPORTED => "UNSUPPORTED",
        3 => "OUT_OF_MEMORY",
        4 => "IO",
        5 => "CORRUPT",
        6 => "BUFFER_TOO_SMALL",
        7 => "NOT_FOUND",
        8 => "CANCELLED",
        9 => "INTERNAL",
        _ => UNKNOWN_STATUS,
    }
}
