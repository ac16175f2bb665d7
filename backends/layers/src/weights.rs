//! A layer's weights by role, checked against the shapes that its description asks for.

use herald_api::{Error, LayerRequest, Result, Weight, WeightRole};

use crate::kernels::Kernels;
use crate::linear::{Linear, Rows};

/// The weights of a request, each to be taken once.
pub(crate) struct Weights<'r, 'w> {
    layer: String,
    left: Vec<&'r Weight<'w>>,
    kernels: &'static Kernels,
}

impl<'r, 'w> Weights<'r, 'w> {
    pub(crate) fn new(kernels: &'static Kernels, request: &'r LayerRequest<'w, '_>) -> Self {
        let layer = format!("the {} layer of block {}", request.desc.kind().name(), request.desc.block);
        Self { layer, left: request.weights.iter().collect(), kernels }
    }

    fn find(&mut self, role: WeightRole) -> Option<&'r Weight<'w>> {
        let place = self.left.iter().position(|weight| weight.role == role)?;
        Some(self.left.swap_remove(place))
    }

    fn missing(&self, role: WeightRole) -> Error {
        Error::invalid(format!("{} has no {role:?} weight, where one was expected", self.layer))
    }

    /// The matrix `[rows, columns]` of this role.
    pub(crate) fn matrix(&mut self, role: WeightRole, rows: usize, columns: usize) -> Result<Linear<'w>> {
        let weight = self.find(role).ok_or_else(|| self.missing(role))?;
        check(weight, rows, columns)?;
        Ok(Linear::new(self.kernels, weight))
    }

    /// The rows of this role, to be looked up.
    pub(crate) fn rows(&mut self, role: WeightRole, rows: usize, columns: usize) -> Result<Rows<'w>> {
        let weight = self.find(role).ok_or_else(|| self.missing(role))?;
        check(weight, rows, columns)?;
        Ok(Rows::new(self.kernels, weight))
    }

    /// The matrix of this role with its bias, where there is one.
    pub(crate) fn biased(
        &mut self,
        role: WeightRole,
        bias: WeightRole,
        rows: usize,
        columns: usize,
    ) -> Result<Linear<'w>> {
        let mut linear = self.matrix(role, rows, columns)?;
        linear.set_bias(self.optional_vector(bias, rows)?);
        Ok(linear)
    }

    /// The vector of this role as float32.
    pub(crate) fn vector(&mut self, role: WeightRole, len: usize) -> Result<Vec<f32>> {
        self.optional_vector(role, len)?.ok_or_else(|| self.missing(role))
    }

    /// The norm at a branch's entry, which a branch whose output is normed may leave out.
    pub(crate) fn entry_norm(&mut self, hidden: usize) -> Result<Option<Vec<f32>>> {
        if self.left.iter().any(|weight| weight.role == WeightRole::PostNorm) {
            return self.optional_vector(WeightRole::Norm, hidden);
        }
        self.vector(WeightRole::Norm, hidden).map(Some)
    }

    /// The vector of this role as float32, where there is one.
    pub(crate) fn optional_vector(&mut self, role: WeightRole, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(weight) = self.find(role) else { return Ok(None) };
        check(weight, 1, len)?;
        let mut vector = vec![0.0; len];
        ((self.kernels.rows)(weight.dtype).dequantize)(weight.bytes, &mut vector);
        Ok(Some(vector))
    }

    /// The vector of this role as float32, where there is one, of one length or another.
    pub(crate) fn optional_vector_of(
        &mut self,
        role: WeightRole,
        lens: [usize; 2],
    ) -> Result<Option<Vec<f32>>> {
        let of_second = |weight: &&&Weight<'_>| weight.role == role && weight.columns == lens[1];
        let len = if self.left.iter().any(|weight| of_second(&weight)) { lens[1] } else { lens[0] };
        self.optional_vector(role, len)
    }

    /// The matrix of this role as float32, for weights that no product takes. Files may split a vector into rows: one of
    /// `rows * columns` elements may come as either.
    pub(crate) fn floats(&mut self, role: WeightRole, rows: usize, columns: usize) -> Result<Vec<f32>> {
        self.optional_floats(role, rows, columns)?.ok_or_else(|| self.missing(role))
    }

    /// As [`Weights::floats`], where there is one.
    pub(crate) fn optional_floats(
        &mut self,
        role: WeightRole,
        rows: usize,
        columns: usize,
    ) -> Result<Option<Vec<f32>>> {
        let Some(weight) = self.find(role) else { return Ok(None) };
        if (weight.rows, weight.columns) != (1, rows * columns) {
            check(weight, rows, columns)?;
        }
        let mut floats = vec![0.0; rows * columns];
        let dequantize = (self.kernels.rows)(weight.dtype).dequantize;
        let row_bytes = weight.bytes.len() / weight.rows;
        for (row, out) in weight.bytes.chunks_exact(row_bytes).zip(floats.chunks_exact_mut(weight.columns)) {
            dequantize(row, out);
        }
        Ok(Some(floats))
    }

    /// The matrices `[rows, columns]` of this role, `count` of them one after another in one tensor.
    pub(crate) fn matrices(
        &mut self,
        role: WeightRole,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<Linear<'w>>> {
        let weight = self.find(role).ok_or_else(|| self.missing(role))?;
        check(weight, count.saturating_mul(rows), columns)?;
        let bytes = weight.bytes.len() / count.max(1);
        let one = |bytes| Linear::new(self.kernels, &Weight { rows, bytes, ..*weight });
        Ok(weight.bytes.chunks_exact(bytes.max(1)).map(one).collect())
    }

    /// Says that everything has been taken: a weight that nobody asked for is one that the layer can't do.
    pub(crate) fn finish(self) -> Result<()> {
        self.left.first().map_or(Ok(()), |weight| {
            Err(Error::unsupported(format!(
                "{} has the weight {} ({:?}), which this backend doesn't know in it",
                self.layer, weight.name, weight.role
            )))
        })
    }
}

fn check(weight: &Weight<'_>, rows: usize, columns: usize) -> Result<()> {
    if (weight.rows, weight.columns) == (rows, columns) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the tensor {} has {} rows of {} elements, where the model's description asks for {rows} of {columns}",
        weight.name, weight.rows, weight.columns
    )))
}
