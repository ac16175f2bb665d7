//! A plugin over the safe traits that uses everything a call lends: pages, states, scratch memory, threads. What it computes
//! is simple enough to know by heart; some descriptions make it panic.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use herald_api::abi::{HERALD_PAGE_I16, HERALD_PAGE_OPAQUE, HeraldPlugin};
use herald_api::export::{About, Level, Probed, Table, entry, log};
use herald_api::{
    AlignedBytes, Call, DecodeOptions, EncodeOptions, EngineLayer, Error, Found, Hardware, LayerDesc,
    LayerFactory, LayerKind, LayerParams, LayerRequest, MemoryTier, Observer, Page, Probe, RawPage, Result,
    Status, TierConfig, TierFactory, TierKind, TierStats, Tokenizer, TokenizerFactory, Vocabulary,
};

/// Blocks whose layers panic, and where.
pub(crate) const PANICS_IN_CREATE: usize = 901;
pub(crate) const PANICS_IN_FORWARD: usize = 902;
pub(crate) const PANICS_IN_TASK: usize = 903;
pub(crate) const PANICS_IN_DROP: usize = 904;

pub(crate) const SCRATCH_BYTES: usize = 640;
pub(crate) const STATE_BYTES: usize = 128;

/// The table, made once, as `export_plugin!` would.
pub(crate) fn table() -> &'static HeraldPlugin {
    static TABLE: std::sync::OnceLock<Table> = std::sync::OnceLock::new();
    let pointer = entry(&TABLE, || {
        let about = About { name: "test", version: "1.2.3", description: "What the boundary is tested with" };
        Table::new::<Plugin>(&about).layers::<Plugin>().tokenizers::<Plugin>().tiers::<Plugin>()
    });
    // SAFETY: it is the table in TABLE, which lives for ever.
    unsafe { &*pointer }
}

struct Plugin;

impl Probed for Plugin {
    fn probe(hardware: &Hardware) -> Result<Probe> {
        log(Level::Info, "probed");
        match hardware.cpus {
            0 => Err(Error::unsupported("a machine without CPUs can't run this plugin")),
            cpus => Ok(Probe { score: 100 + cpus, variant: "plain".to_owned() }),
        }
    }
}

impl LayerFactory for Plugin {
    const KINDS: &'static [LayerKind] = &[LayerKind::Embedding, LayerKind::Attention, LayerKind::Head];

    fn supports(request: &LayerRequest<'_, '_>) -> Result<()> {
        match request.desc.hidden {
            3 => Err(Error::unsupported("a hidden size of 3 is not offered")),
            _ => Ok(()),
        }
    }

    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>> {
        Self::supports(request)?;
        assert!(request.desc.block != PANICS_IN_CREATE, "create was told to panic");
        let weights = request.weights.iter().map(|weight| weight.bytes).collect();
        let max_lora_rank = request.max_lora_rank;
        Ok(Box::new(Layer { desc: request.desc.clone(), weights, max_lora_rank }))
    }

    fn observe(observer: Option<Observer>) -> Result<()> {
        *OBSERVER.lock().expect("it") = observer;
        Ok(())
    }
}

static OBSERVER: Mutex<Option<Observer>> = Mutex::new(None);

/// Who is shown products.
pub(crate) fn observer() -> Option<Observer> {
    *OBSERVER.lock().expect("it")
}

struct Layer<'w> {
    desc: LayerDesc,
    weights: Vec<&'w [u8]>,
    max_lora_rank: usize,
}

impl Layer<'_> {
    /// Every token writes 1 to the first element of its key, counts the ones that it sees in all pages up to itself, and
    /// counts itself in the sequence's state: `output[0] += ones`, `output[1] += tokens counted`.
    fn attend(&self, call: &mut Call<'_>, heads: usize, key_dim: usize) {
        let hidden = self.desc.hidden;
        for sequence in call.sequences.iter() {
            for (index, token) in sequence.batch().enumerate() {
                let place = sequence.past() + index;
                let mut ones = 0;
                for page in sequence.pages() {
                    for slot in 0..page.capacity() {
                        let at = page.start() + slot;
                        if at == place {
                            // SAFETY: this batch's slot of a page that was lent for writing and checked to have this
                            // shape; head 0, and the slot is less than the capacity.
                            let (key, value) =
                                unsafe { (page.key_slot(heads, 0, slot), page.value_slot(heads, 0, slot)) };
                            (*key.0, key.1[0]) = (1.0, 1);
                            (*value.0, value.1[0]) = (1.0, 2);
                        }
                        if at <= place {
                            ones += page.keys(heads).codes[slot * key_dim];
                        }
                    }
                }
                // SAFETY: the state was lent for writing, and is as large as the layer asked and aligned to 64.
                let counted = unsafe {
                    let state = sequence.state().cast::<u64>();
                    state.write(state.read() + 1);
                    state.read()
                };
                call.output[token * hidden] += f32::from(ones);
                call.output[token * hidden + 1] += counted as f32;
                call.output[token * hidden + 2] += sequence.loras().map(|lora| lora.scale).sum::<f32>();
            }
        }
    }
}

impl EngineLayer for Layer<'_> {
    fn scratch_bytes(&self) -> usize {
        SCRATCH_BYTES
    }

    fn state_bytes(&self) -> usize {
        match self.desc.kind() {
            LayerKind::Attention => STATE_BYTES,
            _ => 0,
        }
    }

    fn max_lora_rank(&self) -> usize {
        self.max_lora_rank
    }

    fn weight_bytes(&self) -> usize {
        self.weights.iter().map(|bytes| bytes.len()).sum()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        assert!(self.desc.block != PANICS_IN_FORWARD, "forward was told to panic");
        assert!(call.scratch.len() >= SCRATCH_BYTES, "too little scratch memory");
        call.scratch.fill(0xA5);
        let tokens_seen = AtomicU64::new(0);
        let (workers, index) = (call.parallel.workers(), self.desc.block);
        call.parallel.run(call.n_tokens, &|range, worker| {
            assert!(worker < workers, "worker {worker} of {workers}");
            assert!(index != PANICS_IN_TASK, "a task was told to panic");
            tokens_seen.fetch_add(range.len() as u64, Ordering::Relaxed);
        });
        if tokens_seen.into_inner() != call.n_tokens as u64 {
            return Err(Error::new(Status::Internal, "the threads left tokens out"));
        }
        let hidden = self.desc.hidden;
        match &self.desc.params {
            LayerParams::Embedding(params) => {
                for (row, id) in call.output.chunks_mut(hidden).zip(call.tokens) {
                    row.fill(*id as f32 * params.scale);
                }
            }
            LayerParams::Head(params) => {
                let input = call.input.unwrap_or_default();
                for (row, input) in call.output.chunks_mut(params.vocabulary).zip(input.chunks(hidden)) {
                    row.fill(input.iter().sum());
                }
            }
            LayerParams::Attention(shape) => self.attend(call, shape.n_kv_heads, shape.key_dim),
            _ => return Err(Error::unsupported("another kind")),
        }
        Ok(())
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        assert!(self.desc.block != PANICS_IN_DROP, "drop was told to panic");
    }
}

impl TokenizerFactory for Plugin {
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        match vocabulary.model {
            "bytes" => {
                Ok(Box::new(Bytes { tokens: vocabulary.tokens.iter().map(|token| token.to_vec()).collect() }))
            }
            "panic" => panic!("tokenizer_create was told to panic"),
            other => Err(Error::unsupported(format!("tokenizer model {other:?} is not offered"))),
        }
    }
}

/// A token is a byte; with `special`, a 0 is put before the text; unless the text continues, 1.
struct Bytes {
    tokens: Vec<Vec<u8>>,
}

impl Tokenizer for Bytes {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        assert!(text != "panic", "encode was told to panic");
        ids.extend(options.special.then_some(0));
        ids.extend((!options.continues).then_some(1));
        ids.extend(text.bytes().map(u32::from));
        Ok(())
    }

    fn decode(&self, ids: &[u32], _: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        ids.iter().for_each(|id| bytes.extend(&self.tokens[*id as usize]));
        Ok(())
    }
}

impl TierFactory for Plugin {
    const KINDS: &'static [TierKind] = &[TierKind::Active, TierKind::Archived];

    fn create(config: &TierConfig) -> Result<Box<dyn MemoryTier>> {
        assert!(config.path.as_deref() != Some("panic".as_ref()), "tier_create was told to panic");
        let pages = Mutex::default();
        Ok(Box::new(Ram {
            config: config.clone(),
            pages,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }))
    }
}

struct Stored {
    n_tokens: usize,
    keys: AlignedBytes,
    values: AlignedBytes,
}

struct Ram {
    config: TierConfig,
    pages: Mutex<BTreeMap<u64, Stored>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Ram {
    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, Stored>> {
        self.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn with<T>(&self, id: u64, body: impl FnOnce(&mut Stored) -> T) -> Result<T> {
        let mut pages = self.pages();
        let found = pages.get_mut(&id);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found.map(body).ok_or_else(|| Error::new(Status::NotFound, format!("there is no page {id}")))
    }
}

impl MemoryTier for Ram {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        let (keys, values) = self.config.page_bytes().unwrap_or_default();
        let mut stored =
            Stored { n_tokens: 0, keys: AlignedBytes::zeroed(keys)?, values: AlignedBytes::zeroed(values)? };
        if let Some(page) = page {
            stored.n_tokens = page.n_tokens();
            stored.keys.copy_from_slice(page.key_bytes());
            stored.values.copy_from_slice(page.value_bytes());
        }
        match self.pages().insert(id, stored) {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("page {id} is already there"))),
        }
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        self.with(id, |stored| {
            keys.copy_from_slice(&stored.keys);
            values.copy_from_slice(&stored.values);
            stored.n_tokens
        })
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        let format = if self.config.state_bytes > 0 { HERALD_PAGE_OPAQUE } else { HERALD_PAGE_I16 };
        self.with(id, |stored| {
            let part = |bytes: &AlignedBytes| (bytes.as_ptr(), bytes.len());
            // SAFETY: the map keeps the bytes where they are until the page is dropped.
            unsafe { RawPage::new(stored.n_tokens, format, part(&stored.keys), part(&stored.values)) }
        })
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        self.with(id, |stored| stored.n_tokens = n_tokens)
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        let gone = self.pages().remove(&id);
        gone.map(drop).ok_or_else(|| Error::new(Status::NotFound, format!("there is no page {id}")))
    }

    fn stats(&self) -> TierStats {
        let pages = self.pages();
        TierStats {
            pages: pages.len() as u64,
            tokens: pages.values().map(|page| page.n_tokens as u64).sum(),
            bytes: pages.values().map(|page| (page.keys.len() + page.values.len()) as u64).sum(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..TierStats::default()
        }
    }

    /// Scores a page by the first query's first element times its id.
    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        assert!(!query[0].is_nan(), "search was told to panic");
        let mut found: Vec<Found> =
            ids.iter().map(|id| Found { id: *id, score: query[0] * *id as f32 }).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(k);
        Ok(found)
    }
}
