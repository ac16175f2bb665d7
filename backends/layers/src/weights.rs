//! A layer's weights by role, checked against the shapes that its description asks for.

use herald_api::{Error, LayerDesc, LayerRequest, Need, Result, Weight, WeightRole, WeightShape};

use crate::kernels::Kernels;
use crate::linear::{Linear, Rows};
use crate::norm::{ExitNorm, Norm};

/// The weights of a request, each to be taken once.
pub(crate) struct Weights<'r, 'w> {
    desc: &'r LayerDesc,
    all: &'r [Weight<'w>],
    left: Vec<&'r Weight<'w>>,
    kernels: &'static Kernels,
}

impl<'r, 'w> Weights<'r, 'w> {
    pub(crate) fn new(kernels: &'static Kernels, request: &'r LayerRequest<'w, '_>) -> Self {
        Self { desc: &request.desc, all: &request.weights, left: request.weights.iter().collect(), kernels }
    }

    /// For messages.
    fn layer(&self) -> String {
        format!("the {} layer of block {}", self.desc.kind().name(), self.desc.block)
    }

    /// The weight of this role, in the shape that the description asks for; `None` where there is none and the layer can do
    /// without.
    fn find(&mut self, role: WeightRole) -> Result<Option<&'r Weight<'w>>> {
        let Some(shape) = self.desc.weight_shape(role) else { return Ok(None) };
        let has = |role| self.all.iter().any(|weight| weight.role == role);
        let required = match shape.need {
            Need::Required => true,
            Need::Optional => false,
            Need::Unless(others) => !others.iter().any(|other| has(*other)),
        };
        let Some(index) = self.left.iter().position(|weight| weight.role == role) else {
            return if required { Err(self.missing(role)) } else { Ok(None) };
        };
        let weight = self.left.swap_remove(index);
        check(weight, shape)?;
        Ok(Some(weight))
    }

    fn required(&mut self, role: WeightRole) -> Result<&'r Weight<'w>> {
        self.find(role)?.ok_or_else(|| self.missing(role))
    }

    fn missing(&self, role: WeightRole) -> Error {
        Error::invalid(format!("{} has no {role:?} weight, where one was expected", self.layer()))
    }

    fn linear(&self, weight: &Weight<'w>) -> Linear<'w> {
        Linear::new(self.kernels, weight, self.desc.activations)
    }

    /// The matrix of this role.
    pub(crate) fn matrix(&mut self, role: WeightRole) -> Result<Linear<'w>> {
        let weight = self.required(role)?;
        Ok(self.linear(weight))
    }

    /// The matrix of this role, where the description asks for one.
    pub(crate) fn optional_matrix(&mut self, role: WeightRole) -> Result<Option<Linear<'w>>> {
        Ok(self.find(role)?.map(|weight| self.linear(weight)))
    }

    /// The rows of this role, to be looked up.
    pub(crate) fn rows(&mut self, role: WeightRole) -> Result<Rows<'w>> {
        Ok(Rows::new(self.kernels, self.required(role)?))
    }

    /// The rows of this role, where there are any.
    pub(crate) fn optional_rows(&mut self, role: WeightRole) -> Result<Option<Rows<'w>>> {
        Ok(self.find(role)?.map(|weight| Rows::new(self.kernels, weight)))
    }

    /// The matrix of this role with its bias, where there is one.
    pub(crate) fn biased(&mut self, role: WeightRole, bias: WeightRole) -> Result<Linear<'w>> {
        let mut linear = self.matrix(role)?;
        linear.set_bias(self.optional_vector(bias)?);
        Ok(linear)
    }

    /// The matrix of this role with its bias, where the description asks for them.
    pub(crate) fn optional_biased(
        &mut self,
        role: WeightRole,
        bias: WeightRole,
    ) -> Result<Option<Linear<'w>>> {
        let Some(mut linear) = self.optional_matrix(role)? else { return Ok(None) };
        linear.set_bias(self.optional_vector(bias)?);
        Ok(Some(linear))
    }

    /// The norm at the layer's entry.
    pub(crate) fn entry_norm(&mut self) -> Result<Option<Norm>> {
        let layer_norm = self.layer_norm(WeightRole::LayerNorm, WeightRole::LayerNormBias)?;
        if layer_norm.is_some() {
            return Ok(layer_norm);
        }
        if let Some(scale) = self.optional_vector(WeightRole::InputScale)? {
            return Ok(Some(Norm::Scale(scale)));
        }
        Ok(self.optional_vector(WeightRole::Norm)?.map(Norm::Rms))
    }

    /// The norm at a branch's end.
    pub(crate) fn exit_norm(&mut self) -> Result<Option<ExitNorm>> {
        let sum = self.layer_norm(WeightRole::ResidualNorm, WeightRole::ResidualNormBias)?;
        if sum.is_some() {
            return Ok(sum.map(ExitNorm::Sum));
        }
        let weight = self.optional_vector(WeightRole::PostNorm)?;
        Ok(weight.map(|weight| ExitNorm::Branch(Norm::Rms(weight))))
    }

    /// The layer norm of these roles.
    pub(crate) fn layer_norm(&mut self, role: WeightRole, bias: WeightRole) -> Result<Option<Norm>> {
        let Some(weight) = self.optional_vector(role)? else { return Ok(None) };
        let bias = self.optional_vector(bias)?.unwrap_or_else(|| vec![0.0; weight.len()]);
        Ok(Some(Norm::Layer { weight, bias }))
    }

    /// The elements of this role's weight as float32, row after row: what no product takes.
    pub(crate) fn vector(&mut self, role: WeightRole) -> Result<Vec<f32>> {
        let weight = self.required(role)?;
        Ok(self.floats(weight))
    }

    /// As [`Weights::vector`]; `None` where there is none and the layer can do without.
    pub(crate) fn optional_vector(&mut self, role: WeightRole) -> Result<Option<Vec<f32>>> {
        let weight = self.find(role)?;
        Ok(weight.map(|weight| self.floats(weight)))
    }

    /// The one element of this role's weight.
    pub(crate) fn optional_number(&mut self, role: WeightRole) -> Result<Option<f32>> {
        Ok(self.optional_vector(role)?.and_then(|numbers| numbers.first().copied()))
    }

    fn floats(&self, weight: &Weight<'_>) -> Vec<f32> {
        let mut floats = vec![0.0; weight.rows * weight.columns];
        let dequantize = (self.kernels.rows)(weight.dtype).dequantize;
        let row_bytes = weight.bytes.len() / weight.rows;
        for (row, out) in weight.bytes.chunks_exact(row_bytes).zip(floats.chunks_exact_mut(weight.columns)) {
            dequantize(row, out);
        }
        floats
    }

    /// The `count` matrices of this role, which lie one after another in one tensor.
    pub(crate) fn matrices(&mut self, role: WeightRole, count: usize) -> Result<Vec<Linear<'w>>> {
        let weight = self.required(role)?;
        Ok(self.split(weight, count))
    }

    /// As [`Weights::matrices`]; `None` where there is none and the layer can do without.
    pub(crate) fn optional_matrices(
        &mut self,
        role: WeightRole,
        count: usize,
    ) -> Result<Option<Vec<Linear<'w>>>> {
        Ok(self.find(role)?.map(|weight| self.split(weight, count)))
    }

    fn split(&self, weight: &Weight<'w>, count: usize) -> Vec<Linear<'w>> {
        let (rows, bytes) = (weight.rows / count.max(1), weight.bytes.len() / count.max(1));
        let one = |bytes| self.linear(&Weight { rows, bytes, ..*weight });
        weight.bytes.chunks_exact(bytes.max(1)).map(one).collect()
    }

    /// The same with their biases, where there are any, which lie one after another too.
    pub(crate) fn biased_matrices(
        &mut self,
        role: WeightRole,
        bias: WeightRole,
        count: usize,
    ) -> Result<Vec<Linear<'w>>> {
        let mut linears = self.matrices(role, count)?;
        if let Some(biases) = self.optional_vector(bias)? {
            for (linear, bias) in linears.iter_mut().zip(biases.chunks_exact(biases.len() / count.max(1))) {
                linear.set_bias(Some(bias.to_vec()));
            }
        }
        Ok(linears)
    }

    /// Says that everything has been taken: a weight that nobody asked for is one that the layer can't do.
    pub(crate) fn finish(self) -> Result<()> {
        self.left.first().map_or(Ok(()), |weight| {
            Err(Error::unsupported(format!(
                "{} has the weight {} ({:?}), which this backend doesn't know in it",
                self.layer(),
                weight.name,
                weight.role
            )))
        })
    }
}

fn check(weight: &Weight<'_>, shape: WeightShape) -> Result<()> {
    if shape.fits(weight.rows, weight.columns) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the tensor {} has {} rows of {} elements, where the model's description asks for {shape}",
        weight.name, weight.rows, weight.columns
    )))
}
