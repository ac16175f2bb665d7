/*
 * Write a plugin for HERALD: engine layers, tokenizers or memory tiers, in any language that speaks C.
 *
 * A plugin is a dynamic library that exports one function:
 *
 *     const HeraldPlugin *herald_plugin_v1(void);
 *
 * It returns a table that lives as long as the library is loaded. docs/PLUGINS.md walks through one.
 *
 * The rules of this interface:
 *  - Every struct begins with struct_size, which its maker sets to sizeof. Fields are only ever appended: touch a field
 *    only where struct_size covers it. A null function is "not offered".
 *  - A call that can fail returns a HERALD_STATUS_* and fills the caller's HeraldError with one sentence that says what,
 *    where, and what was expected. A constant that you don't know is an error, never ignored.
 *  - Who creates, destroys; what one side allocates, the other never frees; buffers are the caller's.
 *  - No exception, panic or longjmp crosses.
 *  - A plugin starts no compute threads: it is handed HeraldParallel. A forward call allocates nothing.
 *
 * Generated from herald-api; not to be edited.
 */

#ifndef HERALD_PLUGIN_H
#define HERALD_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define HERALD_EXPORT __declspec(dllexport)
#else
#define HERALD_EXPORT __attribute__((visibility("default")))
#endif

// Handles: what is in them, only the plugin that made them knows.
typedef struct HeraldLayer HeraldLayer;
typedef struct HeraldTokenizer HeraldTokenizer;
typedef struct HeraldTier HeraldTier;

// The version of this ABI. A plugin states the version that it was built for in HeraldPlugin.abi_version.
#define HERALD_ABI_VERSION 1

// The call succeeded.
#define HERALD_STATUS_OK 0

// An argument contradicts the call's contract: a shape, a range, a missing pointer.
#define HERALD_STATUS_INVALID_ARGUMENT 1

// The request is well formed, and this plugin doesn't offer it: the host asks the next one.
#define HERALD_STATUS_UNSUPPORTED 2

// Memory for the request could not be had.
#define HERALD_STATUS_OUT_OF_MEMORY 3

// The operating system refused a read or a write.
#define HERALD_STATUS_IO 4

// Data failed a check: it is damaged, or was never what it claims to be.
#define HERALD_STATUS_CORRUPT 5

// The caller's buffer is too small; the needed size was reported.
#define HERALD_STATUS_BUFFER_TOO_SMALL 6

// What the request names isn't there.
#define HERALD_STATUS_NOT_FOUND 7

// The caller asked for the work to stop.
#define HERALD_STATUS_CANCELLED 8

// A fault of the callee itself: a panic, a broken invariant.
#define HERALD_STATUS_INTERNAL 9

// Something failed and the user should know.
#define HERALD_LOG_ERROR 1

// Something is not as it should be, and work goes on.
#define HERALD_LOG_WARN 2

// Worth a line to an interested user.
#define HERALD_LOG_INFO 3

// Worth a line to a developer.
#define HERALD_LOG_DEBUG 4

// An architecture that this header has no number for.
#define HERALD_ARCH_OTHER 0

// x86-64.
#define HERALD_ARCH_X86_64 1

// AArch64.
#define HERALD_ARCH_AARCH64 2

// x86: AVX2.
#define HERALD_CPU_AVX2 (1 << 0)

// x86: FMA3.
#define HERALD_CPU_FMA (1 << 1)

// x86: F16C.
#define HERALD_CPU_F16C (1 << 2)

// x86: AVX-VNNI (256-bit integer dot products).
#define HERALD_CPU_AVX_VNNI (1 << 3)

// x86: AVX-512 F, BW, DQ and VL, all four.
#define HERALD_CPU_AVX512 (1 << 4)

// x86: AVX-512 VNNI.
#define HERALD_CPU_AVX512_VNNI (1 << 5)

// x86: AVX-512 BF16.
#define HERALD_CPU_AVX512_BF16 (1 << 6)

// x86: AMX-INT8, and the system saves its tile registers. Linux must be asked by arch_prctl(ARCH_REQ_XCOMP_PERM, 18)
// before a process uses them (Rust: Hardware::request_tiles); until then they are illegal instructions.
#define HERALD_CPU_AMX_INT8 (1 << 7)

// AArch64: NEON.
#define HERALD_CPU_NEON (1 << 16)

// AArch64: integer dot products (FEAT_DotProd).
#define HERALD_CPU_DOTPROD (1 << 17)

// AArch64: 8-bit integer matrix products (FEAT_I8MM).
#define HERALD_CPU_I8MM (1 << 18)

// Looks up token embeddings: output[t] = scale * embedding[tokens[t]].
#define HERALD_LAYER_EMBEDDING 1

// Self-attention with its norm: output += residual_scale * attention(norm(input)).
#define HERALD_LAYER_ATTENTION 2

// A feed-forward network with its norm: output += residual_scale * mlp(norm(input)).
#define HERALD_LAYER_MLP 3

// The final norm and the product with the output matrix: output[t] = logits, [n_tokens, vocabulary].
#define HERALD_LAYER_HEAD 4

// A selective state space with its norm (Mamba, arXiv 2312.00752): output += residual_scale * mamba(norm(input)). Keeps
// a recurrent state.
#define HERALD_LAYER_MAMBA1 5

// The same with a scalar decay for each head (Mamba-2, arXiv 2405.21060). Keeps a recurrent state.
#define HERALD_LAYER_MAMBA2 6

// A gated short convolution with its norm (LFM2, arXiv 2511.23404). Keeps a recurrent state.
#define HERALD_LAYER_SHORT_CONV 7

// A mixture of feed-forward networks with its norm, of which each token uses a few (arXiv 1701.06538).
#define HERALD_LAYER_MOE 8

// Linear attention by the gated delta rule with its norm (arXiv 2412.06464). Keeps a recurrent state.
#define HERALD_LAYER_DELTA_NET 9

// What a block adds for the token itself (Gemma 3n and 4). Its calls bring the tokens' ids.
#define HERALD_LAYER_PER_LAYER_EMBEDDING 10

// HERALD_LAYER_ATTENTION whose tokens attend to themselves and to those before them in their chunk: the tokens of a sequence
// are cut into runs of attention->window tokens (Llama 4).
#define HERALD_LAYER_CHUNKED_ATTENTION 12

// HERALD_LAYER_ATTENTION whose tokens attend to those after them too (encoders). All tokens of a sequence come in one call:
// HeraldSequence.past is 0.
#define HERALD_LAYER_BIDIRECTIONAL_ATTENTION 11

// x * sigmoid(x).
#define HERALD_ACTIVATION_SILU 1

// GELU in its tanh approximation.
#define HERALD_ACTIVATION_GELU_TANH 2

// max(x, 0) squared (arXiv 2109.08668).
#define HERALD_ACTIVATION_SQUARED_RELU 3

// Clamped SwiGLU (gpt-oss), of gated networks alone: with g = min(gate, 7) and u = max(-7, min(up, 7)),
// g * sigmoid(1.702 g) * (u + 1) in place of activation(gate) * up.
#define HERALD_ACTIVATION_CLAMPED_SWIGLU 16

// GELU itself: x Phi(x), with Phi the normal distribution (arXiv 1606.08415).
#define HERALD_ACTIVATION_GELU 20

// xIELU (arXiv 2411.13010), with the numbers p, n, b, e of HERALD_WEIGHT_XIELU: p x^2 + b x where x > 0, otherwise
// n (exp(min(x, e)) - 1 - x) + b x. Of MLPs without a gate.
#define HERALD_ACTIVATION_XIELU 21

// No RoPE.
#define HERALD_ROPE_NONE 0

// RoPE that rotates neighbours: elements 2i and 2i+1 (llama's own order).
#define HERALD_ROPE_NEIGHBOURS 1

// RoPE that rotates halves: elements i and i + rope_dims/2 (GPT-NeoX's order).
#define HERALD_ROPE_HALVES 2

// RoPE's frequencies as they are.
#define HERALD_ROPE_SCALING_NONE 0

// Positions divided by rope_factor.
#define HERALD_ROPE_SCALING_LINEAR 1

// YaRN (arXiv 2309.00071): interpolated by wavelength.
#define HERALD_ROPE_SCALING_YARN 2

// YaRN whose ramp begins and ends between pairs of elements, where HERALD_ROPE_SCALING_YARN rounds both outwards to whole pairs.
#define HERALD_ROPE_SCALING_YARN_SMOOTH 3

// Value head h uses the key head h / (n_value_heads / n_key_heads).
#define HERALD_DELTA_HEADS_GROUPED 1

// Value head h uses the key head h % n_key_heads.
#define HERALD_DELTA_HEADS_TILED 2

// One decay for each value head.
#define HERALD_DELTA_DECAY_HEAD 1

// One decay for each element of each value head's keys.
#define HERALD_DELTA_DECAY_CHANNEL 2

// The output is multiplied by silu(gate).
#define HERALD_DELTA_GATE_SILU 1

// The output is multiplied by sigmoid(gate).
#define HERALD_DELTA_GATE_SIGMOID 2

// Experts by the softmax of their scores.
#define HERALD_ROUTING_SOFTMAX 1

// Experts by the sigmoid of each score.
#define HERALD_ROUTING_SIGMOID 2

// As HERALD_ROUTING_SIGMOID, and an expert's weight multiplies what it reads, not what it gives (Llama 4).
#define HERALD_ROUTING_SIGMOID_OF_INPUT 20

// Experts by the sigmoid of each score, chosen among those of the n_groups_used groups whose two best together are greatest
// (DeepSeek-V3).
#define HERALD_ROUTING_SIGMOID_GROUPS 3

// Experts by the softmax of their scores, chosen among those of the n_groups_used groups whose best is greatest (DeepSeek-V2).
#define HERALD_ROUTING_SOFTMAX_GROUPS 4

// As float32, or in integers of at least 16 bits.
#define HERALD_ACTIVATIONS_INT16 0

// Also in 8 bits, with a scale for each group of columns.
#define HERALD_ACTIVATIONS_INT8 1

// The weight of the RMS norm at the layer's entry: [hidden]. Attention and MLP may come without it where they have
// HERALD_WEIGHT_POST_NORM (OLMo 2) or HERALD_WEIGHT_RESIDUAL_NORM (BERT): the branch then reads its input as it is. So may
// layers that have HERALD_WEIGHT_LAYER_NORM or HERALD_WEIGHT_INPUT_SCALE in its place.
#define HERALD_WEIGHT_NORM 1

// The weight of a norm over the branch's output, before the residual addition: [hidden].
#define HERALD_WEIGHT_POST_NORM 2

// Attention, query projection: [n_heads * key_dim, hidden].
#define HERALD_WEIGHT_QUERY 3

// Attention, key projection: [n_kv_heads * key_dim, hidden].
#define HERALD_WEIGHT_KEY 4

// Attention, value projection: [n_kv_heads * value_dim, hidden].
#define HERALD_WEIGHT_VALUE 5

// Attention, output projection: [hidden, n_heads * value_dim].
#define HERALD_WEIGHT_ATTENTION_OUTPUT 6

// Attention, bias of the query projection: [n_heads * key_dim].
#define HERALD_WEIGHT_QUERY_BIAS 7

// Attention, bias of the key projection: [n_kv_heads * key_dim].
#define HERALD_WEIGHT_KEY_BIAS 8

// Attention, bias of the value projection: [n_kv_heads * value_dim].
#define HERALD_WEIGHT_VALUE_BIAS 9

// Attention, bias of the output projection: [hidden].
#define HERALD_WEIGHT_ATTENTION_OUTPUT_BIAS 10

// Attention, norm of each query head before RoPE: [key_dim]; or of all heads as one: [n_heads * key_dim].
#define HERALD_WEIGHT_QUERY_NORM 11

// Attention, norm of each key head before RoPE: [key_dim]; or of all heads as one: [n_kv_heads * key_dim].
#define HERALD_WEIGHT_KEY_NORM 12

// Attention, divisors of RoPE's frequencies (llama3 scaling): [rope_dims / 2].
#define HERALD_WEIGHT_ROPE_FACTORS 13

// MLP, gate projection: [width, hidden].
#define HERALD_WEIGHT_GATE 14

// MLP, up projection: [width, hidden].
#define HERALD_WEIGHT_UP 15

// MLP, down projection: [hidden, width].
#define HERALD_WEIGHT_DOWN 16

// The embedding matrix, or the head's output matrix: [vocabulary, hidden]. A head without one gives its norm alone:
// vocabulary is then hidden.
#define HERALD_WEIGHT_EMBEDDING 17

// Input projection of Mamba and of short convolutions. Mamba-1: x and the gate z, [2 * inner, hidden]. Mamba-2: z, x, B,
// C and dt, [2 * inner + 2 * n_groups * state + n_heads, hidden]. Short convolution: B, C and x, [3 * hidden, hidden].
#define HERALD_WEIGHT_IN_PROJECTION 18

// The causal convolution, a filter for each channel, the newest token's tap last: [channels, taps]. Channels are x in
// Mamba-1, x, B and C in Mamba-2, [hidden] in a short convolution.
#define HERALD_WEIGHT_CONV 19

// The convolution's bias: [channels].
#define HERALD_WEIGHT_CONV_BIAS 20

// Mamba-1, projection to dt, B and C: [dt_rank + 2 * state, inner].
#define HERALD_WEIGHT_SSM_X 21

// Mamba-1, projection of dt: [inner, dt_rank].
#define HERALD_WEIGHT_SSM_DT 22

// Bias of dt: [inner] in Mamba-1, [n_heads] in Mamba-2.
#define HERALD_WEIGHT_SSM_DT_BIAS 23

// The decay A, which is negative: [inner, state] in Mamba-1; a number for each head in Mamba-2, [n_heads] or
// [n_heads, 1].
#define HERALD_WEIGHT_SSM_A 24

// The skip D: [inner] in Mamba-1; a number for each head in Mamba-2, [n_heads] or [n_heads, 1].
#define HERALD_WEIGHT_SSM_D 25

// Mamba-2, the norm of the gated output, by groups: [inner] or [n_groups, inner / n_groups].
#define HERALD_WEIGHT_SSM_NORM 26

// Output projection of Mamba, [hidden, inner], and of short convolutions, [hidden, hidden].
#define HERALD_WEIGHT_OUT_PROJECTION 27

// Mamba-1, norm of dt before its projection (Jamba): [dt_rank].
#define HERALD_WEIGHT_SSM_DT_NORM 28

// Mamba-1, norm of B (Jamba): [state].
#define HERALD_WEIGHT_SSM_B_NORM 29

// Mamba-1, norm of C (Jamba): [state].
#define HERALD_WEIGHT_SSM_C_NORM 30

// Mixture of experts, the router: [n_experts, hidden].
#define HERALD_WEIGHT_ROUTER 31

// Mixture of experts, added to the scores by which experts are chosen, not to their weights: [n_experts].
#define HERALD_WEIGHT_ROUTER_BIAS 32

// Mixture of experts, gate projections: [n_experts * width, hidden], expert after expert.
#define HERALD_WEIGHT_EXPERTS_GATE 33

// Mixture of experts, up projections: [n_experts * width, hidden].
#define HERALD_WEIGHT_EXPERTS_UP 34

// Mixture of experts, down projections: [n_experts * hidden, width].
#define HERALD_WEIGHT_EXPERTS_DOWN 35

// Mixture of experts, gate projection of the expert that every token uses: [shared_width, hidden].
#define HERALD_WEIGHT_SHARED_GATE 36

// Mixture of experts, up projection of the shared expert: [shared_width, hidden].
#define HERALD_WEIGHT_SHARED_UP 37

// Mixture of experts, down projection of the shared expert: [hidden, shared_width].
#define HERALD_WEIGHT_SHARED_DOWN 38

// Mixture of experts, what the shared expert is weighted by: sigmoid(w . x), [hidden]. Left out: by 1.
#define HERALD_WEIGHT_SHARED_ROUTER 39

// Delta net, the convolution of queries, a filter for each channel, the newest token's tap last:
// [n_key_heads * key_dim, taps].
#define HERALD_WEIGHT_QUERY_CONV 40

// Delta net, the convolution of keys: [n_key_heads * key_dim, taps].
#define HERALD_WEIGHT_KEY_CONV 41

// Delta net, the convolution of values: [n_value_heads * value_dim, taps].
#define HERALD_WEIGHT_VALUE_CONV 42

// Delta net, the gate of the output: [n_value_heads * value_dim, hidden]; or the first of two matrices: [gate_rank, hidden].
#define HERALD_WEIGHT_OUTPUT_GATE 43

// Delta net, the second matrix of the gate: [n_value_heads * value_dim, gate_rank].
#define HERALD_WEIGHT_OUTPUT_GATE_UP 44

// Delta net, how much of its value each token writes: [n_value_heads, hidden].
#define HERALD_WEIGHT_BETA 45

// Delta net, the decays: [decays, hidden], of n_value_heads or n_value_heads * key_dim decays; or the first of two
// matrices: [decay_rank, hidden].
#define HERALD_WEIGHT_DECAY 46

// Delta net, the second matrix of the decays: [decays, decay_rank].
#define HERALD_WEIGHT_DECAY_UP 47

// Delta net, HERALD_WEIGHT_BETA and HERALD_WEIGHT_DECAY in one, in place of both: for each key head the betas of the value
// heads that use it, then their decays, [2 * n_value_heads, hidden].
#define HERALD_WEIGHT_BETA_AND_DECAY 48

// Attention, query projection and gate in one, in place of HERALD_WEIGHT_QUERY: for each head the rows of its queries, then
// as many of its gate, [2 * n_heads * key_dim, hidden]. What the head attended to is multiplied by sigmoid(gate), so
// value_dim is key_dim.
#define HERALD_WEIGHT_QUERY_AND_GATE 49

// Attention sinks (arXiv 2309.17453): for each head the score of a slot that every query sees and that has no value, after
// scale and soft cap: [n_heads].
#define HERALD_WEIGHT_ATTENTION_SINKS 50

// Mixture of experts, added to the router's scores, before what makes weights of them: [n_experts].
#define HERALD_WEIGHT_ROUTER_SCORE_BIAS 51

// Mixture of experts, biases of the gate projections: [n_experts, width], expert after expert.
#define HERALD_WEIGHT_EXPERTS_GATE_BIAS 52

// Mixture of experts, biases of the up projections: [n_experts, width].
#define HERALD_WEIGHT_EXPERTS_UP_BIAS 53

// Mixture of experts, biases of the down projections: [n_experts, hidden].
#define HERALD_WEIGHT_EXPERTS_DOWN_BIAS 54

// Latent attention, the first of two query projections: [query_rank, hidden].
#define HERALD_WEIGHT_QUERY_DOWN 55

// Latent attention, the norm between both query projections: [query_rank]. The second is HERALD_WEIGHT_QUERY.
#define HERALD_WEIGHT_QUERY_DOWN_NORM 56

// Latent attention, the norm of the latent: [value_dim].
#define HERALD_WEIGHT_LATENT_NORM 57

// Latent attention, what makes of each head's query the one that meets latents, head after head:
// [n_heads * value_dim, latent_key_dim].
#define HERALD_WEIGHT_KEY_UP 58

// Latent attention, what makes each head's value of a latent, head after head: [n_heads * latent_value_dim, value_dim].
#define HERALD_WEIGHT_VALUE_UP 59

// Attention, norm of each value head: [value_dim].
#define HERALD_WEIGHT_VALUE_NORM 80

// MLP, mixture of experts, per-layer embedding: what the output is multiplied by after the branch was added: [1].
#define HERALD_WEIGHT_OUTPUT_SCALE 81

// Mixture of experts, the norm at the shared expert's entry, in place of HERALD_WEIGHT_NORM: [hidden].
#define HERALD_WEIGHT_SHARED_NORM 82

// Mixture of experts, norm of what the shared expert gives: [hidden].
#define HERALD_WEIGHT_SHARED_POST_NORM 83

// Mixture of experts, norm of what the other experts give together: [hidden].
#define HERALD_WEIGHT_EXPERTS_POST_NORM 84

// Mixture of experts, the norm at the router's entry, in place of HERALD_WEIGHT_NORM; what it gives is divided by
// sqrt(hidden): [hidden].
#define HERALD_WEIGHT_ROUTER_NORM 85

// Mixture of experts, what each expert's weight is multiplied by: [n_experts].
#define HERALD_WEIGHT_EXPERT_SCALES 86

// Mixture of experts, gate and up projections in one, in place of both: of each expert the rows of its gate, then those
// of its up projection, [n_experts * 2 * width, hidden].
#define HERALD_WEIGHT_EXPERTS_GATE_AND_UP 87

// Per-layer embedding, the table: [vocabulary, table_width].
#define HERALD_WEIGHT_PER_LAYER_TABLE 88

// Per-layer embedding, projection of the embedding: [width, hidden].
#define HERALD_WEIGHT_PER_LAYER_PROJECTION 89

// Per-layer embedding, norm of the projected embedding: [width].
#define HERALD_WEIGHT_PER_LAYER_NORM 90

// In place of HERALD_WEIGHT_NORM: the weight of a layer norm (arXiv 1607.06450), which subtracts the mean and divides by the
// root of the variance plus norm_eps, [hidden]. Of attention, MLPs and the head the norm at the entry; of the embedding
// one over what it gives.
#define HERALD_WEIGHT_LAYER_NORM 60

// The bias of HERALD_WEIGHT_LAYER_NORM: [hidden]. Left out: 0.
#define HERALD_WEIGHT_LAYER_NORM_BIAS 61

// Attention and MLP, the weight of a layer norm over the sum of residual and branch (BERT): output = norm(output +
// residual_scale * branch), [hidden]. In place of a norm at the entry.
#define HERALD_WEIGHT_RESIDUAL_NORM 62

// The bias of HERALD_WEIGHT_RESIDUAL_NORM: [hidden]. Left out: 0.
#define HERALD_WEIGHT_RESIDUAL_NORM_BIAS 63

// MLP, bias of the gate projection: [width].
#define HERALD_WEIGHT_GATE_BIAS 64

// MLP, bias of the up projection: [width].
#define HERALD_WEIGHT_UP_BIAS 65

// MLP, bias of the down projection: [hidden].
#define HERALD_WEIGHT_DOWN_BIAS 66

// Embedding, a row for each position, which is added to the scaled embedding of the token there: [positions, hidden].
// The call then brings positions below that.
#define HERALD_WEIGHT_POSITION_EMBEDDING 67

// Embedding, added to that of every token (BERT's first token type): [hidden].
#define HERALD_WEIGHT_TYPE_EMBEDDING 68

// Head, added to the products with the output matrix, before they are scaled: [vocabulary].
#define HERALD_WEIGHT_OUTPUT_BIAS 69

// Attention, RMS norm of each query head after RoPE (Hunyuan): [key_dim].
#define HERALD_WEIGHT_ROTATED_QUERY_NORM 70

// Attention, RMS norm of each key head after RoPE: [key_dim].
#define HERALD_WEIGHT_ROTATED_KEY_NORM 71

// Attention, temperature by position (Llama 4): [3], b, n and o. The query at position p, rotated and normed, is multiplied
// by 1 + b ln(1 + floor((p + o) / n)).
#define HERALD_WEIGHT_TEMPERATURE 72

// MLP with HERALD_ACTIVATION_XIELU, its numbers: [4], p, n, b and e; see there.
#define HERALD_WEIGHT_XIELU 73

// Attention, MLP and head, in place of a norm at the entry: the elements of the input are multiplied by these, [hidden].
#define HERALD_WEIGHT_INPUT_SCALE 74

// IEEE float32.
#define HERALD_DTYPE_F32 0

// IEEE float16.
#define HERALD_DTYPE_F16 1

// Blocks of 32: float16 scale, 4-bit values less 8. 18 bytes.
#define HERALD_DTYPE_Q4_0 2

// Blocks of 32: float16 scale and minimum, 4-bit values. 20 bytes.
#define HERALD_DTYPE_Q4_1 3

// Blocks of 32: float16 scale, 5-bit values less 16. 22 bytes.
#define HERALD_DTYPE_Q5_0 6

// Blocks of 32: float16 scale and minimum, 5-bit values. 24 bytes.
#define HERALD_DTYPE_Q5_1 7

// Blocks of 32: float16 scale, signed 8-bit values. 34 bytes.
#define HERALD_DTYPE_Q8_0 8

// Blocks of 256, 2 bits. 84 bytes.
#define HERALD_DTYPE_Q2_K 10

// Blocks of 256, 3 bits. 110 bytes.
#define HERALD_DTYPE_Q3_K 11

// Blocks of 256, 4 bits. 144 bytes.
#define HERALD_DTYPE_Q4_K 12

// Blocks of 256, 5 bits. 176 bytes.
#define HERALD_DTYPE_Q5_K 13

// Blocks of 256, 6 bits. 210 bytes.
#define HERALD_DTYPE_Q6_K 14

// Blocks of 256: a float16 scale, and for each 32 four points of a codebook, their signs and a 4-bit scale. 66 bytes.
#define HERALD_DTYPE_IQ2_XXS 16

// Blocks of 256: a float16 scale, points of a codebook with signs, 4-bit scales. 74 bytes.
#define HERALD_DTYPE_IQ2_XS 17

// Blocks of 256: a float16 scale, points of a codebook, signs, 4-bit scales. 98 bytes.
#define HERALD_DTYPE_IQ3_XXS 18

// Blocks of 256: a float16 scale, points of a codebook, 3-bit scales. 50 bytes.
#define HERALD_DTYPE_IQ1_S 19

// Blocks of 32: float16 scale, 4-bit indices into a table of 16 levels. 18 bytes.
#define HERALD_DTYPE_IQ4_NL 20

// Blocks of 256: a float16 scale, points of a codebook, signs, 4-bit scales. 110 bytes.
#define HERALD_DTYPE_IQ3_S 21

// Blocks of 256: a float16 scale, points of a codebook, signs, 4-bit scales. 82 bytes.
#define HERALD_DTYPE_IQ2_S 22

// Blocks of 256, IQ4_NL's levels with 6-bit scales. 136 bytes.
#define HERALD_DTYPE_IQ4_XS 23

// Blocks of 256: points of a codebook, 3-bit scales, a float16 scale in their spare bits. 56 bytes.
#define HERALD_DTYPE_IQ1_M 29

// bfloat16.
#define HERALD_DTYPE_BF16 30

// Blocks of 256: codes of three values, five to a byte, a float16 scale. 54 bytes.
#define HERALD_DTYPE_TQ1_0 34

// Blocks of 256: 2-bit codes, a float16 scale. 66 bytes.
#define HERALD_DTYPE_TQ2_0 35

// Blocks of 32: an 8-bit power of two, 4-bit floats (E2M1). 17 bytes.
#define HERALD_DTYPE_MXFP4 39

// Blocks of 64: an 8-bit float (E4M3) for each 16, 4-bit floats (E2M1). 36 bytes.
#define HERALD_DTYPE_NVFP4 40

// A page of 16-bit integers with a scale for each head of each token: keys is first float32 scales
// [n_kv_heads, capacity], then int16 codes [n_kv_heads, capacity, key_dim]; values the same with value_dim. An element
// is scale * code. (At the size of float16 this keeps keys and values a dozen times more exactly.)
#define HERALD_PAGE_I16 1

// A page of bytes that only its owner can read: a recurrent state, in keys.
#define HERALD_PAGE_OPAQUE 2

// A page of 4-bit codes, for whole pages that are only read. An element is offset + step * code, code 0 to 15. Steps and
// offsets are pairs of float16 (step, offset): of keys one pair for each channel over 64 tokens (channels of keys differ
// much, their tokens little), of values one for each token over 64 channels; the last of each may cover fewer.
// keys: pairs [n_kv_heads, ceil(capacity / 64), key_dim], then codes [n_kv_heads, capacity, ceil(key_dim / 2)] bytes.
// values: pairs [n_kv_heads, capacity, ceil(value_dim / 64)], then codes [n_kv_heads, capacity, ceil(value_dim / 2)].
// The low half of a row's byte i is the code of element i, the high half that of element ceil(dim / 2) + i; where dim is
// odd the last high half is 0.
#define HERALD_PAGE_Q4 3

// An ordinary piece of text.
#define HERALD_TOKEN_NORMAL 1

// Stands for what the vocabulary can't express.
#define HERALD_TOKEN_UNKNOWN 2

// A special token: recognised in text, and written, only when the caller asks.
#define HERALD_TOKEN_CONTROL 3

// Added by the model's makers: matched whole in text before anything else.
#define HERALD_TOKEN_USER_DEFINED 4

// A reserved entry that text never produces.
#define HERALD_TOKEN_UNUSED 5

// One raw byte, spelt <0x0A>.
#define HERALD_TOKEN_BYTE 6

// Encoding recognises special tokens that the text spells out, and decoding spells them out; without it they are read as
// plain text, and left out.
#define HERALD_TEXT_SPECIAL (1 << 0)

// The text goes on from an earlier one: encoding puts no space before it, and decoding takes none away.
#define HERALD_TEXT_CONTINUES (1 << 1)

// SentencePiece: a space is put before the text.
#define HERALD_VOCABULARY_ADD_SPACE_PREFIX (1 << 0)

// SentencePiece: runs of spaces are collapsed.
#define HERALD_VOCABULARY_REMOVE_EXTRA_WHITESPACE (1 << 1)

// WPM: the text is put into lower case.
#define HERALD_VOCABULARY_LOWERCASE (1 << 2)

// WPM: accents are taken off (canonical decomposition, without nonspacing marks).
#define HERALD_VOCABULARY_STRIP_ACCENTS (1 << 3)

// UGM: charsmap has rules by which the text is normalised.
#define HERALD_VOCABULARY_CHARSMAP (1 << 4)

// Some tokens take the white space beside them with them, as token_strips says.
#define HERALD_VOCABULARY_STRIPS (1 << 5)

// A token that is found whole in a text takes the white space on its left with it.
#define HERALD_STRIP_LEFT (1 << 0)

// A token that is found whole in a text takes the white space on its right with it.
#define HERALD_STRIP_RIGHT (1 << 1)

// The id that stands for "no such token".
#define HERALD_NO_TOKEN 4294967295

// Pages as attention writes them (HERALD_PAGE_I16), in RAM.
#define HERALD_TIER_ACTIVE 1

// Pages quantised, in RAM.
#define HERALD_TIER_COMPRESSED 2

// Pages in a file.
#define HERALD_TIER_ARCHIVED 3

// HeraldTierConfig.flags: pages in a file are to be compressed further with LZ4, where that makes them smaller.
#define HERALD_TIER_LZ4 1

// How finely a layer's matmuls with quantised weights may represent activations. A backend may always be finer.
enum ActivationPrecision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // As float32, or in integers of at least 16 bits.
  Int16 = HERALD_ACTIVATIONS_INT16,
  // Also in 8 bits, with a scale for each group of columns.
  Int8 = HERALD_ACTIVATIONS_INT8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ActivationPrecision ActivationPrecision;
#else
typedef uint32_t ActivationPrecision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the host offers a plugin for as long as it is loaded.
typedef struct HeraldHost {
  // sizeof(HeraldHost) of the host.
  size_t struct_size;
  // The host's own; passed back in every call.
  void *context;
  // Writes one line (UTF-8, no newline at its end, text_len bytes) to the host's log at a HERALD_LOG_* level.
  // Any thread.
  void (*log)(void *context, uint32_t level, const char *text, size_t text_len);
} HeraldHost;

#ifndef HERALD_ERROR_DEFINED
#define HERALD_ERROR_DEFINED
// The caller's own buffer for one sentence that says what failed, where, and what was expected.
//
// The caller sets struct_size and message[0] = 0; a callee that fails fills message with NUL-terminated UTF-8, cut at
// a character where it is too long. A null pointer in its place means that the caller doesn't want the sentence.
typedef struct HeraldError {
  // sizeof(HeraldError).
  size_t struct_size;
  // The sentence, NUL-terminated UTF-8.
  char message[504];
} HeraldError;
#endif

// The machine that the plugin is to run on, as the host sees it.
typedef struct HeraldHardware {
  // sizeof(HeraldHardware) of the host.
  size_t struct_size;
  // HERALD_ARCH_*.
  uint32_t arch;
  // Logical CPUs that this process may use (affinity and cgroup limits counted).
  uint32_t cpus;
  // HERALD_CPU_* bits that the CPU and the operating system both support.
  uint64_t features;
  // Bytes of RAM; 0 where unknown.
  uint64_t memory_bytes;
} HeraldHardware;

// How well a plugin suits a machine.
typedef struct HeraldProbe {
  // sizeof(HeraldProbe) of the host.
  size_t struct_size;
  // Higher is preferred. Scalar code scores 100; each plugin's author ranks it against that. 0 is not a score: a plugin
  // that can't run here returns HERALD_STATUS_UNSUPPORTED.
  uint32_t score;
  // Not used; 0.
  uint32_t reserved;
  // Which of the plugin's code paths was chosen ("scalar", "avx2"), NUL-terminated UTF-8.
  char variant[64];
} HeraldProbe;

// Parameters of HERALD_LAYER_ATTENTION, HERALD_LAYER_CHUNKED_ATTENTION and HERALD_LAYER_BIDIRECTIONAL_ATTENTION: grouped-query
// attention over keys and values kept in pages.
//
// Where latent_value_dim isn't 0, it is latent attention (arXiv 2405.04434) over one KV head, with n = key_dim - value_dim:
//
//   c, r = the first value_dim and the last n rows of Wk x,  c = norm(c)           Wk: HERALD_WEIGHT_KEY, [key_dim, hidden]
//   q_h, p_h = the first latent_key_dim and the last n rows of the head's Wq x     Wq: [n_heads * (latent_key_dim + n), hidden]
//   the head's query, a token's key and value in its page: [p_h, Kup_h q_h], [r, c], c; p_h and r are rotated
//   a_h = Vup_h (the sum of values by the softmax of scale * query . key)
typedef struct HeraldAttention {
  // sizeof(HeraldAttention) of the host.
  size_t struct_size;
  // Query heads: a multiple of n_kv_heads.
  uint32_t n_heads;
  // Key and value heads.
  uint32_t n_kv_heads;
  // Elements of a query and of a key head.
  uint32_t key_dim;
  // Elements of a value head.
  uint32_t value_dim;
  // A token attends to itself and the window - 1 tokens before it; 0: to all before it. Chunked attention: the length of
  // a chunk. Bidirectional attention: a token attends to the window / 2 tokens on either side; 0: to all.
  uint32_t window;
  // HERALD_ROPE_*.
  uint32_t rope;
  // How many elements of each query and key head, from the first on, are rotated: even, at most key_dim.
  uint32_t rope_dims;
  // HERALD_ROPE_SCALING_*.
  uint32_t rope_scaling;
  // The base of RoPE's frequencies (theta).
  float rope_base;
  // How many times longer than trained the context may be (linear, YaRN); otherwise 1.
  float rope_factor;
  // YaRN: the context that the model was trained for, in tokens.
  uint32_t rope_original_context;
  // YaRN: how much extrapolation is mixed in where wavelengths are short, usually 1.
  float yarn_ext_factor;
  // YaRN: multiplies the rotated vectors, on top of YaRN's own 1 + 0.1 ln(rope_factor); usually 1.
  float yarn_attn_factor;
  // YaRN: rotations over the trained context above which frequencies stay, usually 32.
  float yarn_beta_fast;
  // YaRN: rotations below which frequencies are interpolated, usually 1.
  float yarn_beta_slow;
  // Scores are softcap * tanh(score / softcap) before the softmax; 0: as they are.
  float softcap;
  // Multiplies query-key products.
  float scale;
  // Latent attention: elements of each head's own query, before those that carry the position; otherwise 0.
  uint32_t latent_key_dim;
  // Latent attention: elements of each head's value; otherwise 0.
  uint32_t latent_value_dim;
  // Latent attention: elements between both query projections, where there are two: HERALD_WEIGHT_QUERY is then
  // [n_heads * (latent_key_dim + n), query_rank]; otherwise 0.
  uint32_t query_rank;
  // 1: the layer has no keys and values of its own (no HERALD_WEIGHT_KEY) and only reads its pages, which an earlier layer of the
  // same heads has filled, this batch's slots too; 0: it has.
  uint32_t shares_kv;
} HeraldAttention;

// Parameters of HERALD_LAYER_MLP.
typedef struct HeraldMlp {
  // sizeof(HeraldMlp) of the host.
  size_t struct_size;
  // Elements between the projections.
  uint32_t width;
  // HERALD_ACTIVATION_*.
  uint32_t activation;
  // 1: down(activation(gate(x)) * up(x)); 0: down(activation(up(x))).
  uint32_t gated;
} HeraldMlp;

// Parameters of HERALD_LAYER_EMBEDDING.
typedef struct HeraldEmbedding {
  // sizeof(HeraldEmbedding) of the host.
  size_t struct_size;
  // Tokens of the vocabulary.
  uint32_t vocabulary;
  // Multiplies the embeddings; usually 1.
  float scale;
  // Rows of HERALD_WEIGHT_POSITION_EMBEDDING; 0: there is none.
  uint32_t positions;
  // Not used; 0.
  uint32_t reserved;
} HeraldEmbedding;

// Parameters of HERALD_LAYER_HEAD.
typedef struct HeraldHead {
  // sizeof(HeraldHead) of the host.
  size_t struct_size;
  // Tokens of the vocabulary.
  uint32_t vocabulary;
  // Multiplies the logits; usually 1.
  float scale;
  // Logits are softcap * tanh(logit / softcap); 0: as they are.
  float softcap;
} HeraldHead;

// Parameters of HERALD_LAYER_MAMBA1. With x and z the input projection's halves and n the layer's norms of dt, B and C:
//
//   x = silu(conv(x)),  dt, B, C = n(Wx x),  dt = softplus(Wdt dt + bias)
//   h[t] = exp(dt A) h[t-1] + dt B x,  y = C h[t] + D x,  output += residual_scale * Wout (y * silu(z))
typedef struct HeraldMamba1 {
  // sizeof(HeraldMamba1) of the host.
  size_t struct_size;
  // Channels.
  uint32_t inner;
  // Elements of each channel's state.
  uint32_t state;
  // Taps of the convolution.
  uint32_t taps;
  // Elements of dt before its projection.
  uint32_t dt_rank;
  // 1: dt, B and C are RMS-normed without weights (Falcon Mamba); 0: they are normed where their norms' weights are
  // there.
  uint32_t plain_norms;
} HeraldMamba1;

// Parameters of HERALD_LAYER_MAMBA2. With z, x, B, C and dt the input projection's parts, head by head:
//
//   x, B, C = silu(conv(x, B, C)),  dt = softplus(dt + bias)
//   h[t] = exp(dt A) h[t-1] + dt x B^T,  y = h[t] C + D x,  output += residual_scale * Wout norm(y * silu(z))
//
// where the norm, by groups of channels, is left out with its weight.
typedef struct HeraldMamba2 {
  // sizeof(HeraldMamba2) of the host.
  size_t struct_size;
  // Channels: a multiple of n_heads.
  uint32_t inner;
  // Elements of each channel's state.
  uint32_t state;
  // Taps of the convolution.
  uint32_t taps;
  // Heads, each of inner / n_heads channels with one decay: a multiple of n_groups.
  uint32_t n_heads;
  // Groups of heads that share B and C, and of channels that are normed together.
  uint32_t n_groups;
} HeraldMamba2;

// Parameters of HERALD_LAYER_SHORT_CONV: output += residual_scale * Wout (C * conv(B * x)).
typedef struct HeraldShortConv {
  // sizeof(HeraldShortConv) of the host.
  size_t struct_size;
  // Taps of the convolution.
  uint32_t taps;
} HeraldShortConv;

// Parameters of HERALD_LAYER_MOE.
typedef struct HeraldMoe {
  // sizeof(HeraldMoe) of the host.
  size_t struct_size;
  // Experts.
  uint32_t n_experts;
  // Experts that each token uses: those of the greatest scores, of equal ones the first.
  uint32_t n_used;
  // Elements between an expert's projections.
  uint32_t width;
  // The same of the expert that every token uses; 0: there is none.
  uint32_t shared_width;
  // HERALD_ACTIVATION_*.
  uint32_t activation;
  // As in HeraldMlp.
  uint32_t gated;
  // HERALD_ROUTING_*: what makes the weights of the experts from the router's scores.
  uint32_t routing;
  // 1: the weights of a token's experts are divided by their sum; 0: they are not.
  uint32_t normalize;
  // Multiplies the weights of a token's experts; usually 1.
  float weight_scale;
  // For HERALD_ROUTING_*_GROUPS: groups of experts that follow each other, a divisor of n_experts; otherwise 0.
  uint32_t n_groups;
  // For HERALD_ROUTING_*_GROUPS: groups that a token's experts are chosen from; otherwise 0.
  uint32_t n_groups_used;
} HeraldMoe;

// Parameters of HERALD_LAYER_DELTA_NET. With x the normed input, and a state S of [key_dim, value_dim] for each value head:
//
//   q, k, v = silu(conv(Wq x, Wk x, Wv x)),  q = q / |q| / sqrt(key_dim),  k = k / |k|,  |y|^2 = sum(y^2) + 1e-6
//   beta = sigmoid(Wbeta x),  decay = exp(A softplus(Wdecay x + bias))
//   S[t] = decay S[t-1] + k beta (v - (decay S[t-1])^T k)^T,  y = S[t]^T q
//   output += residual_scale * Wout (norm(y) * f(Wgate x))
//
// where the norm is of each value head, f is silu or sigmoid, and Wdecay and Wgate may be products of two matrices.
typedef struct HeraldDeltaNet {
  // sizeof(HeraldDeltaNet) of the host.
  size_t struct_size;
  // Heads of queries and keys.
  uint32_t n_key_heads;
  // Heads of values: a multiple of n_key_heads.
  uint32_t n_value_heads;
  // Elements of a query and of a key head.
  uint32_t key_dim;
  // Elements of a value head.
  uint32_t value_dim;
  // Taps of the convolutions.
  uint32_t taps;
  // HERALD_DELTA_HEADS_*: which key head a value head uses.
  uint32_t heads;
  // HERALD_DELTA_DECAY_*.
  uint32_t decay;
  // HERALD_DELTA_GATE_*.
  uint32_t gate;
  // Rows of HERALD_WEIGHT_DECAY where HERALD_WEIGHT_DECAY_UP follows it; 0: it is one matrix.
  uint32_t decay_rank;
  // Rows of HERALD_WEIGHT_OUTPUT_GATE where HERALD_WEIGHT_OUTPUT_GATE_UP follows it; 0: it is one matrix.
  uint32_t gate_rank;
} HeraldDeltaNet;

// Parameters of HERALD_LAYER_PER_LAYER_EMBEDDING. With x a token's activations, E the embedding and T a table of which each block
// has its own columns:
//
//   e = embedding_scale * E[token],  t = table_scale * T[token][first .. first + width]
//   p = (norm(projection_scale * Wprojection e) + t) / sqrt(2)
//   output += residual_scale * postnorm(Wdown (activation(Wgate x) * p)),  output *= outputscale
//
// where the output scale is left out with its weight.
typedef struct HeraldPerLayerEmbedding {
  // sizeof(HeraldPerLayerEmbedding) of the host.
  size_t struct_size;
  // Tokens of the vocabulary.
  uint32_t vocabulary;
  // Elements that the block has of each token.
  uint32_t width;
  // Elements of a row of the table: those of all blocks.
  uint32_t table_width;
  // The first of the block's elements in a row of the table.
  uint32_t first;
  // HERALD_ACTIVATION_*.
  uint32_t activation;
  // Multiplies the embedding.
  float embedding_scale;
  // Multiplies the table's elements.
  float table_scale;
  // Multiplies the projected embedding, before its norm.
  float projection_scale;
} HeraldPerLayerEmbedding;

// A layer: a whole residual branch with its norm. Exactly the parameters of its own kind are not null.
typedef struct HeraldLayerDesc {
  // sizeof(HeraldLayerDesc) of the host.
  size_t struct_size;
  // HERALD_LAYER_*.
  uint32_t kind;
  // The block that the layer belongs to, counted from 0; for messages.
  uint32_t block;
  // Elements of a token's activations.
  uint32_t hidden;
  // Multiplies the branch before it is added; usually 1.
  float residual_scale;
  // Added to the mean square in the layer's RMS norms.
  float norm_eps;
  // How finely matmuls with quantised weights may represent activations: HERALD_ACTIVATIONS_*. A plugin may be finer.
  uint32_t activations;
  // For HERALD_LAYER_ATTENTION, HERALD_LAYER_CHUNKED_ATTENTION and HERALD_LAYER_BIDIRECTIONAL_ATTENTION.
  const struct HeraldAttention *attention;
  // For HERALD_LAYER_MLP.
  const struct HeraldMlp *mlp;
  // For HERALD_LAYER_EMBEDDING.
  const struct HeraldEmbedding *embedding;
  // For HERALD_LAYER_HEAD.
  const struct HeraldHead *head;
  // For HERALD_LAYER_MAMBA1.
  const struct HeraldMamba1 *mamba1;
  // For HERALD_LAYER_MAMBA2.
  const struct HeraldMamba2 *mamba2;
  // For HERALD_LAYER_SHORT_CONV.
  const struct HeraldShortConv *short_conv;
  // For HERALD_LAYER_MOE.
  const struct HeraldMoe *moe;
  // For HERALD_LAYER_DELTA_NET.
  const struct HeraldDeltaNet *delta_net;
  // For HERALD_LAYER_PER_LAYER_EMBEDDING.
  const struct HeraldPerLayerEmbedding *per_layer_embedding;
} HeraldLayerDesc;

// One weight: a view of the model file's bytes.
//
// dims follows GGUF: dims[0] is the length of a row, whose elements are contiguous. A matrix written above as
// [rows, columns] has dims {columns, rows}.
typedef struct HeraldTensor {
  // sizeof(HeraldTensor) of the host.
  size_t struct_size;
  // HERALD_WEIGHT_*: what the layer uses it for.
  uint32_t role;
  // HERALD_DTYPE_*.
  uint32_t dtype;
  // How many of dims are used: 1 to 4; the rest are 1.
  uint32_t n_dims;
  // Not used; 0.
  uint32_t reserved;
  // Elements along each dimension, none 0.
  uint64_t dims[4];
  // The elements, rows one after another. At no particular alignment. Read-only; valid until layer_destroy.
  const void *data;
  // Bytes of data: exactly what dims and dtype need.
  uint64_t data_bytes;
  // The tensor's name in the model file, for messages: UTF-8, valid until layer_destroy.
  const char *name;
  // Bytes of name.
  size_t name_len;
} HeraldTensor;

// One piece of parallel work, made by the plugin on its own stack.
typedef struct HeraldTask {
  // sizeof(HeraldTask) of the plugin.
  size_t struct_size;
  // The plugin's own; passed back in every call.
  void *argument;
  // Does items begin..end; a worker may get several such ranges. No two calls of one task share an item, and no two that
  // run at the same time share a worker; worker is less than HeraldParallel.workers. Must not throw, unwind or longjmp.
  void (*run)(void *argument, uint64_t begin, uint64_t end, uint32_t worker);
} HeraldTask;

// The host's threads, lent for one call. A plugin starts no compute threads itself.
typedef struct HeraldParallel {
  // sizeof(HeraldParallel) of the host.
  size_t struct_size;
  // The host's own; passed back in run.
  void *context;
  // How many workers may run at once, the calling thread counted; at least 1.
  uint32_t workers;
  // Not used; 0.
  uint32_t reserved;
  // Does all of items 0..items by calling the task with ranges that don't overlap, on this thread and the workers',
  // and returns when every one is done. What a task wrote before its end is visible to the caller afterwards.
  // To be called only by the thread that was handed this struct, during the call that handed it, and not from within
  // a task.
  void (*run)(void *context, uint64_t items, const struct HeraldTask *task);
} HeraldParallel;

// Where a host keeps packed weights: what a plugin makes of a weight once, in an order of its own. Packed weights are kept for the
// next layer that is made of the same weight, also by other processes, which then share the memory. Only the thread that was
// handed this struct may use it, during the call that handed it, and not from within a task. A plugin need not use it, and does
// without where take fails.
typedef struct HeraldPackStore {
  // sizeof(HeraldPackStore) of the host.
  size_t struct_size;
  // The host's own; passed back in take and filled.
  void *context;
  // Puts in *packed the memory of packed_bytes bytes, aligned to 64, for source_bytes bytes of a weight at source (all of
  // HeraldTensor.data, or a part of it), packed in a form that the plugin numbers as it likes. *is_filled becomes 1 where it
  // holds what was once filled, for the same source and form; it must not be written then. Otherwise it becomes 0, and the
  // memory is zeroed, and the plugin's to fill. Either way it is valid until layer_destroy, or until layer_create fails. What is
  // filled belongs to this build of the plugin: another one is not given it.
  // Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED where the source is not kept, or not in this form and length; OUT_OF_MEMORY; IO.
  uint32_t (*take)(void *context,
                   const void *source,
                   uint64_t source_bytes,
                   uint64_t form,
                   uint64_t packed_bytes,
                   void **packed,
                   uint32_t *is_filled,
                   struct HeraldError *error);
  // Says that memory which take gave is filled. From then on it must not be written. Statuses: OK; INVALID_ARGUMENT.
  uint32_t (*filled)(void *context, const void *packed, struct HeraldError *error);
} HeraldPackStore;

// A layer that the host wants: its description, its weights, and the largest calls that it will get.
typedef struct HeraldLayerRequest {
  // sizeof(HeraldLayerRequest) of the host.
  size_t struct_size;
  // The description; valid during the call.
  const struct HeraldLayerDesc *desc;
  // The weights, one pointer each; the structs are valid during the call, their data and names until
  // layer_destroy. A role that the layer doesn't know must be answered with UNSUPPORTED, never ignored.
  const struct HeraldTensor *const *weights;
  // How many weights.
  size_t n_weights;
  // Threads to prepare weights with; valid during the call.
  const struct HeraldParallel *parallel;
  // The most tokens that a forward call will bring.
  uint32_t max_tokens;
  // The most workers that a forward call will bring.
  uint32_t max_workers;
  // Tokens of a KV page.
  uint32_t page_tokens;
  // Not used; 0.
  uint32_t reserved;
  // The largest rank of the low-rank updates that forward calls will bring (HeraldSequence.loras); 0: they bring none.
  uint64_t max_lora_rank;
  // Where the host keeps weights as plugins pack them; valid during the call. Null: it keeps none.
  const struct HeraldPackStore *packs;
} HeraldLayerRequest;

// What a made layer needs.
typedef struct HeraldLayerInfo {
  // sizeof(HeraldLayerInfo) of the host.
  size_t struct_size;
  // Bytes of scratch memory that a forward call of max_tokens needs.
  uint64_t scratch_bytes;
  // Bytes of recurrent state for each sequence; 0 for layers that keep none.
  uint64_t state_bytes;
  // Bytes that the layer itself allocated for weights (repacked copies); for reports.
  uint64_t weight_bytes;
  // Attention: formats of whole pages that it reads besides HERALD_PAGE_I16: bit HERALD_PAGE_* of each.
  uint32_t page_formats;
  // Attention: float32 elements of HeraldFetch's scores that the layer works in for each selectable page, at most 65536;
  // 0: it does no page selection, and is brought no selectable pages.
  uint32_t score_width;
  // Attention: bytes of a selectable page's summary, a multiple of 8; 0: it makes none.
  uint64_t summary_bytes;
  // Batch invariance: where a sequence has at most this many tokens in a call, the results and the state are, to the bit, those
  // of one call a token, whatever other sequences' tokens are in the call. The host drafts tokens (speculative decoding)
  // only where every layer promises it. 0: not promised.
  uint32_t batch_invariant_tokens;
  // Not used; 0.
  uint32_t reserved;
  // The largest rank of low-rank updates that the layer adds to its products: at least the max_lora_rank of the request, or
  // 0: it adds none, and is brought none (HeraldSequence.loras).
  uint64_t max_lora_rank;
} HeraldLayerInfo;

// A run of tokens' keys and values of one layer.
typedef struct HeraldPage {
  // sizeof(HeraldPage) of whoever made it.
  size_t struct_size;
  // The position in its sequence of the page's first token.
  uint64_t start;
  // Tokens that it holds, counting those that this call will write.
  uint32_t n_tokens;
  // Tokens that it has room for.
  uint32_t capacity;
  // HERALD_PAGE_*.
  uint32_t format;
  // Not used; 0.
  uint32_t reserved;
  // Keys, aligned to 64 bytes.
  void *keys;
  // Values, aligned to 64 bytes.
  void *values;
  // Bytes of keys.
  uint64_t key_bytes;
  // Bytes of values.
  uint64_t value_bytes;
} HeraldPage;

// A low-rank update of one of a layer's weights (LoRA, arXiv 2106.09685). It adds to the weight's product with x, before anything
// else is done with that:
//
//   scale * the sum over i < rank of (down_i . x) * up_i
typedef struct HeraldLora {
  // sizeof(HeraldLora) of the host.
  size_t struct_size;
  // The weight, one that the layer was made with: HERALD_WEIGHT_QUERY, _QUERY_AND_GATE, _KEY, _VALUE or _ATTENTION_OUTPUT of
  // attention that isn't latent, and HERALD_WEIGHT_GATE, _UP or _DOWN of an MLP. No others come.
  uint32_t role;
  // Rows of down and of up: at least 1, at most HeraldLayerInfo.max_lora_rank.
  uint32_t rank;
  // Elements of a row of down, and of the weight's.
  uint64_t columns;
  // Elements of a row of up: the weight's rows.
  uint64_t rows;
  // [rank, columns].
  const float *down;
  // [rank, rows].
  const float *up;
  // A finite number.
  float scale;
  // Not used; 0.
  uint32_t reserved;
} HeraldLora;

// One sequence's part of a batch.
typedef struct HeraldSequence {
  // sizeof(HeraldSequence) of the host.
  size_t struct_size;
  // The index of its first token in the batch.
  uint64_t first;
  // Its tokens in this batch, one after another.
  uint64_t n_tokens;
  // Tokens that it had before them: the first one's position in the sequence.
  uint64_t past;
  // Its KV pages for this layer, in rising order of start; they may leave out earlier tokens, which are then not
  // attended to, and always hold room for this batch's tokens. Pages that hold only earlier tokens may be shared with
  // other sequences and are read-only. Null for layers without KV.
  const struct HeraldPage *const *pages;
  // How many pages.
  size_t n_pages;
  // Its recurrent state, state_bytes as the layer asked, zeroed when the sequence began, aligned to 64 bytes; or null.
  void *state;
  // Page selection (Quest, arXiv 2406.10774; InfLLM, arXiv 2402.04617): pages that attention may choose among, by scores
  // that the layer gives them (see HeraldFetch). The position of each page's first token, rising.
  const uint64_t *selectable_starts;
  // The selectable pages' summaries, as summarise made them, one after another; aligned to 8 bytes.
  const void *selectable_summaries;
  // How many selectable pages; 0: none, and both pointers may be null.
  size_t n_selectable;
  // The greatest distance between a query and a key that the layer's RoPE may see, usually the context that the model was
  // trained for. For a page that begins at start, the layer subtracts a position shift from the positions of the batch's
  // queries: past + n_tokens - start - max_distance, where that is positive (InfLLM, arXiv 2402.04617). 0: no limit,
  // positions stay as they are.
  uint64_t max_distance;
  // Low-rank updates of the layer's weights, for this sequence's tokens alone, added one after another. Only layers whose
  // max_lora_rank isn't 0 are brought any. A token's result still doesn't depend on the tokens of other sequences, and without
  // updates it is the one that a call without any would give.
  const struct HeraldLora *const *loras;
  // How many updates; 0: none, and the pointer may be null.
  size_t n_loras;
} HeraldSequence;

// Page selection: a layer whose sequences have selectable pages fills scores and calls run, once, after it has written its
// keys and values and before it attends.
typedef struct HeraldFetch {
  // sizeof(HeraldFetch) of the host.
  size_t struct_size;
  // For run.
  void *context;
  // Memory for n_scores float32: score_width for each selectable page of every sequence, holding anything at first. run
  // reads the first elements, one for each selectable page, sequence after sequence: the more the batch's queries would
  // attend to a page, the greater.
  float *scores;
  // Elements of scores.
  size_t n_scores;
  // Chooses pages by their scores and puts a new list of the call's sequences, with these pages among the others, in
  // *sequences; it is valid until the call ends, as is the list that the call began with, which lacks these pages. The
  // thread that was handed the call may use it, once.
  // Statuses: OK; otherwise the layer gives the status and the message back from forward.
  uint32_t (*run)(void *context,
                  const struct HeraldSequence *const **sequences,
                  struct HeraldError *error);
} HeraldFetch;

// A forward call: a flat batch of tokens from any number of sequences.
typedef struct HeraldCall {
  // sizeof(HeraldCall) of the host.
  size_t struct_size;
  // Tokens of the batch: 1 to max_tokens.
  size_t n_tokens;
  // Token ids [n_tokens]; for the embedding, elsewhere may be null.
  const uint32_t *tokens;
  // Positions for RoPE [n_tokens]; may be null for layers other than attention.
  const uint32_t *positions;
  // Activations [n_tokens, hidden]; null: the output holds them too (the usual residual branch, in place).
  const float *input;
  // Activations [n_tokens, hidden] that a residual branch adds to and the embedding fills, or the head's logits
  // [n_tokens, vocabulary]. Does not overlap input.
  float *output;
  // The sequences, covering the batch's tokens in order, one pointer each. Null for the embedding and the
  // head.
  const struct HeraldSequence *const *sequences;
  // How many sequences.
  size_t n_sequences;
  // Memory to work in, for this call alone, aligned to 64 bytes; holds anything at first.
  void *scratch;
  // Bytes of scratch: at least the scratch_bytes that the layer asked for.
  uint64_t scratch_bytes;
  // Threads to work with.
  const struct HeraldParallel *parallel;
  // Page selection; null where no sequence has selectable pages.
  const struct HeraldFetch *fetch;
} HeraldCall;

// A product that a layer is about to compute: of a weight matrix with a batch of activations.
typedef struct HeraldProduct {
  // sizeof(HeraldProduct) of the plugin.
  size_t struct_size;
  // Where the matrix's first row lies in HeraldTensor.data. (A tensor of experts has many matrices.)
  const void *data;
  // Elements of a row.
  uint64_t columns;
  // Tokens of the batch.
  uint64_t n_tokens;
  // The activations, [n_tokens, columns]; valid during the call.
  const float *input;
} HeraldProduct;

// Who is shown the products that layers compute.
typedef struct HeraldObserver {
  // sizeof(HeraldObserver) of the host.
  size_t struct_size;
  // The host's own; passed back in product.
  void *context;
  // Called before each product, within a layer's forward. Any thread, and any number at once.
  void (*product)(void *context, const struct HeraldProduct *product);
} HeraldObserver;

// Engine layers of a plugin. All pointers are to structs that stay the caller's.
typedef struct HeraldLayerTable {
  // sizeof(HeraldLayerTable) of the plugin.
  size_t struct_size;
  // The HERALD_LAYER_* kinds that it offers, at least in some forms.
  const uint32_t *kinds;
  // How many kinds.
  size_t n_kinds;
  // Whether layer_create would accept the request; cheap, reads no weight data. Any thread. May be null: then
  // layer_create is asked. Statuses: OK; UNSUPPORTED with what is missing; INVALID_ARGUMENT.
  uint32_t (*supports)(const struct HeraldLayerRequest *request, struct HeraldError *error);
  // Makes a layer and puts it in *out, for the caller to give to destroy. Any thread. On failure *out is untouched
  // and nothing is kept. Statuses: OK, UNSUPPORTED, INVALID_ARGUMENT (a shape that contradicts the description),
  // OUT_OF_MEMORY, INTERNAL.
  uint32_t (*create)(const struct HeraldLayerRequest *request,
                     HeraldLayer **out,
                     struct HeraldError *error);
  // Says what the layer needs: fills out. Any thread. Statuses: OK.
  uint32_t (*info)(const HeraldLayer *layer, struct HeraldLayerInfo *out, struct HeraldError *error);
  // Runs the layer over a batch. Any thread, and any number at once with different buffers: a layer doesn't change.
  // It may write only output, scratch, its sequences' states, and the slots of this batch's tokens in their pages; it
  // allocates nothing. On failure those hold anything. Statuses: OK, INVALID_ARGUMENT, INTERNAL.
  uint32_t (*forward)(const HeraldLayer *layer,
                      const struct HeraldCall *call,
                      struct HeraldError *error);
  // Destroys a layer that no call is running on. Any thread. Null is allowed.
  void (*destroy)(HeraldLayer *layer);
  // Makes the summary of a whole page (HERALD_PAGE_I16, with its start), by which the layer can later tell how much
  // queries would attend to it: fills summary_bytes at summary, aligned to 8 bytes. Any thread. May be null where no
  // layer has summaries. Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED.
  uint32_t (*summarise)(const HeraldLayer *layer,
                        const struct HeraldPage *page,
                        void *summary,
                        struct HeraldError *error);
  // From then on, the observer (which is copied) is shown each product of a weight matrix that any of the plugin's layers
  // computes, in place of an earlier observer; null: nobody is. When it returns, nothing is being shown to an earlier one
  // any more. It is how hosts compute importance matrices. Any thread, but not within an observer. May be null where layers
  // don't show their products. Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED.
  uint32_t (*observe)(const struct HeraldObserver *observer, struct HeraldError *error);
} HeraldLayerTable;

// What a model file says of its vocabulary. Everything is valid during the call only.
typedef struct HeraldVocabulary {
  // sizeof(HeraldVocabulary) of the host.
  size_t struct_size;
  // The kind of tokenizer, as GGUF's tokenizer.ggml.model names it: "gpt2" (byte-level BPE), "llama" (SentencePiece's BPE),
  // "gemma4" (BPE of characters), "bert" (WPM), "t5" (UGM). UTF-8.
  const char *model;
  // Bytes of model.
  size_t model_len;
  // The pre-tokenizer, as GGUF's tokenizer.ggml.pre names it; empty where the file names none. UTF-8.
  const char *pre;
  // Bytes of pre.
  size_t pre_len;
  // Tokens of the vocabulary; ids are 0 to n_tokens - 1.
  size_t n_tokens;
  // All tokens' bytes, one after another.
  const uint8_t *token_bytes;
  // [n_tokens + 1], rising from 0: token i is bytes token_offsets[i] to token_offsets[i + 1].
  const uint64_t *token_offsets;
  // HERALD_TOKEN_* [n_tokens], or null: all normal.
  const uint32_t *token_types;
  // SentencePiece's scores [n_tokens], or null.
  const float *token_scores;
  // BPE's merges in order of rank, each "left right", or 0.
  size_t n_merges;
  // All merges' bytes, one after another.
  const uint8_t *merge_bytes;
  // [n_merges + 1], as token_offsets.
  const uint64_t *merge_offsets;
  // The token that stands for what can't be expressed, or HERALD_NO_TOKEN.
  uint32_t unknown;
  // HERALD_VOCABULARY_* bits.
  uint32_t flags;
  // UGM's rules, as SentencePiece's precompiled_charsmap has them: how many bytes of a double array follow (uint32_t,
  // little endian), these, and the replacements, each with a NUL behind it. Null without HERALD_VOCABULARY_CHARSMAP.
  const uint8_t *charsmap;
  // Bytes of charsmap.
  size_t charsmap_len;
  // HERALD_STRIP_* bits [n_tokens] of control, user-defined and unknown tokens. Null without HERALD_VOCABULARY_STRIPS.
  const uint8_t *token_strips;
} HeraldVocabulary;

// Tokenizers of a plugin.
typedef struct HeraldTokenizerTable {
  // sizeof(HeraldTokenizerTable) of the plugin.
  size_t struct_size;
  // Makes a tokenizer of the vocabulary and puts it in *out, for the caller to give to destroy; what it needs of the
  // vocabulary it copies. Any thread. On failure *out is untouched. Statuses: OK; UNSUPPORTED (an unknown model or
  // pre-tokenizer: the host asks the next plugin); CORRUPT (a vocabulary that contradicts itself); OUT_OF_MEMORY;
  // INTERNAL.
  uint32_t (*create)(const struct HeraldVocabulary *vocabulary,
                     HeraldTokenizer **out,
                     struct HeraldError *error);
  // Writes the ids of text (UTF-8, text_len bytes) to ids, which has room for capacity, and their number to *n_ids.
  // No BOS or EOS is added. flags: HERALD_TEXT_*. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with
  // *n_ids the number needed; INVALID_ARGUMENT (not UTF-8); UNSUPPORTED (text that the vocabulary can't express).
  uint32_t (*encode)(const HeraldTokenizer *tokenizer,
                     const char *text,
                     size_t text_len,
                     uint32_t flags,
                     uint32_t *ids,
                     size_t capacity,
                     size_t *n_ids,
                     struct HeraldError *error);
  // Writes the bytes of n_ids ids to bytes, which has room for capacity, and their number to *n_bytes; a token may
  // hold part of a UTF-8 character. Decoding two runs of tokens, the second with HERALD_TEXT_CONTINUES, gives the
  // bytes of decoding both at once. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *n_bytes the number
  // needed; INVALID_ARGUMENT (an id outside the vocabulary).
  uint32_t (*decode)(const HeraldTokenizer *tokenizer,
                     const uint32_t *ids,
                     size_t n_ids,
                     uint32_t flags,
                     uint8_t *bytes,
                     size_t capacity,
                     size_t *n_bytes,
                     struct HeraldError *error);
  // Destroys a tokenizer that no call is running on. Any thread. Null is allowed.
  void (*destroy)(HeraldTokenizer *tokenizer);
} HeraldTokenizerTable;

// What a tier keeps: pages of one shape.
typedef struct HeraldTierConfig {
  // sizeof(HeraldTierConfig) of the host.
  size_t struct_size;
  // HERALD_TIER_*.
  uint32_t kind;
  // Key and value heads; 0 where it keeps recurrent states.
  uint32_t n_kv_heads;
  // Elements of a key head.
  uint32_t key_dim;
  // Elements of a value head.
  uint32_t value_dim;
  // Tokens that a page has room for.
  uint32_t page_tokens;
  // Not used; 0.
  uint32_t reserved;
  // Bytes of a recurrent state; 0 where it keeps keys and values.
  uint64_t state_bytes;
  // The most bytes that it may keep; 0: no limit.
  uint64_t capacity_bytes;
  // HERALD_TIER_ARCHIVED: the file's path as the system has it (on Unix any bytes but NUL); valid during the call. A file that is there is opened with the pages in it
  // (see list). A folder: a file without a name in it, made when the first page comes, which goes with the tier.
  const char *path;
  // Bytes of path.
  size_t path_len;
  // HERALD_TIER_LZ4, or 0.
  uint64_t flags;
} HeraldTierConfig;

// What a tier holds and has done since it was made.
typedef struct HeraldTierStats {
  // sizeof(HeraldTierStats) of the host.
  size_t struct_size;
  // Pages that it holds.
  uint64_t pages;
  // Tokens that they hold.
  uint64_t tokens;
  // Bytes that they take in this tier.
  uint64_t bytes;
  // Calls of get and view that found their page.
  uint64_t hits;
  // Calls of get and view that did not.
  uint64_t misses;
  // Bytes of RAM that its pages take; for a tier in RAM, the same as bytes.
  uint64_t memory_bytes;
  // Pages whose checksum, or whose entry in the index of the file, turned out to be wrong: they are gone.
  uint64_t damaged;
} HeraldTierStats;

// A search for the pages that a query would attend to most.
typedef struct HeraldTierQuery {
  // sizeof(HeraldTierQuery) of the host.
  size_t struct_size;
  // Ids of the pages to choose among.
  const uint64_t *ids;
  // How many ids.
  size_t n_ids;
  // Queries, rotated as keys are: [n_queries, n_kv_heads, key_dim].
  const float *query;
  // How many queries share the search (heads of a group, tokens of a batch); at least 1.
  size_t n_queries;
} HeraldTierQuery;

// Memory tiers of a plugin. Ids are the caller's: any number, once each. All calls but destroy may come from any
// thread, many at once; that nobody reads a page's bytes while another writes them is the caller's part.
typedef struct HeraldTierTable {
  // sizeof(HeraldTierTable) of the plugin.
  size_t struct_size;
  // The HERALD_TIER_* kinds that it offers.
  const uint32_t *kinds;
  // How many kinds.
  size_t n_kinds;
  // Makes a tier and puts it in *out, for the caller to give to destroy. On failure *out is untouched.
  // Statuses: OK; UNSUPPORTED (another kind); INVALID_ARGUMENT; IO; OUT_OF_MEMORY; INTERNAL.
  uint32_t (*create)(const struct HeraldTierConfig *config,
                     HeraldTier **out,
                     struct HeraldError *error);
  // Keeps a page under a new id. page: its contents as HERALD_PAGE_I16 (or HERALD_PAGE_OPAQUE for a state), or in the
  // tier's own format as view gives it, copied; or
  // null for an empty page of zeros, to be written through view and told to commit.
  // Statuses: OK; INVALID_ARGUMENT (the id is taken, the shape is another); OUT_OF_MEMORY (capacity_bytes is full);
  // UNSUPPORTED (no empty pages in this tier); IO.
  uint32_t (*put)(HeraldTier *tier,
                  uint64_t id,
                  const struct HeraldPage *page,
                  struct HeraldError *error);
  // Copies a page out as HERALD_PAGE_I16 (or HERALD_PAGE_OPAQUE) into the buffers that into names, and sets its
  // n_tokens. Statuses: OK; NOT_FOUND; BUFFER_TOO_SMALL; CORRUPT (a checksum); IO.
  uint32_t (*get)(HeraldTier *tier, uint64_t id, struct HeraldPage *into, struct HeraldError *error);
  // Fills page with pointers to where the tier itself keeps it, in the tier's own format; they stay valid until the
  // page is dropped or the tier destroyed, or as often released as viewed. start is left alone. Statuses: OK;
  // NOT_FOUND; UNSUPPORTED (a tier whose pages can't be read in place); CORRUPT (a checksum); IO.
  uint32_t (*view)(HeraldTier *tier, uint64_t id, struct HeraldPage *page, struct HeraldError *error);
  // Says that the page's first n_tokens slots now hold tokens, written through view.
  // Statuses: OK; NOT_FOUND; INVALID_ARGUMENT (more than page_tokens).
  uint32_t (*commit)(HeraldTier *tier, uint64_t id, uint32_t n_tokens, struct HeraldError *error);
  // Forgets a page. Statuses: OK; NOT_FOUND.
  uint32_t (*drop)(HeraldTier *tier, uint64_t id, struct HeraldError *error);
  // Destroys a tier that no call is running on, with its pages. Null is allowed.
  void (*destroy)(HeraldTier *tier);
  // Fills out. May be null. Statuses: OK.
  uint32_t (*stats)(HeraldTier *tier, struct HeraldTierStats *out, struct HeraldError *error);
  // Finds the pages that the queries would attend to most: writes the ids of at most k of the query's pages and their
  // scores, best first, to ids and scores, which have room for k, and their number to *n. A page's score is the
  // greatest query-key product over its tokens, heads and the queries, or a bound above it. May be null.
  // Statuses: OK; NOT_FOUND (one of the ids); INVALID_ARGUMENT.
  uint32_t (*search)(HeraldTier *tier,
                     const struct HeraldTierQuery *query,
                     size_t k,
                     uint64_t *ids,
                     float *scores,
                     size_t *n,
                     struct HeraldError *error);
  // Says that what one call of view gave is not used any more. May be null: pages then stay where they were viewed.
  // Statuses: OK; NOT_FOUND.
  uint32_t (*release)(HeraldTier *tier, uint64_t id, struct HeraldError *error);
  // Writes the ids of at most room pages to ids, in any order, and how many pages there are to *n. May be null.
  // Statuses: OK; UNSUPPORTED (as if it were null).
  uint32_t (*list)(HeraldTier *tier,
                   uint64_t *ids,
                   size_t room,
                   size_t *n,
                   struct HeraldError *error);
  // Returns when every page that was put is in the tier's file, so that it outlives the process. May be null: there is
  // nothing to wait for. Statuses: OK; IO.
  uint32_t (*flush)(HeraldTier *tier, struct HeraldError *error);
} HeraldTierTable;

// A plugin. herald_plugin_v1 returns a pointer to one that lives as long as the library is loaded.
typedef struct HeraldPlugin {
  // sizeof(HeraldPlugin) of the plugin.
  size_t struct_size;
  // HERALD_ABI_VERSION of the header that it was built with.
  uint32_t abi_version;
  // Not used; 0.
  uint32_t reserved;
  // A short name, unique among plugins: letters, digits, '-' and '_', at most 64 bytes. What --backend takes.
  const char *name;
  // Bytes of name.
  size_t name_len;
  // The plugin's own version, such as "1.2.0", at most 64 bytes of UTF-8.
  const char *version;
  // Bytes of version.
  size_t version_len;
  // One line for people, at most 256 bytes of UTF-8; may be null.
  const char *description;
  // Bytes of description.
  size_t description_len;
  // The layouts of this ABI's structs as the plugin was built with them, or null: Rust plugins carry it by
  // themselves (see herald-api's layout module), and C plugins leave it null.
  const char *layout;
  // Bytes of layout.
  size_t layout_len;
  // Called once, after the checks and before anything else; host stays valid until the process ends. May be null.
  // Statuses: OK, or any failure, which refuses the plugin.
  uint32_t (*start)(const struct HeraldHost *host, struct HeraldError *error);
  // Says how well the plugin suits the hardware: fills out. Any thread, at any time after start, cheaply.
  // Statuses: OK; UNSUPPORTED with the reason where it can't run here.
  uint32_t (*probe)(const struct HeraldHardware *hardware,
                    struct HeraldProbe *out,
                    struct HeraldError *error);
  // Engine layers, or null where the plugin offers none.
  const struct HeraldLayerTable *layers;
  // Tokenizers, or null where the plugin offers none.
  const struct HeraldTokenizerTable *tokenizers;
  // Memory tiers, or null where the plugin offers none.
  const struct HeraldTierTable *tiers;
} HeraldPlugin;

// Every precision that this version knows.
#define ActivationPrecision_ALL { Int16, Int8, }

#endif  /* HERALD_PLUGIN_H */

#ifdef __cplusplus
extern "C" {
#endif

// A plugin's entry, which every plugin defines: its table, which lives as long as the library is loaded.
// Any thread; null where the plugin can't be used.
HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void);

#ifdef __cplusplus
}
#endif
