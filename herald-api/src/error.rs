//! What a call that fails says: a status for programs, one sentence for people.

use std::fmt;

/// Why a call failed, by kind. The numbers are the ABI's (`HERALD_STATUS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    /// An argument contradicts the call's contract: a shape, a range, a missing pointer.
    InvalidArgument = 1,
    /// The request is well formed, and this plugin doesn't offer it.
    Unsupported = 2,
    /// Memory for the request could not be had.
    OutOfMemory = 3,
    /// The operating system refused a read or a write.
    Io = 4,
    /// Data failed a check: it is damaged, or was never what it claims to be.
    Corrupt = 5,
    /// The caller's buffer is too small; the needed size was reported.
    BufferTooSmall = 6,
    /// What the request names isn't there.
    NotFound = 7,
    /// The caller asked for the work to stop.
    Cancelled = 8,
    /// A fault of the plugin itself: a panic, a broken invariant.
    Internal = 9,
}

impl Status {
    /// The status with this number, or `None` for success (0) and for numbers that this version doesn't know.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::InvalidArgument,
            2 => Self::Unsupported,
            3 => Self::OutOfMemory,
            4 => Self::Io,
            5 => Self::Corrupt,
            6 => Self::BufferTooSmall,
            7 => Self::NotFound,
            8 => Self::Cancelled,
            9 => Self::Internal,
            _ => return None,
        })
    }

    /// The number that crosses the boundary.
    #[must_use]
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// A failed call: its status, and one sentence that says what, where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: String,
}

impl Error {
    /// An error of this kind that says `message`.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// An argument that contradicts the call's contract.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, message)
    }

    /// A request that this plugin doesn't offer.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Status::Unsupported, message)
    }

    /// The kind of failure.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The result of a call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
