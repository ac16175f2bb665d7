//! Packed weights that a host keeps: both sides of it.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::abi::{self, AbiStruct, HeraldError, HeraldPackStore};
use crate::marshal::{guard, try_call};
use crate::{AlignedBytes, Error, Result};

/// Where a host keeps packed weights, as a backend uses it while it makes a layer; `'w` is as long as the layer may live.
///
/// Only the thread that was handed it may use it, so it is neither `Send` nor `Sync`.
#[derive(Clone, Copy, Debug)]
pub struct PackStore<'w, 'p> {
    raw: HeraldPackStore,
    lent: PhantomData<(&'w (), &'p (), *mut ())>,
}

/// Memory for a weight in a backend's own form.
#[derive(Debug)]
pub enum Pack<'w> {
    /// It holds what was filled before, for the same weight and form.
    Filled(&'w [u8]),
    /// Zeros, to be filled and given to [`PackStore::fill`].
    Empty(&'w mut [u8]),
}

impl<'w> PackStore<'w, '_> {
    /// What a host gave; `None` where it is null.
    ///
    /// # Safety
    /// `pointer` is null, or a host's `HeraldPackStore` that is good for the lifetime `'p` on this thread, and whose memory is good for
    /// `'w`.
    pub(crate) unsafe fn from_raw(pointer: *const HeraldPackStore) -> Result<Option<Self>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the host's contract; `read` checks the struct.
        let raw = unsafe { abi::read(pointer).map_err(Error::invalid)? };
        if raw.take.is_none() || raw.filled.is_none() {
            return Err(Error::invalid(
                "HeraldPackStore lacks a function, where take and filled were expected",
            ));
        }
        Ok(Some(Self { raw, lent: PhantomData }))
    }

    /// Memory of `bytes` bytes, aligned to 64, for these bytes of one of the layer's weights in the form of this number.
    ///
    /// # Errors
    /// As the host fails: whoever packs then uses memory of its own.
    pub fn take(&self, source: &[u8], form: u64, bytes: usize) -> Result<Pack<'w>> {
        let Some(take) = self.raw.take else {
            return Err(Error::unsupported("the host keeps no packed weights"));
        };
        let (mut packed, mut is_filled) = (std::ptr::null_mut(), 0);
        // SAFETY: the host's contract for the context; the source is borrowed and the results are our own.
        try_call(|error| unsafe {
            let (source, len) = (source.as_ptr().cast(), source.len() as u64);
            take(self.raw.context, source, len, form, bytes as u64, &mut packed, &mut is_filled, error)
        })?;
        let packed: *mut u8 = packed.cast();
        if packed.is_null() || !(packed as usize).is_multiple_of(AlignedBytes::ALIGN) {
            return Err(Error::invalid(format!(
                "the host gave memory for packed weights at {packed:p}, where an address that is a multiple of {} was expected",
                AlignedBytes::ALIGN
            )));
        }
        // SAFETY: the host's contract: so many bytes for as long as the layer lives, which nobody writes once they are filled, and
        // which until then are this call's alone.
        Ok(unsafe {
            match is_filled {
                0 => Pack::Empty(std::slice::from_raw_parts_mut(packed, bytes)),
                _ => Pack::Filled(std::slice::from_raw_parts(packed, bytes)),
            }
        })
    }

    /// Gives filled memory to the host to keep. It can be read from then on, also where the host doesn't keep it.
    pub fn fill(&self, packed: &'w mut [u8]) -> &'w [u8] {
        if let Some(filled) = self.raw.filled {
            // SAFETY: the host's contract for the context. Where it fails, it keeps nothing for others, which costs only time.
            let _ = try_call(|error| unsafe { filled(self.raw.context, packed.as_ptr().cast(), error) });
        }
        packed
    }
}

/// Memory that a [`PackKeeper`] gives.
#[derive(Clone, Copy, Debug)]
pub struct KeptPack {
    /// Its first byte.
    pub memory: NonNull<u8>,
    /// Whether it holds packed weights.
    pub is_filled: bool,
}

/// A host's store of packed weights.
///
/// # Safety
/// [`PackKeeper::take`] gives `bytes` bytes that stay there for as long as the keeper lives, aligned to 64. Where they are filled, nobody
/// writes them; otherwise they are zeros that are given to nobody else until they are filled, and written by nobody but who took them.
pub unsafe trait PackKeeper: Send + Sync {
    /// Memory of `bytes` bytes for the `source_bytes` bytes at the address `source`, packed in this form. The addresses are those of
    /// weights' bytes, or anything, where a plugin is wrong; they are not to be read.
    ///
    /// # Errors
    /// Where it keeps none.
    fn take(&self, source: usize, source_bytes: usize, form: u64, bytes: usize) -> Result<KeptPack>;

    /// The memory at this address, which `take` gave, is filled.
    ///
    /// # Errors
    /// Where `take` gave no such memory.
    fn filled(&self, memory: usize) -> Result<()>;
}

/// The struct that lends a keeper, for as long as it stays where it is.
pub(crate) fn raw(keeper: &Arc<dyn PackKeeper>) -> HeraldPackStore {
    let context = std::ptr::from_ref(keeper).cast_mut().cast();
    HeraldPackStore { context, take: Some(take), filled: Some(filled), ..AbiStruct::empty() }
}

unsafe extern "C" fn take(
    context: *mut c_void,
    source: *const c_void,
    source_bytes: u64,
    form: u64,
    packed_bytes: u64,
    packed: *mut *mut c_void,
    is_filled: *mut u32,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the context is what `raw` gave, which lives for the call that lends it; the plugin's contract for the rest.
    unsafe {
        guard(error, || {
            if packed.is_null() || is_filled.is_null() {
                return Err(Error::invalid(
                    "take was given nowhere to put the memory (packed or is_filled is null)",
                ));
            }
            let keeper = &*context.cast_const().cast::<Arc<dyn PackKeeper>>();
            let bytes = |bytes: u64| {
                usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).ok_or_else(|| {
                    Error::invalid(format!("memory for {bytes} bytes of packed weights was asked for"))
                })
            };
            let kept = keeper.take(source as usize, bytes(source_bytes)?, form, bytes(packed_bytes)?)?;
            packed.write(kept.memory.as_ptr().cast());
            is_filled.write(u32::from(kept.is_filled));
            Ok(())
        })
    }
}

unsafe extern "C" fn filled(context: *mut c_void, packed: *const c_void, error: *mut HeraldError) -> u32 {
    // SAFETY: the context is what `raw` gave, which lives for the call that lends it.
    unsafe {
        guard(error, || {
            let keeper = &*context.cast_const().cast::<Arc<dyn PackKeeper>>();
            keeper.filled(packed as usize)
        })
    }
}
