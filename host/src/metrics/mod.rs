//! What happens and how fast, in numbers: of one request, and of everything together.

mod request;

pub(crate) use request::RequestClock;
pub use request::{Quantiles, RequestMetrics};
