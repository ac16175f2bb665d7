//! From a model's logits to the next token.
//!
//! The samplers know nothing of models, and are a crate of their own, `herald-sampler`. How a model's makers want its tokens
//! chosen is read here.

mod recommended;

#[doc(inline)]
pub use herald_sampler::{Sampled, Sampler, SamplerConfig, SamplerError, SamplerState, logprobs};
pub use recommended::recommended;
