//! The C side of the boundary, exactly as C sees it; `include/herald_plugin.h` is generated from these files and
//! those of the layers' kinds.
//!
//! Rules: every struct begins with `struct_size`, fields are only ever appended, and a reader touches a field only
//! where `struct_size` covers it (see [`read`]); a null function is "not offered"; unknown constants are errors.

// The comments are the C header's: their brackets are shapes, not links.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod layer;
mod opaque;
mod plugin;
mod tier;
mod tokenizer;

pub use layer::*;
pub use opaque::*;
pub use plugin::*;
pub use tier::*;
pub use tokenizer::*;

pub use crate::layers::c::*;

/// The name of the symbol that every plugin exports.
pub const ENTRY_SYMBOL: &str = "herald_plugin_v1";

/// The largest `struct_size` that is believed: a greater one is a damaged or hostile plugin, not a newer one.
pub const MAX_STRUCT_SIZE: usize = 1 << 16;

/// A struct of the ABI.
///
/// # Safety
/// `Self` is `#[repr(C)]`, begins with `struct_size: usize`, and holds only integers, floats, raw pointers and optional
/// functions, so that all zeros is a value of it. `REQUIRED` is the offset of a field boundary.
pub unsafe trait AbiStruct: Copy {
    /// The C name, for errors.
    const NAME: &'static str;
    /// The least `struct_size` with which the struct is of any use: the end of its last required field.
    const REQUIRED: usize;

    /// All zeros, with `struct_size` set to the whole struct.
    fn empty() -> Self {
        // SAFETY: the trait's contract says that all zeros is a value, and that the first field is a usize.
        unsafe {
            let mut value: Self = std::mem::zeroed();
            (&raw mut value).cast::<usize>().write(size_of::<Self>());
            value
        }
    }
}

/// Makes structs [`AbiStruct`]s, each with its last required field.
macro_rules! abi_structs {
    ($($name:ident up to $last:ident),* $(,)?) => {$(
        // SAFETY: the struct is repr(C) with struct_size first, and of plain C types (this module's rule; the golden
        // layout test looks at each).
        unsafe impl $crate::abi::AbiStruct for $name {
            const NAME: &'static str = stringify!($name);
            const REQUIRED: usize = std::mem::offset_of!($name, $last)
                + $crate::abi::field_size(|s: &$name| &raw const s.$last);
        }
    )*};
}
pub(crate) use abi_structs;

pub(crate) const fn field_size<S, F>(_: fn(&S) -> *const F) -> usize {
    size_of::<F>()
}

abi_structs! {
    HeraldError up to message,
    HeraldHost up to log,
    HeraldHardware up to features,
    HeraldProbe up to variant,
    HeraldTask up to run,
    HeraldParallel up to run,
    HeraldPlugin up to probe,
    HeraldTensor up to data_bytes,
    HeraldLayerDesc up to norm_eps,
    HeraldLayerRequest up to page_tokens,
    HeraldPackStore up to filled,
    HeraldLayerInfo up to scratch_bytes,
    HeraldPage up to value_bytes,
    HeraldLora up to scale,
    HeraldSequence up to n_pages,
    HeraldFetch up to run,
    HeraldCall up to parallel,
    HeraldProduct up to input,
    HeraldObserver up to product,
    HeraldLayerTable up to destroy,
    HeraldVocabulary up to flags,
    HeraldTokenizerTable up to destroy,
    HeraldTierConfig up to page_tokens,
    HeraldTierQuery up to n_queries,
    HeraldTierStats up to bytes,
    HeraldTierTable up to destroy,
}

/// Reads a struct of the other side: the fields that its `struct_size` covers, and zeros for the rest.
///
/// # Errors
/// One sentence where the pointer is null or misaligned, or the size is less than what is required or past all belief.
///
/// # Safety
/// A pointer that is not null and is aligned must point to a `struct_size` and to as many readable bytes as it says.
#[inline]
pub unsafe fn read<T: AbiStruct>(pointer: *const T) -> Result<T, String> {
    if pointer.is_null() {
        return Err(format!("{} is null", T::NAME));
    }
    if !pointer.is_aligned() {
        return Err(format!("{} at {pointer:p} is not aligned to {} bytes", T::NAME, align_of::<T>()));
    }
    // SAFETY: not null, aligned, and by this function's contract it points to a struct_size.
    let size = unsafe { pointer.cast::<usize>().read() };
    // A struct from before a field ends at a boundary. What ends within a later word would leave a part of a pointer, which
    // is left out: so the field is as if it weren't there.
    let whole =
        if size < size_of::<T>() { (size - size % align_of::<T>()).max(T::REQUIRED) } else { size_of::<T>() };
    if size < T::REQUIRED || size > MAX_STRUCT_SIZE {
        return Err(format!(
            "{} says that it has {size} bytes, where {} to {MAX_STRUCT_SIZE} were expected",
            T::NAME,
            T::REQUIRED
        ));
    }
    let mut value = T::empty();
    // SAFETY: both sides hold at least so many bytes, and they can't overlap: `value` is our own.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), whole);
    }
    Ok(value)
}

/// Fills a struct that the other side gave to be filled: only the fields that its own `struct_size` covers, which stays
/// as it was.
///
/// # Errors
/// As for [`read`].
///
/// # Safety
/// As for [`read`], and the bytes must be writable, with nobody else at them.
pub unsafe fn write<T: AbiStruct>(pointer: *mut T, value: &T) -> Result<(), String> {
    // SAFETY: this function's contract includes `read`'s.
    unsafe { read(pointer.cast_const())? };
    // SAFETY: `read` has checked the pointer; the first field is the size, which is skipped.
    unsafe {
        let size = pointer.cast::<usize>().read().min(size_of::<T>());
        let skip = size_of::<usize>();
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>().add(skip),
            pointer.cast::<u8>().add(skip),
            size - skip,
        );
    }
    Ok(())
}
