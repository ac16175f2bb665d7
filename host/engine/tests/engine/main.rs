//! The engine from outside, with real plugins and small models.

mod attention_plugin;
mod backend_choice;
mod cancel;
mod constrain;
mod contexts;
mod drafts;
mod endings;
mod long_contexts;
mod loras;
mod metrics;
mod models;
mod mtp;
mod oracles;
mod overrides;
#[cfg(target_os = "linux")]
mod packs;
#[cfg(unix)]
mod plugins;
mod predictions;
mod prefix;
mod real_models;
mod reuse;
mod schedule;
mod smollm2;
mod state;
mod tiers;
mod turns;
