//! A layer to check, before it has weights: its description, which of the weights that it may have, and its sequences.

use herald_api::{ActivationPrecision, DType, LayerDesc, LayerParams, Need, WeightRole};
use herald_formats::{Block, Unpacked, dispatch, floats::Float};

use super::layer::{Limits, Tensor};
use crate::values::Values;

/// A layer to check.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What is particular about it, for its subject.
    pub(super) name: String,
    pub(super) desc: LayerDesc,
    /// The optional weights that it has.
    pub(super) with: Vec<WeightRole>,
    /// The weights that it leaves out, where it may.
    pub(super) without: Vec<WeightRole>,
    /// The type of its matrices; `None`: the first of [`PLAIN_FIRST`] that the plugin takes.
    pub(super) dtype: Option<DType>,
    /// The type of everything else.
    pub(super) vectors: DType,
    /// Weights take the other of the two shapes that they may have.
    pub(super) other_shapes: bool,
    pub(super) lens: Vec<usize>,
    pub(super) page_tokens: usize,
    pub(super) first_position: u32,
    pub(super) stride: usize,
}

/// The order in which types are tried where any will do.
pub(super) const PLAIN_FIRST: [DType; 26] = [
    DType::F32,
    DType::F16,
    DType::Bf16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Iq4Nl,
    DType::Mxfp4,
    DType::Nvfp4,
    DType::Q4K,
    DType::Q6K,
    DType::Q5K,
    DType::Q3K,
    DType::Q2K,
    DType::Iq4Xs,
    DType::Iq3S,
    DType::Iq3Xxs,
    DType::Iq2S,
    DType::Iq2Xs,
    DType::Iq2Xxs,
    DType::Iq1M,
    DType::Iq1S,
    DType::Tq2_0,
    DType::Tq1_0,
];

/// A sequence's tokens.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    /// `[n_tokens, hidden]`.
    pub(super) x: Vec<f32>,
    /// What the branch is added to where that isn't `x`, `[n_tokens, hidden]`.
    pub(super) residual: Vec<f32>,
    pub(super) positions: Vec<u32>,
    pub(super) ids: Vec<u32>,
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }
}

/// A layer to check, with its weights.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) desc: LayerDesc,
    pub(super) dtype: DType,
    pub(super) tensors: Vec<Tensor>,
    pub(super) sequences: Vec<Tokens>,
    pub(super) page_tokens: usize,
}

impl Case {
    /// Limits for calls with all sequences' tokens and up to three workers.
    pub(super) fn limits(&self) -> Limits {
        Limits { max_tokens: self.n_tokens(), max_workers: 3, page_tokens: self.page_tokens }
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.sequences.iter().map(Tokens::len).sum()
    }
}

impl Plan {
    pub(super) fn new(name: &str, hidden: usize, params: LayerParams) -> Self {
        Self {
            name: name.to_owned(),
            desc: LayerDesc {
                block: 3,
                hidden,
                residual_scale: 1.0,
                norm_eps: 1e-5,
                activations: ActivationPrecision::default(),
                params,
            },
            with: Vec::new(),
            without: Vec::new(),
            dtype: None,
            vectors: DType::F32,
            other_shapes: false,
            lens: vec![7, 1, 12],
            page_tokens: 4,
            first_position: 0,
            stride: 1,
        }
    }

    pub(super) fn with(mut self, roles: &[WeightRole]) -> Self {
        self.with.extend(roles);
        self
    }

    pub(super) fn without(mut self, roles: &[WeightRole]) -> Self {
        self.without.extend(roles);
        self
    }

    pub(super) fn of(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    pub(super) fn vectors(mut self, dtype: DType) -> Self {
        self.vectors = dtype;
        self
    }

    pub(super) fn other_shapes(mut self) -> Self {
        self.other_shapes = true;
        self
    }

    pub(super) fn lens(mut self, lens: &[usize]) -> Self {
        self.lens = lens.to_vec();
        self
    }

    pub(super) fn page_tokens(mut self, tokens: usize) -> Self {
        self.page_tokens = tokens;
        self
    }

    pub(super) fn positions(mut self, first: u32, stride: usize) -> Self {
        (self.first_position, self.stride) = (first, stride);
        self
    }

    pub(super) fn residual_scale(mut self, scale: f32) -> Self {
        self.desc.residual_scale = scale;
        self
    }

    pub(super) fn norm_eps(mut self, eps: f32) -> Self {
        self.desc.norm_eps = eps;
        self
    }

    /// What a finding about it is called.
    pub(super) fn subject(&self) -> String {
        let kind = self.desc.kind().name();
        match self.dtype {
            Some(dtype) => format!("{kind}, {dtype}, hidden {}{}", self.desc.hidden, prefixed(&self.name)),
            None => format!("{kind}, hidden {}{}", self.desc.hidden, prefixed(&self.name)),
        }
    }

    /// The types that its matrices may have: its own, or any that its rows can hold.
    pub(super) fn dtypes(&self) -> Vec<DType> {
        match self.dtype {
            Some(dtype) => vec![dtype],
            None => PLAIN_FIRST.into_iter().filter(|dtype| self.can_be(*dtype)).collect(),
        }
    }

    /// Whether any matrix's rows are whole blocks of the type.
    fn can_be(&self, dtype: DType) -> bool {
        let fits = |role: &WeightRole| {
            self.desc.weight_shape(*role).is_some_and(|shape| dtype.row_bytes(shape.columns).is_some())
        };
        WeightRole::ALL.iter().filter(|role| is_matrix(**role)).any(fits)
    }

    /// The layer with random weights of `dtype` (where a matrix's rows can be), and random tokens.
    pub(super) fn case(&self, dtype: DType) -> Case {
        let mut values = Values::of(&format!("{}, {dtype}", self.subject()));
        let roles = WeightRole::ALL.into_iter().filter_map(|role| {
            let shape = self.desc.weight_shape(role)?;
            let is_there = match shape.need {
                Need::Required => true,
                Need::Optional => self.with.contains(&role),
                Need::Unless(_) => !self.without.contains(&role),
            };
            is_there.then_some((role, shape))
        });
        let tensors = roles
            .map(|(role, shape)| {
                let [rows, columns] = match shape.or.filter(|_| self.other_shapes) {
                    Some(other) => other,
                    None => [shape.rows, shape.columns],
                };
                let usual = if is_matrix(role) { dtype } else { self.vectors };
                let fits = usual.row_bytes(columns).is_some();
                tensor(role, if fits { usual } else { DType::F32 }, rows, columns, &mut values)
            })
            .collect();
        let sequences = self.sequences(&mut values);
        Case { desc: self.desc.clone(), dtype, tensors, sequences, page_tokens: self.page_tokens }
    }

    fn sequences(&self, values: &mut Values) -> Vec<Tokens> {
        let hidden = self.desc.hidden;
        let vocabulary = match &self.desc.params {
            LayerParams::Embedding(embedding) => embedding.vocabulary,
            LayerParams::PerLayerEmbedding(embedding) => embedding.vocabulary,
            _ => 1,
        };
        let mut tokens = 0;
        let mut activations = |len: usize, values: &mut Values| -> Vec<f32> {
            (0..len)
                .flat_map(|_| {
                    // Of every size that models have, and a token of zeros.
                    let sizes = [1.0, 0.1, 3.0, 1.0, 50.0, 0.3, 0.0];
                    tokens += 1;
                    values.many(hidden, -1.0, 1.0).into_iter().map(move |x| x * sizes[tokens % sizes.len()])
                })
                .collect()
        };
        let sequence = |(index, len): (usize, &usize)| Tokens {
            x: activations(*len, values),
            residual: values.many(len * hidden, -1.0, 1.0),
            positions: (self.first_position + 17 * index as u32..).step_by(self.stride).take(*len).collect(),
            ids: (0..*len).map(|_| values.below(vocabulary) as u32).collect(),
        };
        self.lens.iter().enumerate().map(sequence).collect()
    }
}

fn prefixed(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(", {name}") }
}

/// Whether a weight is one that products are made with, and files quantise.
fn is_matrix(role: WeightRole) -> bool {
    matches!(
        role,
        WeightRole::Query
            | WeightRole::Key
            | WeightRole::Value
            | WeightRole::AttentionOutput
            | WeightRole::Gate
            | WeightRole::Up
            | WeightRole::Down
            | WeightRole::Embedding
            | WeightRole::InProjection
            | WeightRole::SsmX
            | WeightRole::SsmDt
            | WeightRole::OutProjection
            | WeightRole::ExpertsGate
            | WeightRole::ExpertsUp
            | WeightRole::ExpertsDown
            | WeightRole::SharedGate
            | WeightRole::SharedUp
            | WeightRole::SharedDown
            | WeightRole::OutputGate
            | WeightRole::OutputGateUp
            | WeightRole::Beta
            | WeightRole::Decay
            | WeightRole::DecayUp
            | WeightRole::BetaAndDecay
            | WeightRole::QueryAndGate
            | WeightRole::QueryDown
            | WeightRole::KeyUp
            | WeightRole::ValueUp
            | WeightRole::ExpertsGateAndUp
            | WeightRole::PerLayerTable
            | WeightRole::PerLayerProjection
    )
}

/// The numbers that such a weight has in models, about.
fn range(role: WeightRole) -> [f32; 2] {
    match role {
        WeightRole::Conv
        | WeightRole::QueryConv
        | WeightRole::KeyConv
        | WeightRole::ValueConv
        | WeightRole::SsmD => [-1.0, 1.0],
        WeightRole::SsmA => [-6.0, -0.1],
        WeightRole::SsmDtBias => [-4.0, 0.0],
        WeightRole::RopeFactors | WeightRole::Temperature => [1.0, 8.0],
        WeightRole::QueryBias
        | WeightRole::KeyBias
        | WeightRole::ValueBias
        | WeightRole::AttentionOutputBias
        | WeightRole::ConvBias
        | WeightRole::LayerNormBias
        | WeightRole::ResidualNormBias
        | WeightRole::GateBias
        | WeightRole::UpBias
        | WeightRole::DownBias
        | WeightRole::OutputBias
        | WeightRole::RouterBias
        | WeightRole::RouterScoreBias
        | WeightRole::ExpertsGateBias
        | WeightRole::ExpertsUpBias
        | WeightRole::ExpertsDownBias
        | WeightRole::AttentionSinks
        | WeightRole::SharedRouter => [-0.5, 0.5],
        _ => [0.5, 1.5],
    }
}

fn tensor(role: WeightRole, dtype: DType, rows: usize, columns: usize, values: &mut Values) -> Tensor {
    // A router tells its experts well apart, so that rounding changes few choices.
    let scale = if role == WeightRole::Router { 3.0 } else { 1.0 } / (columns as f32).sqrt();
    let products = is_matrix(role) || role == WeightRole::Router;
    let row = |values: &mut Values| -> Vec<u8> {
        let numbers: Vec<f32> = if products {
            (0..columns).map(|_| values.normal() * scale).collect()
        } else {
            let [low, high] = range(role);
            values.many(columns, low, high)
        };
        encode(dtype, &numbers, scale, values)
    };
    Tensor {
        role,
        dtype,
        dims: if rows == 1 { vec![columns] } else { vec![columns, rows] },
        bytes: (0..rows).flat_map(|_| row(values)).collect(),
        name: format!("blk.3.{role:?}.weight"),
    }
}

/// The numbers as a row of the type; of a type that is only read, random codes of about their size.
fn encode(dtype: DType, numbers: &[f32], scale: f32, values: &mut Values) -> Vec<u8> {
    let mut row = vec![0; dtype.row_bytes(numbers.len()).unwrap_or(0)];
    if herald_formats::is_writable(dtype) {
        // They are small numbers, which every type can store.
        let _ = herald_formats::quantize_row(dtype, numbers, &mut row);
        return row;
    }
    row.fill_with(|| values.bits() as u8);
    dispatch!(dtype,
        float F => for (float, number) in bytemuck::cast_slice_mut::<u8, F>(&mut row).iter_mut().zip(numbers) {
            *float = F::from_f32(*number);
        },
        block B => for block in bytemuck::cast_slice_mut::<u8, B>(&mut row) {
            block.set_scales([1.0, 1.0]);
            let mut weights = vec![0.0_f32; <B as Block>::Unpacked::LEN];
            block.unpack().dequantize(&mut weights);
            let largest = weights.iter().fold(1.0, |largest: f32, weight| largest.max(weight.abs()));
            block.set_scales([2.0 * scale / largest, scale / largest]);
        },
    );
    row
}
