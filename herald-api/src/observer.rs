//! Products of weight matrices, shown to whoever computes importance matrices: both sides of it.

use std::ffi::c_void;
use std::sync::Arc;

use crate::abi::{self, AbiStruct, HeraldObserver, HeraldProduct};
use crate::marshal::{catch, slice};
use crate::{Error, Result};

/// A product that a layer is about to compute: of a weight matrix with a batch of activations.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The address of the matrix's first row, in the bytes that the layer was given.
    pub data: usize,
    /// Elements of a row.
    pub columns: usize,
    /// The activations `[n_tokens, columns]`.
    pub input: &'a [f32],
}

/// A host's observer, as a backend calls it.
#[derive(Clone, Copy, Debug)]
pub struct Observer(HeraldObserver);

// SAFETY: the ABI's contract: any thread may call it.
unsafe impl Send for Observer {}
// SAFETY: as for Send, and any number at once.
unsafe impl Sync for Observer {}

impl Observer {
    /// What a host gave; `None` where it is null.
    ///
    /// # Safety
    /// `pointer` is null, or a host's `HeraldObserver`, which is good until the host gives another.
    pub(crate) unsafe fn from_raw(pointer: *const HeraldObserver) -> Result<Option<Self>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the host's contract; `read` checks the struct.
        let raw = unsafe { abi::read(pointer).map_err(Error::invalid)? };
        if raw.product.is_none() {
            return Err(Error::invalid("HeraldObserver has no product function, where one was expected"));
        }
        Ok(Some(Self(raw)))
    }

    /// Shows a product of a matrix, whose rows begin where `rows` does, with the activations `input` `[n_tokens, columns]`.
    pub fn show(&self, rows: &[u8], columns: usize, input: &[f32]) {
        let product = HeraldProduct {
            data: rows.as_ptr().cast(),
            columns: columns as u64,
            n_tokens: (input.len() / columns.max(1)) as u64,
            input: input.as_ptr(),
            ..AbiStruct::empty()
        };
        if let Some(show) = self.0.product {
            // SAFETY: the host's contract for the context; the product is good for the call.
            unsafe { show(self.0.context, &product) };
        }
    }
}

/// A host's closure that is shown products.
pub(crate) type Watch = Arc<dyn Fn(&Product<'_>) + Send + Sync>;

/// The struct that shows products to a closure, for as long as that lives where it is.
pub(crate) fn raw(watch: &Watch) -> HeraldObserver {
    let context = std::ptr::from_ref(watch).cast_mut().cast();
    HeraldObserver { context, product: Some(show), ..AbiStruct::empty() }
}

unsafe extern "C" fn show(context: *mut c_void, product: *const HeraldProduct) {
    // SAFETY: the context is what `raw` gave, and lives until the plugin has another observer.
    let watch = unsafe { &*context.cast_const().cast::<Watch>() };
    // SAFETY: the plugin's contract for HeraldProduct.
    let input = unsafe {
        abi::read(product).map_err(Error::invalid).and_then(|raw| {
            let len = usize::try_from(raw.columns.saturating_mul(raw.n_tokens)).unwrap_or(usize::MAX);
            Ok((raw, slice(raw.input, len, "a product's activations")?))
        })
    };
    // A product that contradicts itself is a plugin's fault that says nothing of the model; a panic must not cross.
    if let Ok((raw, input)) = input {
        let product = Product { data: raw.data as usize, columns: raw.columns as usize, input };
        let _ = catch(|| watch(&product));
    }
}
