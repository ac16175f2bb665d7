//! Qwen3 (arXiv 2505.09388): Qwen2 with norms over each query and key head in place of biases.
//!
//! The difference is in which tensors a file has, so the plan is Qwen2's.

pub(super) use super::qwen2::plan;
