//! Counts and times: of one request, of all requests together, and of this process's memory.
//!
//! Counting costs some hundred nanoseconds a token; a report is put together when it is read.

mod distribution;
mod heap;
mod memory;
mod monitor;
mod process;
mod request;
mod serving;
mod text;
mod throughput;

pub use crate::kv_cache::{TierTraffic, Traffic};
pub use heap::trim_heap;
pub use memory::{Leak, MemoryProfiler, MemorySnapshot, TierBytes};
pub use monitor::{PerformanceMonitor, Sample};
pub use process::{ProcessMemory, cpu_time, process_memory, reset_peak};
pub(crate) use request::RequestClock;
pub use request::{Quantiles, RequestMetrics};
pub use serving::{Outcomes, ServingMetrics, ServingReport, Step};
pub use text::{json, prometheus};
pub use throughput::{Phase, PhaseReport, ThroughputMeasurer};
