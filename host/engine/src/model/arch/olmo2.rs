//! OLMo 2 (arXiv 2501.00656): Llama whose branches norm what they give in place of what they take, with norms over all
//! queries and all keys.
//!
//! The differences are in which tensors a file has; RoPE is over halves, as in Qwen2.

pub(super) use super::qwen2::plan;
