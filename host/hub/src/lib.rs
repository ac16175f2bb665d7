//! Models from [Hugging Face's hub](https://huggingface.co) and from other addresses: named, chosen, fetched, found again, removed.
//!
//! Files go into the cache that the hub's other clients share (`models--USER--REPO/blobs`, `refs`, `snapshots`), by the same names and
//! under the same locks: what huggingface_hub fetched in Python is found here, and the other way round.
//!
//! A fetch goes on from where an earlier one was cut, in this process or another; it is tried again, ever later, and a bounded
//! number of times; and what comes is compared with the size and the SHA-256 that the hub names. Everything is bounded: answers,
//! headers, redirects, and the time without a byte. The user's token goes to the hub alone.
//!
//! The crate `hf-hub` (1.0) doesn't go on with a cut file and compares no digest of what it fetched, and it brings reqwest, Xet's client
//! and a tokio of many threads, some 280 crates in all. So this uses ureq, with rustls as the server has it and the system's
//! certificates, which is six more on Linux.

mod address;
mod api;
mod cache;
mod download;
mod error;
mod http;
mod hub;
mod names;
mod offers;
mod pulled;
mod settings;
mod short;
mod watch;

pub use api::listed_files;
pub use error::{Error, Result};
pub use hub::{Fetched, Hub, Plan};
pub use names::{HubModel, Source, Wanted};
pub use offers::{ORDER, Offer, RepoFile, choose, offers};
pub use pulled::{From, Model};
pub use settings::{Patience, Proxies, Settings, Token};
pub use short::short_names;
pub use watch::{Event, Watch};
