//! A layer's order to a plugin together with what the reference makes of the same weights.

use herald_api::import::{LayerHandle, LayerSpec, Lent, Plugin, SharedWeight};
use herald_api::{ActivationPrecision, AlignedBytes, DType, LayerDesc, LayerParams, Result, WeightRole};
use ndarray::{Array1, Array2};

use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::values::Values;
use super::super::weights::{Matrix, activation_step, dtypes, random_weight};
use crate::Kernels;

/// Weights in the making.
pub(super) struct Weights {
    pub(super) shared: Vec<SharedWeight>,
    pub(super) values: Values,
    kernels: &'static Kernels,
}

impl Weights {
    pub(super) fn new(kernels: &'static Kernels, seed: u64) -> Self {
        Self { shared: Vec::new(), values: Values::new(seed), kernels }
    }

    /// A matrix of any type that its rows may have, which keeps activations about as large as they are.
    pub(super) fn matrix(&mut self, role: WeightRole, rows: usize, columns: usize) -> Matrix {
        let dtype = self.values.pick(&dtypes(columns));
        let limit = (3.0 / columns as f32).sqrt();
        let (shared, matrix) = random_weight(role, dtype, [rows, columns], limit, &mut self.values);
        self.shared.push(shared);
        Matrix { step: activation_step(self.kernels, dtype), ..matrix }
    }

    /// A vector between two numbers, in float32, float16 or bfloat16.
    pub(super) fn vector(&mut self, role: WeightRole, len: usize, range: [f32; 2]) -> Array1<f64> {
        self.floats(role, &[len], range)
    }

    /// A matrix of plain floats between two numbers: `[rows, columns]`.
    pub(super) fn plain(
        &mut self,
        role: WeightRole,
        [rows, columns]: [usize; 2],
        range: [f32; 2],
    ) -> Array2<f64> {
        let floats = self.floats(role, &[columns, rows], range);
        floats.into_shape_with_order((rows, columns)).expect("the length is the shape's")
    }

    /// Plain floats between two numbers, with dimensions in GGUF's order.
    fn floats(&mut self, role: WeightRole, dims: &[usize], [low, high]: [f32; 2]) -> Array1<f64> {
        let len = dims.iter().product();
        let middle = (low + high) / 2.0;
        let numbers = self.values.many(len, low - middle, high - middle);
        let dtype = self.values.pick(&[DType::F32, DType::F16, DType::Bf16]);
        let numbers: Vec<f32> = numbers.into_iter().map(|number| number + middle).collect();
        let mut bytes = vec![0; len * dtype.block_bytes()];
        herald_formats::quantize_row(dtype, &numbers, &mut bytes).expect("the numbers are small");
        let mut vector = vec![0.0; len];
        herald_formats::dequantize_row(dtype, &bytes, &mut vector);
        self.shared.push(super::super::weights::shared(role, dtype, dims, bytes, 0));
        vector.into_iter().map(f64::from).collect()
    }

    /// A norm's weights.
    pub(super) fn norm(&mut self, role: WeightRole, len: usize) -> Array1<f64> {
        self.vector(role, len, [0.5, 1.5])
    }

    /// One in two times, what `make` makes.
    pub(super) fn perhaps<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.values.coin().then(|| make(self))
    }
}

/// The order for a layer.
pub(super) fn order(desc: &LayerDesc, weights: &[SharedWeight], limits: Limits) -> LayerSpec {
    let Limits { max_tokens, max_workers, page_tokens } = limits;
    LayerSpec {
        desc: desc.clone(),
        weights: weights.to_vec(),
        max_tokens,
        max_workers,
        page_tokens,
        max_lora_rank: 0,
        packs: None,
    }
}

/// The largest calls that a layer is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_tokens: usize,
    pub(super) max_workers: usize,
    pub(super) page_tokens: usize,
}

/// Has the plugin make the layer, with as many threads as calls will bring.
pub(super) fn create(plugin: &Plugin, order: LayerSpec) -> Result<LayerHandle> {
    let threads = Scoped(order.max_workers);
    plugin.create_layer(order, Lent::new(&threads).parallel())
}

/// Exactly the scratch memory that a layer asked for, of NaN.
pub(super) fn scratch(layer: &LayerHandle) -> Result<AlignedBytes> {
    let mut scratch = AlignedBytes::zeroed(layer.scratch_bytes())?;
    scratch.fill(0xff);
    Ok(scratch)
}

/// A layer's description with everything particular to the test's seed.
pub(super) fn desc(hidden: usize, params: LayerParams, values: &mut Values) -> LayerDesc {
    LayerDesc {
        block: 3,
        hidden,
        residual_scale: values.pick(&[1.0, 0.22, -1.5]),
        norm_eps: values.pick(&[1e-5, 1e-6]),
        activations: ActivationPrecision::default(),
        params,
    }
}

/// Activations of `n_tokens` tokens, as float32 and in float64; some tokens' are all zeros.
pub(super) fn activations(n_tokens: usize, hidden: usize, values: &mut Values) -> (Vec<f32>, Approx) {
    let mut all = Vec::with_capacity(n_tokens * hidden);
    for _ in 0..n_tokens {
        let size = values.pick(&[0.0, 0.1, 1.0, 1.0, 1.0, 50.0]);
        all.extend(values.many(hidden, -size, size));
    }
    let value = Array2::from_shape_vec((n_tokens, hidden), all.iter().copied().map(f64::from).collect());
    (all, Approx::exact(value.expect("the length is the shape's")))
}
