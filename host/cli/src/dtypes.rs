//! Element types, as the commands that write them list them.

use clap::builder::PossibleValue;
use herald_api::DType;
use herald_formats::is_writable;

/// A type's name as an argument.
pub(super) fn argument(dtype: DType) -> String {
    dtype.name().to_lowercase()
}

/// The types of which `listed` is true, the largest first.
pub(super) fn by_size(listed: fn(DType) -> bool) -> Vec<DType> {
    let mut dtypes: Vec<DType> = DType::ALL.into_iter().filter(|dtype| listed(*dtype)).collect();
    dtypes.sort_by(|a, b| b.bits_per_weight().total_cmp(&a.bits_per_weight()));
    dtypes
}

/// The types of which `listed` is true, as an argument's values: with their sizes and what they are.
pub(super) fn values(listed: fn(DType) -> bool) -> Vec<PossibleValue> {
    let value = |dtype: DType| {
        let about = format!("{:.2} bits, {}", dtype.bits_per_weight(), dtype.description());
        PossibleValue::new(argument(dtype)).help(about)
    };
    by_size(listed).into_iter().map(value).collect()
}

/// The types that can be written, as an argument's values.
pub(super) fn all_writable() -> Vec<PossibleValue> {
    values(is_writable)
}

/// The type of this name, where it can be written.
pub(super) fn writable(name: &str) -> Result<DType, String> {
    DType::from_name(name).filter(|dtype| is_writable(*dtype)).ok_or_else(|| {
        let names: Vec<String> = by_size(is_writable).into_iter().map(argument).collect();
        format!("one of these was expected: {}", names.join(", "))
    })
}
