//! The examples' gated MLP against a plain float64 reference.

use std::ops::Range;
use std::sync::Arc;

use herald_api::import::{
    Executor, Forward, LayerHandle, LayerSpec, Lent, Plugin, SharedBytes, SharedWeight,
};
use herald_api::{
    Activation, ActivationPrecision, AlignedBytes, DType, LayerDesc, LayerParams, Mlp, Parallel, Result,
    Status, WeightRole,
};

use crate::plugins;

/// Numbers in -1..1 that look random: a linear congruential generator (Knuth's MMIX constants).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * scale).collect()
    }
}

#[derive(Clone)]
struct Case {
    hidden: usize,
    width: usize,
    activation: Activation,
    residual_scale: f32,
    norm_eps: f32,
    norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
    post_norm: Option<Vec<f32>>,
}

impl Case {
    fn new(hidden: usize, width: usize, activation: Activation, post_norm: bool) -> Self {
        let mut noise = Noise((hidden * 1000 + width) as u64);
        Self {
            hidden,
            width,
            activation,
            residual_scale: 0.7,
            norm_eps: 1e-5,
            norm: noise.floats(hidden, 2.0),
            gate: noise.floats(width * hidden, 0.5),
            up: noise.floats(width * hidden, 0.5),
            down: noise.floats(hidden * width, 0.5),
            post_norm: post_norm.then(|| noise.floats(hidden, 1.5)),
        }
    }

    fn spec(&self) -> LayerSpec {
        let (hidden, width) = (self.hidden as u64, self.width as u64);
        let mut weights = vec![
            weight(WeightRole::Down, &[width, hidden], &self.down),
            weight(WeightRole::Norm, &[hidden], &self.norm),
            weight(WeightRole::Gate, &[hidden, width], &self.gate),
            weight(WeightRole::Up, &[hidden, width], &self.up),
        ];
        weights.extend(self.post_norm.as_ref().map(|norm| weight(WeightRole::PostNorm, &[hidden], norm)));
        let mlp = Mlp { width: self.width, activation: self.activation, gated: true };
        LayerSpec {
            desc: LayerDesc {
                block: 3,
                hidden: self.hidden,
                residual_scale: self.residual_scale,
                norm_eps: self.norm_eps,
                activations: ActivationPrecision::default(),
                params: LayerParams::Mlp(mlp),
            },
            weights,
            max_tokens: 9,
            max_workers: 4,
            page_tokens: 16,
            max_lora_rank: 0,
            packs: None,
        }
    }

    fn rms_norm(&self, weight: &[f32], x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(self.norm_eps)).sqrt();
        x.iter().zip(weight).map(|(x, weight)| x * scale * f64::from(*weight)).collect()
    }

    /// The formula as it stands in the header, in float64.
    fn expected(&self, input: &[f32], output: &[f32]) -> Vec<f64> {
        let dot = |matrix: &[f32], row: usize, x: &[f64]| -> f64 {
            matrix[row * x.len()..].iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum()
        };
        let act = |x: f64| match self.activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            _ => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        };
        let mut all = Vec::new();
        for (input, output) in input.chunks(self.hidden).zip(output.chunks(self.hidden)) {
            let x: Vec<f64> = input.iter().map(|x| f64::from(*x)).collect();
            let x = self.rms_norm(&self.norm, &x);
            let inner: Vec<f64> =
                (0..self.width).map(|row| act(dot(&self.gate, row, &x)) * dot(&self.up, row, &x)).collect();
            let mut branch: Vec<f64> = (0..self.hidden).map(|row| dot(&self.down, row, &inner)).collect();
            if let Some(post_norm) = &self.post_norm {
                branch = self.rms_norm(post_norm, &branch);
            }
            let scale = f64::from(self.residual_scale);
            all.extend(output.iter().zip(branch).map(|(output, x)| f64::from(*output) + scale * x));
        }
        all
    }
}

/// A weight whose bytes begin at an odd address, as they may in a file.
fn weight(role: WeightRole, dims: &[u64], values: &[f32]) -> SharedWeight {
    let mut bytes = Vec::with_capacity(values.len() * 4 + 1);
    let start = usize::from((bytes.as_ptr() as usize).is_multiple_of(2));
    bytes.resize(start, 0xFF);
    bytes.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
    let range = start..bytes.len();
    SharedWeight {
        role,
        name: format!("blk.3.{role:?}"),
        dtype: DType::F32,
        dims: dims.to_vec(),
        data: SharedBytes::new(Arc::new(bytes), range).expect("the range is within the bytes"),
    }
}

/// Four threads, pieces of three items.
struct Threads;

// SAFETY: the pieces of all workers are different ones, each worker is one thread, and the scope ends when all have ended.
unsafe impl Executor for Threads {
    fn workers(&self) -> usize {
        4
    }

    fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync)) {
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || {
                    for begin in (worker * 3..items).step_by(4 * 3) {
                        task(begin..items.min(begin + 3), worker);
                    }
                });
            }
        });
    }
}

/// What the layer makes of `n_tokens` tokens, and what it should; with an input of its own or in place.
fn run(
    case: &Case,
    layer: &LayerHandle,
    n_tokens: usize,
    in_place: bool,
    threads: bool,
) -> (Vec<f32>, Vec<f64>) {
    let mut noise = Noise(n_tokens as u64);
    let input = noise.floats(n_tokens * case.hidden, 3.0);
    let mut output = if in_place { input.clone() } else { noise.floats(n_tokens * case.hidden, 3.0) };
    let expected = case.expected(&input, &output);
    let mut scratch = AlignedBytes::zeroed(layer.scratch_bytes()).expect("scratch memory");
    scratch.fill(0xFF);
    let lent = Lent::new(&Threads);
    let request = Forward {
        n_tokens,
        tokens: &[],
        positions: &[],
        input: (!in_place).then_some(&input[..]),
        output: &mut output,
        parallel: if threads { lent.parallel() } else { Parallel::serial() },
    };
    layer.forward(request, None, &mut scratch).expect("the call is sound");
    (output, expected)
}

/// What the layer makes of its input is the reference's, to a few float32 roundings.
fn check(plugin: &Plugin, case: &Case, layer: &LayerHandle, n_tokens: usize, in_place: bool, threads: bool) {
    let (found, expected) = run(case, layer, n_tokens, in_place, threads);
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / expected.abs().max(1.0);
        assert!(
            error < 2e-5,
            "{}: {n_tokens} tokens of a {}x{} mlp ({:?}): element {index} is {found}, where {expected} was expected",
            plugin.name(),
            case.hidden,
            case.width,
            case.activation
        );
    }
}

/// One layer, run once on threads.
pub(crate) fn an_mlp_runs(plugin: &Plugin) {
    let case = Case::new(12, 20, Activation::Silu, true);
    let layer = plugin.create_layer(case.spec(), Parallel::serial()).expect("the layer");
    check(plugin, &case, &layer, 3, false, true);
}

/// Layers of several shapes, each run over several batches.
pub(crate) fn mlps_are_the_reference(plugin: &Plugin) {
    for (hidden, width) in [(1, 1), (7, 13), (32, 24), (33, 65)] {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            for post_norm in [false, true] {
                let case = Case::new(hidden, width, activation, post_norm);
                let layer = plugin.create_layer(case.spec(), Parallel::serial()).expect("the layer");
                assert_eq!((layer.state_bytes(), layer.weight_bytes()), (0, 0));
                for n_tokens in [1, 2, 9] {
                    for (in_place, threads) in [(true, false), (false, true)] {
                        check(plugin, &case, &layer, n_tokens, in_place, threads);
                    }
                }
            }
        }
    }
}

#[test]
fn the_mlp_is_the_reference() {
    plugins().iter().for_each(mlps_are_the_reference);
}

#[test]
fn what_they_do_not_offer_is_left_to_others() {
    let case = Case::new(8, 4, Activation::Silu, false);
    let refused = |plugin: &Plugin, change: fn(&mut LayerSpec)| {
        let mut spec = case.spec();
        change(&mut spec);
        let made: Result<LayerHandle> = plugin.create_layer(spec, Parallel::serial());
        made.err().map(|error| (error.status(), error.message().to_owned())).expect("this is not offered")
    };
    for plugin in plugins() {
        let (status, message) = refused(&plugin, |spec| {
            // As many bytes as [8, 4] of F32.
            spec.weights[0].dtype = DType::F16;
            spec.weights[0].dims = vec![8, 8];
        });
        assert_eq!(status, Status::Unsupported, "{message}");
        assert!(message.contains("blk.3.Down"), "{message}");
        let (status, message) = refused(&plugin, |spec| spec.weights[1].role = WeightRole::QueryNorm);
        assert_eq!(status, Status::Unsupported, "{message}");
        assert!(message.contains("blk.3.Norm"), "{message}");
        let (status, _) = refused(&plugin, |spec| {
            spec.desc.params = LayerParams::Mlp(Mlp { width: 4, activation: Activation::Silu, gated: false });
        });
        assert_eq!(status, Status::Unsupported);
        // What contradicts itself is nobody's to offer.
        let (status, message) = refused(&plugin, |spec| spec.weights[0].dims = vec![8, 4]);
        assert_eq!(status, Status::InvalidArgument, "{message}");
        assert!(message.contains("is [4, 8]") && message.contains("where [8, 4]"), "{message}");
        let (status, message) = refused(&plugin, |spec| spec.weights.truncate(3));
        assert_eq!(status, Status::InvalidArgument, "{message}");
        let (status, message) = refused(&plugin, |spec| spec.weights.push(spec.weights[0].clone()));
        assert_eq!(status, Status::InvalidArgument, "{message}");
        assert!(message.contains("a role that is taken"), "{message}");
    }
}
