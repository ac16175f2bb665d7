//! @NAME@: a HERALD plugin that offers one kind of engine layer, the gated MLP over float32 weights:
//!
//! ```text
//! output += residual_scale * down(act(gate(x)) * up(x)),  x = norm(input)
//! ```
//!
//! Everything else of a model is left to the next plugin. To grow it: offer another element type in `find`, another activation in
//! `activate`, or another kind of layer in `KINDS` and `create`. HERALD's docs/PLUGINS.md has the rules.

use herald_api::{
    Activation, Call, DType, EngineLayer, Error, Hardware, LayerFactory, LayerKind, LayerParams, LayerRequest,
    Probe, Result, WeightRole,
};

struct Layers;

impl LayerFactory for Layers {
    const KINDS: &'static [LayerKind] = &[LayerKind::Mlp];

    fn supports(request: &LayerRequest<'_, '_>) -> Result<()> {
        GatedMlp::read(request).map(drop)
    }

    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>> {
        Ok(Box::new(GatedMlp::read(request)?))
    }
}

/// The layer. Weights are the bytes of floats in the model file, at any alignment.
struct GatedMlp<'w> {
    hidden: usize,
    width: usize,
    activation: Activation,
    residual_scale: f32,
    norm_eps: f32,
    /// `[max_tokens, hidden]` and `[max_tokens, width]`.
    scratch_bytes: usize,
    norm: &'w [u8], // [hidden]
    gate: &'w [u8], // [width, hidden]
    up: &'w [u8],   // [width, hidden]
    down: &'w [u8], // [hidden, width]
}

impl<'w> GatedMlp<'w> {
    /// Reads and checks a request. Reads no weight data.
    fn read(request: &LayerRequest<'w, '_>) -> Result<Self> {
        let desc = &request.desc;
        let LayerParams::Mlp(mlp) = &desc.params else {
            return Err(Error::unsupported(format!("{} layers are not offered", desc.kind().name())));
        };
        if !mlp.gated || !matches!(mlp.activation, Activation::Silu | Activation::GeluTanh) {
            return Err(Error::unsupported("only a gated mlp with SiLU or GELU is offered"));
        }
        const ROLES: [WeightRole; 4] = [WeightRole::Norm, WeightRole::Gate, WeightRole::Up, WeightRole::Down];
        for weight in &request.weights {
            // To ignore a weight would be to compute something else.
            if !ROLES.contains(&weight.role) || weight.dtype != DType::F32 {
                return Err(Error::unsupported(format!(
                    "weight {} is {} in role {:?}, where F32 in one of {ROLES:?} is offered",
                    weight.name, weight.dtype, weight.role
                )));
            }
        }
        let (hidden, width) = (desc.hidden, mlp.width);
        let scratch_bytes = hidden
            .checked_add(width)
            .and_then(|row| row.checked_mul(request.max_tokens)?.checked_mul(size_of::<f32>()))
            .ok_or_else(|| Error::invalid(format!("{} tokens of this mlp overflow", request.max_tokens)))?;
        Ok(Self {
            hidden,
            width,
            activation: mlp.activation,
            residual_scale: desc.residual_scale,
            norm_eps: desc.norm_eps,
            scratch_bytes,
            norm: find(request, WeightRole::Norm, 1, hidden)?,
            gate: find(request, WeightRole::Gate, width, hidden)?,
            up: find(request, WeightRole::Up, width, hidden)?,
            down: find(request, WeightRole::Down, hidden, width)?,
        })
    }

    fn activate(&self, x: f32) -> f32 {
        match self.activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            _ => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh()),
        }
    }
}

/// The one weight in a role, `[rows, columns]`.
fn find<'w>(request: &LayerRequest<'w, '_>, role: WeightRole, rows: usize, columns: usize) -> Result<&'w [u8]> {
    let mut found = request.weights.iter().filter(|weight| weight.role == role);
    match (found.next(), found.next()) {
        (Some(weight), None) if (weight.rows, weight.columns) == (rows, columns) => Ok(weight.bytes),
        (Some(weight), None) => Err(Error::invalid(format!(
            "weight {} is [{}, {}], where [{rows}, {columns}] was expected",
            weight.name, weight.rows, weight.columns
        ))),
        (None, _) => Err(Error::invalid(format!("there is no {role:?} weight"))),
        (Some(_), Some(_)) => Err(Error::invalid(format!("two weights have the role {role:?}"))),
    }
}

/// Row `index` of a weight with rows of `columns` floats.
fn row(weight: &[u8], index: usize, columns: usize) -> &[u8] {
    &weight[index * columns * size_of::<f32>()..][..columns * size_of::<f32>()]
}

/// A weight's floats, which may be unaligned.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn dot(row: &[u8], x: impl Iterator<Item = f32>) -> f32 {
    let mut sums = [0.0_f32; 8]; // eight sums: none waits for another, and they round less than one
    for (index, (weight, x)) in floats(row).zip(x).enumerate() {
        sums[index % 8] += weight * x;
    }
    sums.iter().sum()
}

impl EngineLayer for GatedMlp<'_> {
    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let (n_tokens, hidden, width, parallel) = (call.n_tokens, self.hidden, self.width, call.parallel);
        let scratch = bytemuck::cast_slice_mut::<u8, f32>(&mut call.scratch[..self.scratch_bytes]);
        let (x, rest) = scratch.split_at_mut(n_tokens * hidden);
        let inner = &mut rest[..n_tokens * width];

        // x: [n_tokens, hidden], a chunk for each token. x[i] = input[i] / sqrt(mean(input^2) + eps) * norm[i]
        let input = call.input.unwrap_or(&*call.output);
        parallel.for_chunks(x, hidden, &|token, x, _worker| {
            let input = &input[token * hidden..][..hidden];
            let squares: f64 = input.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            let scale = (1.0 / (squares / hidden as f64 + f64::from(self.norm_eps)).sqrt()) as f32;
            for ((x, input), weight) in x.iter_mut().zip(input).zip(floats(self.norm)) {
                *x = input * scale * weight;
            }
        });

        // inner: [width, n_tokens], a chunk for each row of gate and up, which is read once for all tokens.
        let normed = &*x;
        parallel.for_chunks(inner, n_tokens, &|index, inner, _| {
            let (gate, up) = (row(self.gate, index, hidden), row(self.up, index, hidden));
            for (inner, x) in inner.iter_mut().zip(normed.chunks(hidden)) {
                let x = || x.iter().copied();
                *inner = self.activate(dot(gate, x())) * dot(up, x());
            }
        });

        // branch: [hidden, n_tokens], a chunk for each row of down. Nobody needs x any more, so it goes there.
        let branch = x;
        parallel.for_chunks(branch, n_tokens, &|index, branch, _| {
            let down = row(self.down, index, width);
            for (token, branch) in branch.iter_mut().enumerate() {
                *branch = dot(down, inner[token..].iter().step_by(n_tokens).copied());
            }
        });

        for (token, output) in call.output.chunks_exact_mut(hidden).enumerate() {
            for (output, branch) in output.iter_mut().zip(branch[token..].iter().step_by(n_tokens)) {
                *output += self.residual_scale * branch;
            }
        }
        Ok(())
    }
}

/// Scalar code scores 100: with 50 this is used only with `--backend @NAME@`.
fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: 50, variant: "plain".to_owned() })
}

herald_api::export_plugin! {
    name: "@NAME@",
    version: env!("CARGO_PKG_VERSION"),
    description: "A gated MLP over float32 weights",
    probe: probe,
    layers: Layers,
}
