//! A host's store of packed weights, for tests.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;

use herald_api::{AlignedBytes, Error, KeptPack, PackKeeper, Result};

/// A weight's address, its bytes, and the form that it is packed in.
type Key = (usize, usize, u64);

/// Keeps packed weights in memory.
#[derive(Default)]
pub(super) struct Keeper(Mutex<HashMap<Key, (AlignedBytes, bool)>>);

impl Keeper {
    /// How many weights are filled, and whether all are that were taken.
    pub(super) fn filled(&self) -> (usize, bool) {
        let kept = self.0.lock().expect("no test panicked with it");
        let filled = kept.values().filter(|(_, is_filled)| *is_filled).count();
        (filled, filled == kept.len())
    }
}

// SAFETY: the memory is the map's, which never drops any, and is given away once until it is filled.
unsafe impl PackKeeper for Keeper {
    fn take(&self, source: usize, source_bytes: usize, form: u64, bytes: usize) -> Result<KeptPack> {
        let mut kept = self.0.lock().expect("no test panicked with it");
        let key = (source, source_bytes, form);
        if let Some((memory, is_filled)) = kept.get(&key) {
            let memory = NonNull::new(memory.as_ptr()).filter(|_| *is_filled && memory.len() == bytes);
            let memory =
                memory.ok_or_else(|| Error::invalid("a weight was taken twice, or in another size"))?;
            return Ok(KeptPack { memory, is_filled: true });
        }
        let memory = AlignedBytes::zeroed(bytes)?;
        let pointer = NonNull::new(memory.as_ptr()).ok_or_else(|| Error::invalid("no memory"))?;
        kept.insert(key, (memory, false));
        Ok(KeptPack { memory: pointer, is_filled: false })
    }

    fn filled(&self, memory: usize) -> Result<()> {
        let mut kept = self.0.lock().expect("no test panicked with it");
        let given = kept.values_mut().find(|(bytes, _)| bytes.as_ptr() as usize == memory);
        given.ok_or_else(|| Error::invalid("memory was filled that was not given"))?.1 = true;
        Ok(())
    }
}
