//! Forward calls of the wrong shape: refused by the host before they reach a plugin, and by a plugin whose host lets them
//! through.

use std::cell::Cell;
use std::ptr::null;

use herald_api::abi::{
    self, AbiStruct, HeraldCall, HeraldError, HeraldPage, HeraldParallel, HeraldSequence, HeraldTask,
};
use herald_api::import::{BatchBuffers, Forward, LayerHandle, Lent, PageUse};
use herald_api::{AlignedBytes, Parallel, Result};

use crate::plugin::SCRATCH_BYTES;
use crate::support::*;
use crate::threads::Threads;
use crate::works::{Held, attend};

/// What a call brings, to be spoilt.
struct Brought {
    n_tokens: usize,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    input: Option<Vec<f32>>,
    output: Vec<f32>,
    scratch: usize,
    threads: usize,
    with_sequence: bool,
}

fn run(layer: &LayerHandle, change: impl FnOnce(&mut Brought)) -> Result<()> {
    let mut brought = Brought {
        n_tokens: 2,
        tokens: vec![1, 2],
        positions: vec![0, 1],
        input: Some(vec![0.0; 2 * HIDDEN]),
        output: vec![0.0; 2 * layer.output_width()],
        scratch: SCRATCH_BYTES,
        threads: 1,
        with_sequence: true,
    };
    change(&mut brought);
    let mut held = Held::new(&loaded(), 1);
    let mut buffers = BatchBuffers::default();
    let mut batch = buffers.begin();
    let pages = held.pages.iter_mut().map(|page| (0, PageUse::Own(page)));
    batch.push(2, 0, Some(&mut held.state), pages)?;
    let threads = Threads(brought.threads);
    let lent = Lent::new(&threads);
    let request = Forward {
        n_tokens: brought.n_tokens,
        tokens: &brought.tokens,
        positions: &brought.positions,
        input: brought.input.as_deref(),
        output: &mut brought.output,
        parallel: lent.parallel(),
    };
    let mut scratch = AlignedBytes::zeroed(brought.scratch)?;
    layer.forward(request, brought.with_sequence.then_some(&mut batch), &mut scratch)
}

#[test]
fn the_host_refuses_them() {
    let plugin = loaded();
    let make = |spec| plugin.create_layer(spec, Parallel::serial()).expect("the layer");
    let attention = make(attention_spec());
    run(&attention, |_| ()).expect("sound");
    run(&attention, |call| call.input = None).expect("in place");
    let unfit = "which don't fit each other";
    says(run(&attention, |call| call.n_tokens = 0), unfit);
    says(run(&attention, |call| call.n_tokens = usize::MAX), unfit);
    says(run(&attention, |call| call.tokens = vec![1]), unfit);
    says(run(&attention, |call| call.positions = vec![1; 3]), unfit);
    says(run(&attention, |call| call.input = Some(vec![0.0; 7])), unfit);
    says(run(&attention, |call| call.output.truncate(7)), unfit);
    says(run(&attention, |call| call.scratch = SCRATCH_BYTES - 1), unfit);
    let of_the_layer = |what| format!("a call of the attention layer of block 7 brought {what}");
    says(run(&attention, |call| call.positions.clear()), &of_the_layer("no positions"));
    says(
        run(&attention, |call| call.with_sequence = false),
        &of_the_layer("a sequence without an aligned state"),
    );
    says(
        run(&attention, |call| call.threads = 4),
        &of_the_layer("4 workers, where at most 3 were announced"),
    );
    let embedding = make(embedding_spec());
    run(&embedding, |call| call.with_sequence = false).expect("sound");
    says(run(&embedding, |call| call.tokens.clear()), unfit);
    says(
        run(&embedding, |call| call.tokens[1] = 10),
        "brought the token id 10, where ids below 10 were expected",
    );
    let head = make(head_spec());
    run(&head, |_| ()).expect("sound");
    says(run(&head, |call| call.input = None), unfit);
    says(run(&head, |call| call.output.truncate(2 * HIDDEN)), unfit);
}

#[test]
fn the_host_refuses_pages_that_do_not_suit() {
    let plugin = loaded();
    let layer = plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer");
    let mut held = Held::new(&plugin, 1);
    says(
        attend(&layer, &mut [(&mut held, 5)], Parallel::serial()),
        "room up to token 4, where 5 was expected",
    );
    held.pages.clear();
    says(
        attend(&layer, &mut [(&mut held, 1)], Parallel::serial()),
        "pages with room up to token 0 of a sequence",
    );
    let mut narrow = tier_config();
    narrow.key_dim -= 1;
    let tier = plugin.create_tier(&narrow).expect("the tier");
    held.pages.push(tier.reserve().expect("a page"));
    says(
        attend(&layer, &mut [(&mut held, 1)], Parallel::serial()),
        "brought a page of format 1 with 48 bytes of keys and 80 of values, where format 1 with 64 and 80 was expected",
    );
    let mut short = Held::new(&plugin, 1);
    short.state = AlignedBytes::zeroed(64).expect("a state");
    says(attend(&layer, &mut [(&mut short, 1)], Parallel::serial()), "states of [64] bytes");
    // Earlier pages lent as if they were the sequence's own, in the wrong order, or past the batch's end.
    let (mut a, mut b) = (Held::new(&plugin, 1), Held::new(&plugin, 1));
    let mut buffers = BatchBuffers::default();
    let (a, b) = (&mut a.pages[0], &mut b.pages[0]);
    let doesnt = "doesn't suit a sequence of 0 tokens and 5 new ones";
    says(
        buffers.begin().push(5, 0, None, [(4, PageUse::Own(&mut *a)), (0, PageUse::Own(&mut *b))]),
        "at token 4",
    );
    says(buffers.begin().push(5, 0, None, [(0, PageUse::Own(&mut *a)), (3, PageUse::Own(&mut *b))]), doesnt);
    says(buffers.begin().push(5, 0, None, [(0, PageUse::Shared(&*a)), (4, PageUse::Own(&mut *b))]), doesnt);
    says(
        buffers.begin().push(5, 0, None, [(0, PageUse::Own(&mut *a)), (9, PageUse::Own(&mut *b))]),
        "at token 9",
    );
}

unsafe extern "C" fn run_inline(_: *mut std::ffi::c_void, items: u64, task: *const HeraldTask) {
    // SAFETY: the plugin's contract for its task.
    unsafe {
        if let Some(run) = (*task).run {
            run((*task).argument, 0, items, 0);
        }
    }
}

/// The C structs of a sound call, and a hand in them.
struct Raw {
    call: HeraldCall,
    sequence: HeraldSequence,
    page: HeraldPage,
    parallel: HeraldParallel,
    n_sequences: usize,
}

thread_local! {
    static LAYER: Cell<*const abi::HeraldLayer> = const { Cell::new(null()) };
}

/// The exported create function, which also tells the test the raw handle.
unsafe extern "C" fn create_and_tell(
    request: *const abi::HeraldLayerRequest,
    out: *mut *mut abi::HeraldLayer,
    error: *mut HeraldError,
) -> u32 {
    let create = Tables::new().layers.create.expect("create");
    // SAFETY: the host's contract, passed on.
    let status = unsafe { create(request, out, error) };
    // SAFETY: out is the host's, and filled where the status is OK.
    LAYER.set(unsafe { *out });
    status
}

fn run_raw(change: impl FnOnce(&mut Raw)) -> Result<(), String> {
    let mut tables = Tables::new();
    let forward = tables.layers.forward.expect("forward");
    tables.layers.create = Some(create_and_tell);
    let layer = tables.load().expect("a plugin").create_layer(attention_spec(), Parallel::serial());
    let handle = layer.expect("the layer");
    let raw_layer = LAYER.get();
    let (key_bytes, value_bytes) = tier_config().page_bytes().expect("small");
    let mut keys = AlignedBytes::zeroed(key_bytes).expect("keys");
    let mut values = AlignedBytes::zeroed(value_bytes).expect("values");
    let mut state = AlignedBytes::zeroed(handle.state_bytes()).expect("a state");
    let mut scratch = AlignedBytes::zeroed(handle.scratch_bytes()).expect("scratch memory");
    let (positions, mut output) = ([0_u32, 1], [0.0_f32; 2 * HIDDEN]);
    let mut raw = Raw {
        call: HeraldCall {
            n_tokens: 2,
            positions: positions.as_ptr(),
            output: output.as_mut_ptr(),
            scratch: scratch.as_mut_ptr().cast(),
            scratch_bytes: scratch.len() as u64,
            ..AbiStruct::empty()
        },
        sequence: HeraldSequence {
            n_tokens: 2,
            n_pages: 1,
            state: state.as_mut_ptr().cast(),
            ..AbiStruct::empty()
        },
        page: HeraldPage {
            n_tokens: 2,
            capacity: PAGE_TOKENS as u32,
            format: abi::HERALD_PAGE_I16,
            keys: keys.as_mut_ptr().cast(),
            values: values.as_mut_ptr().cast(),
            key_bytes: key_bytes as u64,
            value_bytes: value_bytes as u64,
            ..AbiStruct::empty()
        },
        parallel: HeraldParallel { workers: 1, run: Some(run_inline), ..AbiStruct::empty() },
        n_sequences: 1,
    };
    change(&mut raw);
    let pages = [&raw const raw.page];
    raw.sequence.pages = pages.as_ptr();
    let sequences = [&raw const raw.sequence];
    raw.call.sequences = sequences.as_ptr();
    raw.call.n_sequences = raw.n_sequences;
    raw.call.parallel = &raw const raw.parallel;
    let mut error: HeraldError = AbiStruct::empty();
    // SAFETY: the layer is `handle`'s. What the call states wrongly is what the plugin is to find before it uses it.
    let status = unsafe { forward(raw_layer, &raw.call, &mut error) };
    let message: Vec<u8> = error.message.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    match status {
        abi::HERALD_STATUS_OK => Ok(()),
        abi::HERALD_STATUS_INVALID_ARGUMENT => Err(String::from_utf8(message).expect("UTF-8")),
        other => panic!("status {other}: {}", String::from_utf8_lossy(&message)),
    }
}

#[test]
fn the_plugin_refuses_them() {
    assert_eq!(run_raw(|_| ()), Ok(()));
    #[track_caller]
    fn refuses(change: impl FnOnce(&mut Raw), expected: &str) {
        let sentence = run_raw(change).expect_err(expected);
        assert!(sentence.contains(expected), "{sentence:?} doesn't say {expected:?}");
    }
    refuses(|raw| raw.call.n_tokens = 0, "brought 0 tokens, where 1 to 8 were expected");
    refuses(|raw| raw.call.n_tokens = 1 << 62, "tokens, where 1 to 8 were expected");
    refuses(|raw| raw.call.scratch_bytes -= 1, "brought 639 bytes of scratch memory");
    refuses(|raw| raw.call.scratch = null::<u8>().cast_mut().cast(), "640 bytes of scratch memory at 0x0");
    refuses(|raw| raw.call.scratch = raw.call.scratch.wrapping_byte_add(8), "aligned to 64 were expected");
    refuses(|raw| raw.call.output = null::<f32>().cast_mut(), "output is at 0x0");
    refuses(
        |raw| raw.call.input = raw.call.output.wrapping_byte_add(1),
        "the input activations is 8 elements",
    );
    refuses(|raw| raw.call.positions = null(), "no positions");
    refuses(|raw| raw.parallel.workers = 0, "no workers");
    refuses(|raw| raw.parallel.workers = 4, "4 workers, where at most 3 were announced");
    refuses(|raw| raw.parallel.run = None, "no run function");
    refuses(|raw| raw.n_sequences = 0, "a sequence without an aligned state");
    refuses(|raw| raw.sequence.n_tokens = 1, "the sequences have 1 tokens of a batch of 2");
    refuses(|raw| raw.sequence.n_tokens = 3, "HeraldSequence 0 has tokens 0..0+3 of a batch of 2");
    refuses(|raw| raw.sequence.first = 1, "they were to begin at 0");
    refuses(|raw| raw.sequence.state = null::<u8>().cast_mut().cast(), "a sequence without an aligned state");
    refuses(
        |raw| raw.sequence.n_pages = 0,
        "pages with room up to token 0 of a sequence, where room up to 2",
    );
    refuses(|raw| raw.sequence.past = 3, "where room up to 5 was expected");
    refuses(|raw| raw.sequence.past = u64::MAX, "had 18446744073709551615 tokens before");
    refuses(|raw| raw.page.start = u64::MAX, "HeraldPage at token 18446744073709551615");
    refuses(|raw| raw.page.start = 1, "hold no token past 2");
    refuses(|raw| raw.page.capacity = 1, "says that it holds 2 tokens with room for 1");
    refuses(|raw| raw.page.capacity = 8, "where format 1 with 128 and 160 was expected");
    refuses(|raw| raw.page.format = 9, "a page of format 9");
    refuses(|raw| raw.page.keys = null::<u8>().cast_mut().cast(), "64 bytes of keys at 0x0");
    refuses(|raw| raw.page.key_bytes = u64::MAX, "bytes of keys at");
    refuses(|raw| raw.page.struct_size = 7, "HeraldPage says that it has 7 bytes");
    refuses(|raw| raw.call.struct_size = 1 << 40, "HeraldCall says that it has 1099511627776 bytes");
}
