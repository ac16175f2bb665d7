//! The ABI's structs as a plugin gets them in checks: read-only, and at the end of readable memory, so that reading a field
//! that `struct_size` doesn't cover ends the process.

use std::mem::offset_of;

use herald_api::abi::{AbiStruct, HeraldCall, HeraldLayerDesc, HeraldLayerInfo, HeraldSequence};

use crate::Outcome;
use crate::guard::{Guarded, Place};

/// Which host's structs they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// This version's.
    Today,
    /// Those of the ABI's first version, which end earlier.
    First,
    /// A later host's, which go on with fields that the plugin can't know.
    Later,
}

/// Bytes that a later host's structs are longer.
const LATER_BYTES: usize = 64;

impl Age {
    /// The `struct_size` of a struct.
    fn bytes<T: AbiStruct>(self) -> usize {
        // Each first version ended where a field that came later begins.
        let first = [
            (HeraldLayerInfo::NAME, offset_of!(HeraldLayerInfo, page_formats)),
            (HeraldSequence::NAME, offset_of!(HeraldSequence, selectable_starts)),
            (HeraldCall::NAME, offset_of!(HeraldCall, fetch)),
            (HeraldLayerDesc::NAME, offset_of!(HeraldLayerDesc, mamba1)),
        ];
        match self {
            Self::Today => size_of::<T>(),
            Self::First => first
                .into_iter()
                .find(|(name, _)| *name == T::NAME)
                .map_or(T::REQUIRED, |(_, bytes)| bytes.max(T::REQUIRED)),
            Self::Later => size_of::<T>() + LATER_BYTES,
        }
    }
}

/// The bytes of a struct with the `struct_size` of its age.
fn bytes_of<T: AbiStruct>(value: &T, size: usize) -> Vec<u8> {
    // SAFETY: the trait's contract: plain integers, floats, pointers and functions, whose padding is none (its fields are
    // laid out by hand); a copy of the bytes is taken while the value is borrowed.
    let whole = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) };
    let mut bytes = whole[..size.min(whole.len())].to_vec();
    bytes.resize(size, 0x5a);
    bytes[..size_of::<usize>()].copy_from_slice(&size.to_ne_bytes());
    bytes
}

/// Structs and lists of pointers to them, kept for as long as a call needs them.
pub(super) struct Structs {
    age: Age,
    kept: Vec<Guarded>,
}

impl Structs {
    pub(super) fn new(age: Age) -> Self {
        Self { age, kept: Vec::new() }
    }

    /// A read-only copy of a struct.
    pub(super) fn one<T: AbiStruct>(&mut self, value: &T) -> Result<*const T, Outcome> {
        let bytes = bytes_of(value, self.age.bytes::<T>());
        self.keep(T::NAME, &bytes).map(<*const u8>::cast)
    }

    /// A copy of a struct that the plugin fills.
    pub(super) fn writable<T: AbiStruct>(&mut self, value: &T) -> Result<*mut T, Outcome> {
        let pointer = self.one(value)?;
        self.kept.last().inspect(|kept| kept.writable());
        Ok(pointer.cast_mut())
    }

    /// A read-only list of pointers to copies of structs; null where there are none.
    pub(super) fn list<T: AbiStruct>(&mut self, values: &[T]) -> Result<*const *const T, Outcome> {
        if values.is_empty() {
            return Ok(std::ptr::null());
        }
        let size = self.age.bytes::<T>();
        let all: Vec<u8> = values.iter().flat_map(|value| bytes_of(value, size)).collect();
        let first = self.keep(T::NAME, &all)?;
        let pointers: Vec<u8> =
            (0..values.len()).flat_map(|index| (first as usize + index * size).to_ne_bytes()).collect();
        self.keep("a list of pointers", &pointers).map(<*const u8>::cast)
    }

    /// A read-only copy of a description, with the parameters of its kind; `parameter`, an offset, gets another number.
    pub(super) fn desc(
        &mut self,
        desc: &HeraldLayerDesc,
        parameter: Option<(usize, u32)>,
    ) -> Result<*const HeraldLayerDesc, Outcome> {
        let mut copy = *desc;
        let size = size_of::<HeraldLayerDesc>();
        let mut end = self.age.bytes::<HeraldLayerDesc>();
        for at in (offset_of!(HeraldLayerDesc, attention)..size).step_by(size_of::<usize>()) {
            // SAFETY: from the first kind's parameters on, every field is a pointer to a struct of the ABI, or null.
            unsafe {
                let field = (&raw mut copy).cast::<u8>().add(at).cast::<*const u8>();
                let params = field.read();
                if params.is_null() {
                    continue;
                }
                let bytes = params.cast::<usize>().read();
                let mut params = std::slice::from_raw_parts(params, bytes).to_vec();
                if let Some((at, number)) = parameter {
                    params[at..at + 4].copy_from_slice(&number.to_ne_bytes());
                }
                if self.age == Age::Later {
                    params.resize(bytes + LATER_BYTES, 0x5a);
                    let size = params.len().to_ne_bytes();
                    params[..size_of::<usize>()].copy_from_slice(&size);
                }
                field.write(self.keep("the parameters of the layer's kind", &params)?);
                // A kind that came later came with a longer description.
                end = end.max(at + size_of::<usize>());
            }
        }
        let bytes = bytes_of(&copy, end);
        self.keep(HeraldLayerDesc::NAME, &bytes).map(<*const u8>::cast)
    }

    /// Fails where something wrote beside one of them.
    pub(super) fn check_beside(&self) -> Result<(), Outcome> {
        self.kept.iter().try_for_each(Guarded::check_beside)
    }

    fn keep(&mut self, what: &'static str, bytes: &[u8]) -> Result<*const u8, Outcome> {
        let kept = Guarded::copy_of(what, bytes, align_of::<usize>(), Place::High)?;
        let pointer = kept.pointer().cast_const();
        self.kept.push(kept);
        Ok(pointer)
    }
}
