//! The engine layer: `output += residual_scale * post_norm(down(act(gate(x)) * up(x)))`, where `x = norm(input)`.

use std::f32::consts::FRAC_2_PI;

use herald_api::{
    Activation, Call, DType, EngineLayer, Error, LayerFactory, LayerKind, LayerParams, LayerRequest, Result,
    Weight, WeightRole,
};

/// The plugin's engine layers.
pub struct Layers;

impl LayerFactory for Layers {
    const KINDS: &'static [LayerKind] = &[LayerKind::Mlp];

    fn supports(request: &LayerRequest<'_, '_>) -> Result<()> {
        GatedMlp::read(request).map(drop)
    }

    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>> {
        Ok(Box::new(GatedMlp::read(request)?))
    }
}

struct GatedMlp<'w> {
    hidden: usize,
    width: usize,
    activation: Activation,
    residual_scale: f32,
    norm_eps: f32,
    /// What a call of `max_tokens` needs: the normed activations `[max_tokens, hidden]` (later the branch), and between the
    /// projections `[max_tokens, width]`.
    scratch_bytes: usize,
    norm: &'w [u8],
    gate: &'w [u8],
    up: &'w [u8],
    down: &'w [u8],
    post_norm: Option<&'w [u8]>,
}

impl<'w> GatedMlp<'w> {
    /// Finds the layer's parts in the request and checks every one.
    fn read(request: &LayerRequest<'w, '_>) -> Result<Self> {
        let (desc, weights) = (&request.desc, &request.weights);
        let LayerParams::Mlp(mlp) = &desc.params else {
            return Err(Error::unsupported(format!("{} layers are not offered", desc.kind().name())));
        };
        if !mlp.gated || !matches!(mlp.activation, Activation::Silu | Activation::GeluTanh) {
            return Err(Error::unsupported("only a gated mlp with SiLU or GELU is offered"));
        }
        let (hidden, width) = (desc.hidden, mlp.width);
        let find = |role: WeightRole, rows: usize, columns: usize| -> Result<Option<&'w [u8]>> {
            let mut of_role = weights.iter().filter(|weight| weight.role == role);
            match (of_role.next(), of_role.next()) {
                (None, _) => Ok(None),
                (Some(weight), None) if (weight.rows, weight.columns) == (rows, columns) => {
                    Ok(Some(weight.bytes))
                }
                (Some(Weight { name, rows: its_rows, columns: its_columns, .. }), None) => {
                    Err(Error::invalid(format!(
                        "weight {name} is [{its_rows}, {its_columns}], where [{rows}, {columns}] was expected"
                    )))
                }
                (Some(_), Some(twice)) => {
                    Err(Error::invalid(format!("weight {} has a role that is taken", twice.name)))
                }
            }
        };
        // An unknown role is unsupported: ignoring a weight would compute something else.
        const ROLES: [WeightRole; 5] =
            [WeightRole::Norm, WeightRole::Gate, WeightRole::Up, WeightRole::Down, WeightRole::PostNorm];
        for weight in weights {
            if !ROLES.contains(&weight.role) || weight.dtype != DType::F32 {
                return Err(Error::unsupported(format!(
                    "weight {} is {} with role {:?}, where F32 with one of {ROLES:?} is offered",
                    weight.name, weight.dtype, weight.role
                )));
            }
        }
        let needed = |role, rows, columns| {
            find(role, rows, columns)?
                .ok_or_else(|| Error::invalid(format!("block {}'s mlp has no {role:?} weight", desc.block)))
        };
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
            norm: needed(WeightRole::Norm, 1, hidden)?,
            gate: needed(WeightRole::Gate, width, hidden)?,
            up: needed(WeightRole::Up, width, hidden)?,
            down: needed(WeightRole::Down, hidden, width)?,
            post_norm: find(WeightRole::PostNorm, 1, hidden)?,
        })
    }

    fn activate(&self, x: f32) -> f32 {
        match self.activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            _ => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
        }
    }

    /// The scale of RMS norm (arXiv 1910.07467) before the weight: `1 / sqrt(mean(x^2) + eps)`.
    fn rms_scale(&self, x: impl Iterator<Item = f32>) -> f32 {
        let squares: f64 = x.map(|x| f64::from(x) * f64::from(x)).sum();
        (1.0 / (squares / self.hidden as f64 + f64::from(self.norm_eps)).sqrt()) as f32
    }
}

/// A weight's elements, which may be unaligned.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn dot(row: &[u8], x: impl Iterator<Item = f32>) -> f32 {
    // Eight independent sums: none waits for another, and they round less than one.
    let mut sums = [0.0_f32; 8];
    for (index, (weight, x)) in floats(row).zip(x).enumerate() {
        sums[index % 8] += weight * x;
    }
    sums.iter().sum()
}

/// Row `index` of a weight with rows of `columns` elements.
fn row(weight: &[u8], index: usize, columns: usize) -> &[u8] {
    &weight[index * columns * size_of::<f32>()..][..columns * size_of::<f32>()]
}

impl EngineLayer for GatedMlp<'_> {
    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let (n_tokens, hidden, width, parallel) = (call.n_tokens, self.hidden, self.width, call.parallel);
        let scratch = bytemuck::cast_slice_mut::<u8, f32>(&mut call.scratch[..self.scratch_bytes]);
        let (normed, rest) = scratch.split_at_mut(n_tokens * hidden);
        let inner = &mut rest[..n_tokens * width];

        // normed: [n_tokens, hidden], one chunk per token.
        let input = call.input.unwrap_or(&*call.output);
        parallel.for_chunks(normed, hidden, &|token, normed, _| {
            let x = &input[token * hidden..][..hidden];
            let scale = self.rms_scale(x.iter().copied());
            for ((normed, x), weight) in normed.iter_mut().zip(x).zip(floats(self.norm)) {
                *normed = x * scale * weight;
            }
        });

        // inner: [width, n_tokens], one chunk per row of gate and up, which is read once for all tokens.
        let normed_read = &*normed;
        parallel.for_chunks(inner, n_tokens, &|index, inner, _| {
            let (gate, up) = (row(self.gate, index, hidden), row(self.up, index, hidden));
            for (inner, x) in inner.iter_mut().zip(normed_read.chunks(hidden)) {
                let x = || x.iter().copied();
                *inner = self.activate(dot(gate, x())) * dot(up, x());
            }
        });

        // branch: [hidden, n_tokens], one chunk per row of down, in the memory of the normed activations.
        let branch = normed;
        parallel.for_chunks(branch, n_tokens, &|index, branch, _| {
            let down = row(self.down, index, width);
            for (token, branch) in branch.iter_mut().enumerate() {
                *branch = dot(down, inner[token..].iter().step_by(n_tokens).copied());
            }
        });

        // output: [n_tokens, hidden], one chunk per token.
        let branch = &*branch;
        parallel.for_chunks(call.output, hidden, &|token, output, _| {
            let branch = || branch[token..].iter().step_by(n_tokens).copied();
            match self.post_norm {
                Some(post_norm) => {
                    let scale = self.residual_scale * self.rms_scale(branch());
                    for ((output, x), weight) in output.iter_mut().zip(branch()).zip(floats(post_norm)) {
                        *output += x * scale * weight;
                    }
                }
                None => {
                    output
                        .iter_mut()
                        .zip(branch())
                        .for_each(|(output, x)| *output += self.residual_scale * x);
                }
            }
        });
        Ok(())
    }
}
