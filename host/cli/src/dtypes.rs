//! Element types, as the commands that write them list them.

use herald_api::DType;

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

/// A line for each type of which `listed` is true: its name, its size and what it is.
pub(super) fn list(listed: fn(DType) -> bool) -> String {
    let line = |dtype: DType| {
        let (name, bits) = (argument(dtype), dtype.bits_per_weight());
        format!("  {name:<7} {bits:>5.2} bits  {}", dtype.description())
    };
    by_size(listed).into_iter().map(line).collect::<Vec<_>>().join("\n")
}
