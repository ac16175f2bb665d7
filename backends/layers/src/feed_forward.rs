//! One feed-forward network, of an MLP layer or of an expert: with a gate (GLU variants, arXiv 2002.05202) or without.
//!
//! ```text
//! y = Wdown (act(Wgate x) * Wup x)        or without a gate        y = Wdown act(Wup x)
//! ```

use herald_api::{Activation, Error, LayerDesc, Parallel, Result, WeightRole};

use crate::kernels::{Kernels, Xielu};
use crate::linear::{Linear, Product, matmul, matmul_bytes, matmul_one};
use crate::lora::Loras;
use crate::parallel::ParallelExt;
use crate::scratch::Scratch;

pub(crate) struct FeedForward<'w> {
    pub(crate) kernels: &'static Kernels,
    pub(crate) activation: Activation,
    /// The activation in place of that.
    pub(crate) xielu: Option<Xielu>,
    pub(crate) gate: Option<Linear<'w>>,
    pub(crate) up: Linear<'w>,
    pub(crate) down: Linear<'w>,
}

/// Refuses a network without a gate and with an activation that needs one.
pub(crate) fn check_gate(desc: &LayerDesc, activation: Activation, gated: bool) -> Result<()> {
    if activation.needs_gate() && !gated {
        return Err(Error::invalid(format!(
            "the {} of block {} has the activation {activation:?} and no gate, where one was expected",
            desc.kind().name(),
            desc.block
        )));
    }
    Ok(())
}

/// The buffers of one network.
struct Buffers<'s> {
    /// `[n_tokens, width]`; empty without a gate.
    gate: &'s mut [f32],
    /// `[n_tokens, width]`.
    up: &'s mut [f32],
    /// For products.
    work: &'s mut [u8],
}

impl<'w> FeedForward<'w> {
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear<'w>> + Clone {
        self.gate.iter().chain([&self.up, &self.down])
    }

    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<'w>> {
        self.gate.iter_mut().chain([&mut self.up, &mut self.down])
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        Buffers {
            gate: scratch.take(self.gate.as_ref().map_or(0, |gate| n_tokens * gate.rows)),
            up: scratch.take(n_tokens * self.up.rows),
            work: scratch.take(matmul_bytes(self.linears(), n_tokens, workers)),
        }
    }

    /// Bytes of scratch memory that [`FeedForward::forward`] needs for up to `n_tokens` tokens.
    pub(crate) fn scratch_bytes(&self, n_tokens: usize, workers: usize) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, n_tokens, workers))
    }

    /// Takes the activations `x` `[n_tokens, hidden]` through the network, in place. `memory` has the bytes that
    /// [`FeedForward::scratch_bytes`] tells. Of an MLP, `loras` are the updates of its weights; no expert has any.
    pub(crate) fn forward(
        &self,
        parallel: &Parallel<'_>,
        x: &mut [f32],
        memory: &mut [u8],
        mut loras: Option<Loras<'_>>,
    ) {
        let mut update = |role, x: &[f32], y: &mut [f32]| {
            if let Some(loras) = &mut loras {
                loras.add(role, x, y);
            }
        };
        let Self { kernels, activation, .. } = *self;
        let n_tokens = x.len() / self.up.columns;
        let Buffers { gate, up, work } =
            self.buffers(&mut Scratch::new(memory), n_tokens, parallel.workers());
        let inner: &[f32] = if let Some(linear) = &self.gate {
            let products =
                &mut [Product { linear, out: &mut *gate }, Product { linear: &self.up, out: &mut *up }];
            matmul(parallel, x, n_tokens, work, products);
            update(WeightRole::Gate, x, gate);
            update(WeightRole::Up, x, up);
            parallel.run_elements(gate, |range, gate| (kernels.glu)(activation, gate, &up[range]));
            gate
        } else {
            matmul_one(parallel, &self.up, x, n_tokens, work, up);
            update(WeightRole::Up, x, up);
            parallel.run_elements(up, |_, up| match &self.xielu {
                Some(xielu) => (kernels.xielu)(xielu, up),
                None => (kernels.activate)(activation, up),
            });
            up
        };
        matmul_one(parallel, &self.down, inner, n_tokens, work, x);
        update(WeightRole::Down, inner, x);
    }
}
