//! What a rendering may use: work, memory, depth. Everything that takes time or memory asks here first.

use std::cell::Cell;
use std::rc::Rc;

use super::error::Error;

/// Depth of nested expressions, statements, calls and compared values, which costs stack.
const MAX_DEPTH: u32 = 1000;
/// Bytes that are copied, compared or searched as fast as one step of a template takes.
const COPIED: u64 = 256;
/// Characters that are looked at one by one as fast as that.
const SCANNED: u64 = 8;

/// Counts what a rendering uses.
#[derive(Debug)]
pub(super) struct Meter {
    work: Cell<u64>,
    max_work: u64,
    live: Cell<usize>,
    max_live: usize,
    depth: Cell<u32>,
}

/// All values share one meter.
pub(super) type Shared = Rc<Meter>;

impl Meter {
    pub(super) fn new(max_work: u64, max_live: usize) -> Shared {
        Rc::new(Self { work: Cell::new(0), max_work, live: Cell::new(0), max_live, depth: Cell::new(0) })
    }

    /// Pays for steps. One takes some ten nanoseconds.
    pub(super) fn work(&self, steps: u64) -> Result<(), Error> {
        let used = self.work.get().saturating_add(steps);
        self.work.set(used);
        if used > self.max_work { Err(Error::too_much_work(self.max_work)) } else { Ok(()) }
    }

    /// The bytes that are paid for now.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.live.get()
    }

    /// Pays for copying or comparing bytes.
    pub(super) fn copied(&self, bytes: usize) -> Result<(), Error> {
        self.work(bytes as u64 / COPIED)
    }

    /// Pays for looking at characters, one by one.
    pub(super) fn scanned(&self, bytes: usize) -> Result<(), Error> {
        self.work(bytes as u64 / SCANNED)
    }

    /// Pays for memory, as long as the charge lives.
    pub(super) fn charge(self: &Rc<Self>, bytes: usize) -> Result<Charge, Error> {
        let mut charge = Charge { meter: self.clone(), bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// One level deeper; [`Meter::leave`] comes back.
    pub(super) fn enter(&self) -> Result<(), Error> {
        self.work(1)?;
        let depth = self.depth.get() + 1;
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("values or calls are nested more than {MAX_DEPTH} deep")));
        }
        self.depth.set(depth);
        Ok(())
    }

    /// One level up. After an error nobody does: the rendering ends.
    pub(super) fn leave(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }
}

/// Memory that is paid for, and given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    meter: Shared,
    bytes: usize,
}

impl Charge {
    /// Pays for more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let live = self.meter.live.get().saturating_add(bytes);
        if live > self.meter.max_live {
            return Err(Error::too_much_memory(self.meter.max_live));
        }
        // New memory has to be written once, whatever comes into it.
        self.meter.copied(bytes)?;
        self.meter.live.set(live);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.live.set(self.meter.live.get().saturating_sub(self.bytes));
    }
}
