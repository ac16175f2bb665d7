//! Engine layers: what a model is made of, and a forward call.

use std::ffi::{c_char, c_void};

use super::{HeraldError, HeraldLayer, HeraldLayerDesc, HeraldParallel};

/// IEEE float32.
pub const HERALD_DTYPE_F32: u32 = 0;
/// IEEE float16.
pub const HERALD_DTYPE_F16: u32 = 1;
/// Blocks of 32: float16 scale, 4-bit values less 8. 18 bytes.
pub const HERALD_DTYPE_Q4_0: u32 = 2;
/// Blocks of 32: float16 scale and minimum, 4-bit values. 20 bytes.
pub const HERALD_DTYPE_Q4_1: u32 = 3;
/// Blocks of 32: float16 scale, 5-bit values less 16. 22 bytes.
pub const HERALD_DTYPE_Q5_0: u32 = 6;
/// Blocks of 32: float16 scale and minimum, 5-bit values. 24 bytes.
pub const HERALD_DTYPE_Q5_1: u32 = 7;
/// Blocks of 32: float16 scale, signed 8-bit values. 34 bytes.
pub const HERALD_DTYPE_Q8_0: u32 = 8;
/// Blocks of 256, 2 bits. 84 bytes.
pub const HERALD_DTYPE_Q2_K: u32 = 10;
/// Blocks of 256, 3 bits. 110 bytes.
pub const HERALD_DTYPE_Q3_K: u32 = 11;
/// Blocks of 256, 4 bits. 144 bytes.
pub const HERALD_DTYPE_Q4_K: u32 = 12;
/// Blocks of 256, 5 bits. 176 bytes.
pub const HERALD_DTYPE_Q5_K: u32 = 13;
/// Blocks of 256, 6 bits. 210 bytes.
pub const HERALD_DTYPE_Q6_K: u32 = 14;
/// Blocks of 256: a float16 scale, and for each 32 four points of a codebook, their signs and a 4-bit scale. 66 bytes.
pub const HERALD_DTYPE_IQ2_XXS: u32 = 16;
/// Blocks of 256: a float16 scale, points of a codebook with signs, 4-bit scales. 74 bytes.
pub const HERALD_DTYPE_IQ2_XS: u32 = 17;
/// Blocks of 256: a float16 scale, points of a codebook, signs, 4-bit scales. 98 bytes.
pub const HERALD_DTYPE_IQ3_XXS: u32 = 18;
/// Blocks of 256: a float16 scale, points of a codebook, 3-bit scales. 50 bytes.
pub const HERALD_DTYPE_IQ1_S: u32 = 19;
/// Blocks of 32: float16 scale, 4-bit indices into a table of 16 levels. 18 bytes.
pub const HERALD_DTYPE_IQ4_NL: u32 = 20;
/// Blocks of 256: a float16 scale, points of a codebook, signs, 4-bit scales. 110 bytes.
pub const HERALD_DTYPE_IQ3_S: u32 = 21;
/// Blocks of 256: a float16 scale, points of a codebook, signs, 4-bit scales. 82 bytes.
pub const HERALD_DTYPE_IQ2_S: u32 = 22;
/// Blocks of 256, IQ4_NL's levels with 6-bit scales. 136 bytes.
pub const HERALD_DTYPE_IQ4_XS: u32 = 23;
/// Blocks of 256: points of a codebook, 3-bit scales, a float16 scale in their spare bits. 56 bytes.
pub const HERALD_DTYPE_IQ1_M: u32 = 29;
/// bfloat16.
pub const HERALD_DTYPE_BF16: u32 = 30;
/// Blocks of 256: codes of three values, five to a byte, a float16 scale. 54 bytes.
pub const HERALD_DTYPE_TQ1_0: u32 = 34;
/// Blocks of 256: 2-bit codes, a float16 scale. 66 bytes.
pub const HERALD_DTYPE_TQ2_0: u32 = 35;
/// Blocks of 32: an 8-bit power of two, 4-bit floats (E2M1). 17 bytes.
pub const HERALD_DTYPE_MXFP4: u32 = 39;
/// Blocks of 64: an 8-bit float (E4M3) for each 16, 4-bit floats (E2M1). 36 bytes.
pub const HERALD_DTYPE_NVFP4: u32 = 40;

/// A page of 16-bit integers with a scale for each head of each token: keys is first float32 scales
/// [n_kv_heads, capacity], then int16 codes [n_kv_heads, capacity, key_dim]; values the same with value_dim. An element
/// is scale * code. (At the size of float16 this keeps keys and values a dozen times more exactly.)
pub const HERALD_PAGE_I16: u32 = 1;
/// A page of bytes that only its owner can read: a recurrent state, in keys.
pub const HERALD_PAGE_OPAQUE: u32 = 2;
/// A page of 4-bit codes, for whole pages that are only read. An element is offset + step * code, code 0 to 15. Steps and
/// offsets are pairs of float16 (step, offset): of keys one pair for each channel over 64 tokens (channels of keys differ
/// much, their tokens little), of values one for each token over 64 channels; the last of each may cover fewer.
/// keys: pairs [n_kv_heads, ceil(capacity / 64), key_dim], then codes [n_kv_heads, capacity, ceil(key_dim / 2)] bytes.
/// values: pairs [n_kv_heads, capacity, ceil(value_dim / 64)], then codes [n_kv_heads, capacity, ceil(value_dim / 2)].
/// The low half of a row's byte i is the code of element i, the high half that of element ceil(dim / 2) + i; where dim is
/// odd the last high half is 0.
pub const HERALD_PAGE_Q4: u32 = 3;

/// One weight: a view of the model file's bytes.
///
/// dims follows GGUF: dims[0] is the length of a row, whose elements are contiguous. A matrix written above as
/// [rows, columns] has dims {columns, rows}.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTensor {
    /// sizeof(HeraldTensor) of the host.
    pub struct_size: usize,
    /// HERALD_WEIGHT_*: what the layer uses it for.
    pub role: u32,
    /// HERALD_DTYPE_*.
    pub dtype: u32,
    /// How many of dims are used: 1 to 4; the rest are 1.
    pub n_dims: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Elements along each dimension, none 0.
    pub dims: [u64; 4],
    /// The elements, rows one after another. At no particular alignment. Read-only; valid until layer_destroy.
    pub data: *const c_void,
    /// Bytes of data: exactly what dims and dtype need.
    pub data_bytes: u64,
    /// The tensor's name in the model file, for messages: UTF-8, valid until layer_destroy.
    pub name: *const c_char,
    /// Bytes of name.
    pub name_len: usize,
}

/// A layer that the host wants: its description, its weights, and the largest calls that it will get.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerRequest {
    /// sizeof(HeraldLayerRequest) of the host.
    pub struct_size: usize,
    /// The description; valid during the call.
    pub desc: *const HeraldLayerDesc,
    /// The weights, one pointer each; the structs are valid during the call, their data and names until
    /// layer_destroy. A role that the layer doesn't know must be answered with UNSUPPORTED, never ignored.
    pub weights: *const *const HeraldTensor,
    /// How many weights.
    pub n_weights: usize,
    /// Threads to prepare weights with; valid during the call.
    pub parallel: *const HeraldParallel,
    /// The most tokens that a forward call will bring.
    pub max_tokens: u32,
    /// The most workers that a forward call will bring.
    pub max_workers: u32,
    /// Tokens of a KV page.
    pub page_tokens: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// The largest rank of the low-rank updates that forward calls will bring (HeraldSequence.loras); 0: they bring none.
    pub max_lora_rank: u64,
    /// Where the host keeps weights as plugins pack them; valid during the call. Null: it keeps none.
    pub packs: *const HeraldPackStore,
}

/// Where a host keeps packed weights: what a plugin makes of a weight once, in an order of its own. Packed weights are kept for the
/// next layer that is made of the same weight, also by other processes, which then share the memory. Only the thread that was
/// handed this struct may use it, during the call that handed it, and not from within a task. A plugin need not use it, and does
/// without where take fails.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldPackStore {
    /// sizeof(HeraldPackStore) of the host.
    pub struct_size: usize,
    /// The host's own; passed back in take and filled.
    pub context: *mut c_void,
    /// Puts in *packed the memory of packed_bytes bytes, aligned to 64, for source_bytes bytes of a weight at source (all of
    /// HeraldTensor.data, or a part of it), packed in a form that the plugin numbers as it likes. *is_filled becomes 1 where it
    /// holds what was once filled, for the same source and form; it must not be written then. Otherwise it becomes 0, and the
    /// memory is zeroed, and the plugin's to fill. Either way it is valid until layer_destroy, or until layer_create fails. What is
    /// filled belongs to this build of the plugin: another one is not given it.
    /// Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED where the source is not kept, or not in this form and length; OUT_OF_MEMORY; IO.
    pub take: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            source: *const c_void,
            source_bytes: u64,
            form: u64,
            packed_bytes: u64,
            packed: *mut *mut c_void,
            is_filled: *mut u32,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Says that memory which take gave is filled. From then on it must not be written. Statuses: OK; INVALID_ARGUMENT.
    pub filled: Option<
        unsafe extern "C" fn(context: *mut c_void, packed: *const c_void, error: *mut HeraldError) -> u32,
    >,
}

/// What a made layer needs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerInfo {
    /// sizeof(HeraldLayerInfo) of the host.
    pub struct_size: usize,
    /// Bytes of scratch memory that a forward call of max_tokens needs.
    pub scratch_bytes: u64,
    /// Bytes of recurrent state for each sequence; 0 for layers that keep none.
    pub state_bytes: u64,
    /// Bytes that the layer itself allocated for weights (repacked copies); for reports.
    pub weight_bytes: u64,
    /// Attention: formats of whole pages that it reads besides HERALD_PAGE_I16: bit HERALD_PAGE_* of each.
    pub page_formats: u32,
    /// Attention: float32 elements of HeraldFetch's scores that the layer works in for each selectable page, at most 65536;
    /// 0: it does no page selection, and is brought no selectable pages.
    pub score_width: u32,
    /// Attention: bytes of a selectable page's summary, a multiple of 8; 0: it makes none.
    pub summary_bytes: u64,
    /// Batch invariance: where a sequence has at most this many tokens in a call, the results and the state are, to the bit, those
    /// of one call a token, whatever other sequences' tokens are in the call. The host drafts tokens (speculative decoding)
    /// only where every layer promises it. 0: not promised.
    pub batch_invariant_tokens: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// The largest rank of low-rank updates that the layer adds to its products: at least the max_lora_rank of the request, or
    /// 0: it adds none, and is brought none (HeraldSequence.loras).
    pub max_lora_rank: u64,
}

/// A run of tokens' keys and values of one layer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldPage {
    /// sizeof(HeraldPage) of whoever made it.
    pub struct_size: usize,
    /// The position in its sequence of the page's first token.
    pub start: u64,
    /// Tokens that it holds, counting those that this call will write.
    pub n_tokens: u32,
    /// Tokens that it has room for.
    pub capacity: u32,
    /// HERALD_PAGE_*.
    pub format: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Keys, aligned to 64 bytes.
    pub keys: *mut c_void,
    /// Values, aligned to 64 bytes.
    pub values: *mut c_void,
    /// Bytes of keys.
    pub key_bytes: u64,
    /// Bytes of values.
    pub value_bytes: u64,
}

/// A low-rank update of one of a layer's weights (LoRA, arXiv 2106.09685). It adds to the weight's product with x, before anything
/// else is done with that:
///
///   scale * the sum over i < rank of (down_i . x) * up_i
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLora {
    /// sizeof(HeraldLora) of the host.
    pub struct_size: usize,
    /// The weight, one that the layer was made with: HERALD_WEIGHT_QUERY, _QUERY_AND_GATE, _KEY, _VALUE or _ATTENTION_OUTPUT of
    /// attention that isn't latent, and HERALD_WEIGHT_GATE, _UP or _DOWN of an MLP. No others come.
    pub role: u32,
    /// Rows of down and of up: at least 1, at most HeraldLayerInfo.max_lora_rank.
    pub rank: u32,
    /// Elements of a row of down, and of the weight's.
    pub columns: u64,
    /// Elements of a row of up: the weight's rows.
    pub rows: u64,
    /// [rank, columns].
    pub down: *const f32,
    /// [rank, rows].
    pub up: *const f32,
    /// A finite number.
    pub scale: f32,
    /// Not used; 0.
    pub reserved: u32,
}

/// One sequence's part of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldSequence {
    /// sizeof(HeraldSequence) of the host.
    pub struct_size: usize,
    /// The index of its first token in the batch.
    pub first: u64,
    /// Its tokens in this batch, one after another.
    pub n_tokens: u64,
    /// Tokens that it had before them: the first one's position in the sequence.
    pub past: u64,
    /// Its KV pages for this layer, in rising order of start; they may leave out earlier tokens, which are then not
    /// attended to, and always hold room for this batch's tokens. Pages that hold only earlier tokens may be shared with
    /// other sequences and are read-only. Null for layers without KV.
    pub pages: *const *const HeraldPage,
    /// How many pages.
    pub n_pages: usize,
    /// Its recurrent state, state_bytes as the layer asked, zeroed when the sequence began, aligned to 64 bytes; or null.
    pub state: *mut c_void,
    /// Page selection (Quest, arXiv 2406.10774; InfLLM, arXiv 2402.04617): pages that attention may choose among, by scores
    /// that the layer gives them (see HeraldFetch). The position of each page's first token, rising.
    pub selectable_starts: *const u64,
    /// The selectable pages' summaries, as summarise made them, one after another; aligned to 8 bytes.
    pub selectable_summaries: *const c_void,
    /// How many selectable pages; 0: none, and both pointers may be null.
    pub n_selectable: usize,
    /// The greatest distance between a query and a key that the layer's RoPE may see, usually the context that the model was
    /// trained for. For a page that begins at start, the layer subtracts a position shift from the positions of the batch's
    /// queries: past + n_tokens - start - max_distance, where that is positive (InfLLM, arXiv 2402.04617). 0: no limit,
    /// positions stay as they are.
    pub max_distance: u64,
    /// Low-rank updates of the layer's weights, for this sequence's tokens alone, added one after another. Only layers whose
    /// max_lora_rank isn't 0 are brought any. A token's result still doesn't depend on the tokens of other sequences, and without
    /// updates it is the one that a call without any would give.
    pub loras: *const *const HeraldLora,
    /// How many updates; 0: none, and the pointer may be null.
    pub n_loras: usize,
}

/// Page selection: a layer whose sequences have selectable pages fills scores and calls run, once, after it has written its
/// keys and values and before it attends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldFetch {
    /// sizeof(HeraldFetch) of the host.
    pub struct_size: usize,
    /// For run.
    pub context: *mut c_void,
    /// Memory for n_scores float32: score_width for each selectable page of every sequence, holding anything at first. run
    /// reads the first elements, one for each selectable page, sequence after sequence: the more the batch's queries would
    /// attend to a page, the greater.
    pub scores: *mut f32,
    /// Elements of scores.
    pub n_scores: usize,
    /// Chooses pages by their scores and puts a new list of the call's sequences, with these pages among the others, in
    /// *sequences; it is valid until the call ends, as is the list that the call began with, which lacks these pages. The
    /// thread that was handed the call may use it, once.
    /// Statuses: OK; otherwise the layer gives the status and the message back from forward.
    pub run: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            sequences: *mut *const *const HeraldSequence,
            error: *mut HeraldError,
        ) -> u32,
    >,
}

/// A forward call: a flat batch of tokens from any number of sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldCall {
    /// sizeof(HeraldCall) of the host.
    pub struct_size: usize,
    /// Tokens of the batch: 1 to max_tokens.
    pub n_tokens: usize,
    /// Token ids [n_tokens]; for the embedding, elsewhere may be null.
    pub tokens: *const u32,
    /// Positions for RoPE [n_tokens]; may be null for layers other than attention.
    pub positions: *const u32,
    /// Activations [n_tokens, hidden]; null: the output holds them too (the usual residual branch, in place).
    pub input: *const f32,
    /// Activations [n_tokens, hidden] that a residual branch adds to and the embedding fills, or the head's logits
    /// [n_tokens, vocabulary]. Does not overlap input.
    pub output: *mut f32,
    /// The sequences, covering the batch's tokens in order, one pointer each. Null for the embedding and the
    /// head.
    pub sequences: *const *const HeraldSequence,
    /// How many sequences.
    pub n_sequences: usize,
    /// Memory to work in, for this call alone, aligned to 64 bytes; holds anything at first.
    pub scratch: *mut c_void,
    /// Bytes of scratch: at least the scratch_bytes that the layer asked for.
    pub scratch_bytes: u64,
    /// Threads to work with.
    pub parallel: *const HeraldParallel,
    /// Page selection; null where no sequence has selectable pages.
    pub fetch: *const HeraldFetch,
}

/// A product that a layer is about to compute: of a weight matrix with a batch of activations.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldProduct {
    /// sizeof(HeraldProduct) of the plugin.
    pub struct_size: usize,
    /// Where the matrix's first row lies in HeraldTensor.data. (A tensor of experts has many matrices.)
    pub data: *const c_void,
    /// Elements of a row.
    pub columns: u64,
    /// Tokens of the batch.
    pub n_tokens: u64,
    /// The activations, [n_tokens, columns]; valid during the call.
    pub input: *const f32,
}

/// Who is shown the products that layers compute.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldObserver {
    /// sizeof(HeraldObserver) of the host.
    pub struct_size: usize,
    /// The host's own; passed back in product.
    pub context: *mut c_void,
    /// Called before each product, within a layer's forward. Any thread, and any number at once.
    pub product: Option<unsafe extern "C" fn(context: *mut c_void, product: *const HeraldProduct)>,
}

/// Engine layers of a plugin. All pointers are to structs that stay the caller's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerTable {
    /// sizeof(HeraldLayerTable) of the plugin.
    pub struct_size: usize,
    /// The HERALD_LAYER_* kinds that it offers, at least in some forms.
    pub kinds: *const u32,
    /// How many kinds.
    pub n_kinds: usize,
    /// Whether layer_create would accept the request; cheap, reads no weight data. Any thread. May be null: then
    /// layer_create is asked. Statuses: OK; UNSUPPORTED with what is missing; INVALID_ARGUMENT.
    pub supports:
        Option<unsafe extern "C" fn(request: *const HeraldLayerRequest, error: *mut HeraldError) -> u32>,
    /// Makes a layer and puts it in *out, for the caller to give to destroy. Any thread. On failure *out is untouched
    /// and nothing is kept. Statuses: OK, UNSUPPORTED, INVALID_ARGUMENT (a shape that contradicts the description),
    /// OUT_OF_MEMORY, INTERNAL.
    pub create: Option<
        unsafe extern "C" fn(
            request: *const HeraldLayerRequest,
            out: *mut *mut HeraldLayer,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Says what the layer needs: fills out. Any thread. Statuses: OK.
    pub info: Option<
        unsafe extern "C" fn(
            layer: *const HeraldLayer,
            out: *mut HeraldLayerInfo,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Runs the layer over a batch. Any thread, and any number at once with different buffers: a layer doesn't change.
    /// It may write only output, scratch, its sequences' states, and the slots of this batch's tokens in their pages; it
    /// allocates nothing. On failure those hold anything. Statuses: OK, INVALID_ARGUMENT, INTERNAL.
    pub forward: Option<
        unsafe extern "C" fn(
            layer: *const HeraldLayer,
            call: *const HeraldCall,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Destroys a layer that no call is running on. Any thread. Null is allowed.
    pub destroy: Option<unsafe extern "C" fn(layer: *mut HeraldLayer)>,
    /// Makes the summary of a whole page (HERALD_PAGE_I16, with its start), by which the layer can later tell how much
    /// queries would attend to it: fills summary_bytes at summary, aligned to 8 bytes. Any thread. May be null where no
    /// layer has summaries. Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED.
    pub summarise: Option<
        unsafe extern "C" fn(
            layer: *const HeraldLayer,
            page: *const HeraldPage,
            summary: *mut c_void,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// From then on, the observer (which is copied) is shown each product of a weight matrix that any of the plugin's layers
    /// computes, in place of an earlier observer; null: nobody is. When it returns, nothing is being shown to an earlier one
    /// any more. It is how hosts compute importance matrices. Any thread, but not within an observer. May be null where layers
    /// don't show their products. Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED.
    pub observe:
        Option<unsafe extern "C" fn(observer: *const HeraldObserver, error: *mut HeraldError) -> u32>,
}
