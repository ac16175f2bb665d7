//! Metrics of an engine and its scheduler.

use std::ffi::c_char;

use herald_api::abi::HeraldError;

use super::arguments::Call;
use super::status::{Failure, Outcome};
use super::{HeraldEngine, HeraldMemoryUsage, HeraldScheduler};
use herald_engine::NeuroEngine;
use herald_engine::metrics::{self, ServingMetrics};

/// Fills usage, whose struct_size the caller must set, with what the tiers hold of all sequences of an engine; pages that several
/// share count once. Doesn't wait. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_usage(
    engine: *const HeraldEngine,
    usage: *mut HeraldMemoryUsage,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        call.fill(usage, &HeraldMemoryUsage::of_engine(engine))
    })
}

/// The metrics of an engine and, unless it is null, of one of its schedulers.
fn sources(
    call: &Call,
    engine: *const HeraldEngine,
    scheduler: *const HeraldScheduler,
) -> Outcome<(&NeuroEngine, Option<&ServingMetrics>)> {
    let engine = &call.handle(engine, "engine")?.engine;
    if scheduler.is_null() {
        return Ok((engine, None));
    }
    let scheduler = call.handle(scheduler, "scheduler")?;
    if !std::sync::Arc::ptr_eq(engine, scheduler.scheduler.engine()) {
        return Err(Failure::invalid("the scheduler belongs to another engine"));
    }
    Ok((engine, Some(scheduler.scheduler.metrics())))
}

/// Writes metrics as JSON, NUL-terminated UTF-8, to text, and its length without the NUL to *len: an object with the memory of the
/// process, what each memory tier holds, what has moved between them and, unless scheduler is null, what its requests took
/// (counts, tokens, quantiles of times in seconds). capacity: size of text in bytes, which must be greater than *len; the text
/// may be longer the next time, so leave some room. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the
/// length; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_metrics_json(
    engine: *const HeraldEngine,
    scheduler: *const HeraldScheduler,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let (engine, serving) = sources(call, engine, scheduler)?;
        call.write_text(metrics::json(engine, serving).to_string().as_bytes(), text, capacity, len)
    })
}

/// Like herald_metrics_json, in Prometheus's text format (OpenMetrics 1.0): serve it as
/// application/openmetrics-text; version=1.0.0; charset=utf-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_metrics_prometheus(
    engine: *const HeraldEngine,
    scheduler: *const HeraldScheduler,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let (engine, serving) = sources(call, engine, scheduler)?;
        call.write_text(metrics::prometheus(engine, serving).as_bytes(), text, capacity, len)
    })
}
