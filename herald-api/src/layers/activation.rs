//! The function between the projections of feed-forward networks and experts.

use crate::{Error, Result};

/// x * sigmoid(x).
pub const HERALD_ACTIVATION_SILU: u32 = 1;
/// GELU in its tanh approximation.
pub const HERALD_ACTIVATION_GELU_TANH: u32 = 2;
/// max(x, 0) squared (arXiv 2109.08668).
pub const HERALD_ACTIVATION_SQUARED_RELU: u32 = 3;
/// Clamped SwiGLU (gpt-oss), of gated networks alone: with g = min(gate, 7) and u = max(-7, min(up, 7)),
/// g * sigmoid(1.702 g) * (u + 1) in place of activation(gate) * up.
pub const HERALD_ACTIVATION_CLAMPED_SWIGLU: u32 = 16;

/// GELU itself: x Phi(x), with Phi the normal distribution (arXiv 1606.08415).
pub const HERALD_ACTIVATION_GELU: u32 = 20;
/// xIELU (arXiv 2411.13010), with the numbers p, n, b, e of HERALD_WEIGHT_XIELU: p x^2 + b x where x > 0, otherwise
/// n (exp(min(x, e)) - 1 - x) + b x. Of MLPs without a gate.
pub const HERALD_ACTIVATION_XIELU: u32 = 21;

/// The function between an MLP's projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu = HERALD_ACTIVATION_SILU,
    /// GELU in its tanh approximation.
    GeluTanh = HERALD_ACTIVATION_GELU_TANH,
    /// `max(x, 0)` squared.
    SquaredRelu = HERALD_ACTIVATION_SQUARED_RELU,
    /// With `g = min(gate, 7)` and `u = clamp(up, -7, 7)`, `g * sigmoid(1.702 g) * (u + 1)`: of gated networks alone.
    ClampedSwiglu = HERALD_ACTIVATION_CLAMPED_SWIGLU,
    /// GELU itself.
    Gelu = HERALD_ACTIVATION_GELU,
    /// xIELU, whose numbers are a weight of the layer.
    Xielu = HERALD_ACTIVATION_XIELU,
}

impl Activation {
    /// Whether only gated networks have it.
    #[must_use]
    pub fn needs_gate(self) -> bool {
        self == Self::ClampedSwiglu
    }

    pub(super) fn from_code(code: u32) -> Result<Self> {
        Ok(match code {
            HERALD_ACTIVATION_SILU => Self::Silu,
            HERALD_ACTIVATION_GELU_TANH => Self::GeluTanh,
            HERALD_ACTIVATION_SQUARED_RELU => Self::SquaredRelu,
            HERALD_ACTIVATION_CLAMPED_SWIGLU => Self::ClampedSwiglu,
            HERALD_ACTIVATION_GELU => Self::Gelu,
            HERALD_ACTIVATION_XIELU => Self::Xielu,
            other => {
                return Err(Error::unsupported(format!("activation {other} is not known to this plugin")));
            }
        })
    }
}
