//! The shapes of weights.

use std::fmt;

use super::WeightRole;

/// The shape of a weight as a layer's description asks for it, and whether the layer can do without. Sizes of
/// descriptions that nobody can mean saturate: no weight has such a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightShape {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    /// Another shape that it may have, `[rows, columns]`.
    pub or: Option<[usize; 2]>,
    /// Whether it must be there.
    pub need: Need,
}

/// Whether a layer must have a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// The layer computes something else without it.
    Optional,
    /// It must be there unless a weight of one of these roles is.
    Unless(&'static [WeightRole]),
}

impl WeightShape {
    /// `[rows, columns]`, and required.
    #[must_use]
    pub fn matrix(rows: usize, columns: usize) -> Self {
        Self { rows, columns, or: None, need: Need::Required }
    }

    /// One row of `len`, and required.
    #[must_use]
    pub fn vector(len: usize) -> Self {
        Self::matrix(1, len)
    }

    /// `[rows, columns]`, or all of its elements in one row, as some files keep what no product takes. Required.
    #[must_use]
    pub fn table(rows: usize, columns: usize) -> Self {
        Self::matrix(rows, columns).or(1, rows.saturating_mul(columns))
    }

    /// May also be `[rows, columns]`.
    #[must_use]
    pub fn or(self, rows: usize, columns: usize) -> Self {
        Self { or: Some([rows, columns]), ..self }
    }

    /// May be left out.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { need: Need::Optional, ..self }
    }

    /// May be left out where there is a weight of another of these roles.
    #[must_use]
    pub fn unless(self, roles: &'static [WeightRole]) -> Self {
        Self { need: Need::Unless(roles), ..self }
    }

    /// Whether a weight of `rows` rows of `columns` elements is what was asked for.
    #[must_use]
    pub fn fits(&self, rows: usize, columns: usize) -> bool {
        [rows, columns] == [self.rows, self.columns] || self.or == Some([rows, columns])
    }
}

/// For messages: "96 rows of 64", "64 elements", "8 elements or 8 rows of 1".
impl fmt::Display for WeightShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, columns, .. } = *self;
        if rows == 1 {
            write!(f, "{columns} elements")?
        } else {
            write!(f, "{rows} rows of {columns}")?
        }
        match self.or {
            Some([rows, columns]) => write!(f, " or {}", Self::matrix(rows, columns)),
            None => Ok(()),
        }
    }
}
