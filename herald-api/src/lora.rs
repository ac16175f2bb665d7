//! Low-rank updates of a layer's weights (LoRA, arXiv 2106.09685), as a backend sees them.

use crate::WeightRole;
use crate::abi::{self, HeraldLora};

/// A low-rank update of one of a layer's weights: it adds `scale * up^T (down x)` to the weight's product with `x`, before
/// anything else is done with that.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'a> {
    /// The weight.
    pub role: WeightRole,
    /// Rows of `down` and of `up`.
    pub rank: usize,
    /// Elements of a row of `down`, and of the weight's.
    pub columns: usize,
    /// Elements of a row of `up`: the weight's rows.
    pub rows: usize,
    /// `[rank, columns]`.
    pub down: &'a [f32],
    /// `[rank, rows]`.
    pub up: &'a [f32],
    /// A finite number.
    pub scale: f32,
}

impl Lora<'_> {
    /// Checks what the host lent to a layer that takes ranks up to `max_rank`.
    ///
    /// # Safety
    /// The pointer is null or holds for the result's lifetime, as `HeraldLora` says.
    pub(crate) unsafe fn from_raw(raw: *const HeraldLora, max_rank: usize) -> Result<Self, String> {
        // SAFETY: the host's contract; `read` checks the struct.
        let raw = unsafe { abi::read(raw)? };
        let role = WeightRole::from_code(raw.role).ok_or_else(|| {
            format!("HeraldLora updates a weight of role {}, which isn't known here", raw.role)
        })?;
        let (rank, columns, rows) = (raw.rank as usize, raw.columns as usize, raw.rows as usize);
        if rank == 0 || rank > max_rank || !raw.scale.is_finite() {
            return Err(format!(
                "HeraldLora has rank {rank} and scale {}, where a rank of 1 to {max_rank} and a finite scale were expected",
                raw.scale
            ));
        }
        let len = |width: usize| {
            let len = width.checked_mul(rank).filter(|len| *len > 0);
            len.filter(|len| {
                len.checked_mul(size_of::<f32>()).is_some_and(|bytes| isize::try_from(bytes).is_ok())
            })
        };
        let aligned = |pointer: *const f32| !pointer.is_null() && pointer.is_aligned();
        let (Some(down), Some(up), true) = (len(columns), len(rows), aligned(raw.down) && aligned(raw.up))
        else {
            return Err(format!(
                "HeraldLora has {rank} rows of {columns} at {:p} and of {rows} at {:p}, where aligned memory of a possible size \
                 was expected",
                raw.down, raw.up
            ));
        };
        // SAFETY: not null, aligned, of a possible size, and by the host's contract so many numbers are there.
        let (down, up) =
            unsafe { (std::slice::from_raw_parts(raw.down, down), std::slice::from_raw_parts(raw.up, up)) };
        Ok(Self { role, rank, columns, rows, down, up, scale: raw.scale })
    }
}
