// @NAME@: a HERALD plugin that offers one kind of engine layer, the gated MLP over float32 weights:
//
//     output += residual_scale * down(act(gate(x)) * up(x)),  x = norm(input)
//
// Everything else of a model is left to the next plugin. To grow it: offer another element type in `place`, another activation in
// `activate`, or another kind of layer in KINDS and `read`. HERALD's docs/PLUGINS.md has the rules.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "herald_plugin.h"

// Whether the host's struct is long enough to have the field: an older host's may end before it.
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

// What HeraldLayer is, is the plugin's own affair. Weights are floats in the model file, at any alignment.
struct HeraldLayer {
    std::size_t hidden = 0, width = 0, max_tokens = 0;
    std::uint32_t activation = 0;
    float residual_scale = 1.0f, norm_eps = 0.0f;
    // [hidden], [width, hidden], [width, hidden], [hidden, width]
    const unsigned char *norm = nullptr, *gate = nullptr, *up = nullptr, *down = nullptr;

    // [n_tokens, hidden] and [n_tokens, width].
    std::uint64_t scratch_bytes(std::size_t n_tokens) const {
        return std::uint64_t{n_tokens} * (hidden + width) * sizeof(float);
    }
};

namespace {

// A status and one sentence: what, where, what was expected.
struct Failure {
    std::uint32_t status;
    std::string sentence;
};

// Calls `body`, and turns what it throws into a status: no exception may leave the plugin.
template <class Body> std::uint32_t guarded(HeraldError *error, const Body &body) noexcept {
    const auto fail = [error](std::uint32_t status, const char *sentence) {
        if (error != nullptr && COVERS(error, HeraldError, message))
            std::snprintf(error->message, sizeof error->message, "%s", sentence);
        return status;
    };
    try {
        body();
        return HERALD_STATUS_OK;
    } catch (const Failure &failure) {
        return fail(failure.status, failure.sentence.c_str());
    } catch (const std::bad_alloc &) {
        return fail(HERALD_STATUS_OUT_OF_MEMORY, "there is no memory left");
    } catch (const std::exception &exception) {
        return fail(HERALD_STATUS_INTERNAL, exception.what());
    } catch (...) {
        return fail(HERALD_STATUS_INTERNAL, "an unknown exception was thrown");
    }
}

// ---- Which layers are offered. ----

// Puts a weight into the place for its role.
void place(const HeraldTensor &weight, HeraldLayer &layer) {
    const std::string role = std::to_string(weight.role);
    const unsigned char **place = nullptr;
    std::size_t rows = 1, columns = layer.hidden;
    switch (weight.role) {
    case HERALD_WEIGHT_NORM: place = &layer.norm; break;
    case HERALD_WEIGHT_GATE: place = &layer.gate; rows = layer.width; break;
    case HERALD_WEIGHT_UP: place = &layer.up; rows = layer.width; break;
    case HERALD_WEIGHT_DOWN: place = &layer.down; rows = layer.hidden; columns = layer.width; break;
    default: // to ignore a weight would be to compute something else
        throw Failure{HERALD_STATUS_UNSUPPORTED, "a weight has role " + role + ", which is not offered"};
    }
    if (weight.dtype != HERALD_DTYPE_F32)
        throw Failure{HERALD_STATUS_UNSUPPORTED, "the weight in role " + role + " is not F32"};
    if (weight.dims[0] != columns || weight.dims[1] != rows || weight.dims[2] != 1 || weight.dims[3] != 1 ||
        weight.data == nullptr || weight.data_bytes / sizeof(float) != std::uint64_t{rows} * columns)
        throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "the weight in role " + role + " is not [" + std::to_string(rows) + ", " +
                                                          std::to_string(columns) + "]"};
    if (*place != nullptr) throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "two weights have role " + role};
    *place = static_cast<const unsigned char *>(weight.data);
}

// Reads and checks a request, for supports and create. Reads no weight data.
HeraldLayer read(const HeraldLayerRequest *request) {
    if (request == nullptr || !COVERS(request, HeraldLayerRequest, max_tokens) || request->desc == nullptr ||
        !COVERS(request->desc, HeraldLayerDesc, mlp))
        throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "the layer request is missing or too short"};
    const HeraldLayerDesc &desc = *request->desc;
    const std::string block = "block " + std::to_string(desc.block);
    if (desc.kind != HERALD_LAYER_MLP)
        throw Failure{HERALD_STATUS_UNSUPPORTED, "layer kind " + std::to_string(desc.kind) + " is not offered"};
    const HeraldMlp *mlp = desc.mlp;
    if (mlp == nullptr || !COVERS(mlp, HeraldMlp, gated) || desc.hidden == 0 || mlp->width == 0 || request->max_tokens == 0)
        throw Failure{HERALD_STATUS_INVALID_ARGUMENT, block + "'s mlp has no size"};
    if (mlp->gated != 1 || (mlp->activation != HERALD_ACTIVATION_SILU && mlp->activation != HERALD_ACTIVATION_GELU_TANH))
        throw Failure{HERALD_STATUS_UNSUPPORTED, "only a gated mlp with SiLU or GELU is offered"};
    if (desc.hidden > 1 << 24 || mlp->width > 1 << 24) // so that no size overflows
        throw Failure{HERALD_STATUS_UNSUPPORTED, "an mlp of more than 2^24 elements is not offered"};
    HeraldLayer layer;
    layer.hidden = desc.hidden;
    layer.width = mlp->width;
    layer.max_tokens = request->max_tokens;
    layer.activation = mlp->activation;
    layer.residual_scale = desc.residual_scale;
    layer.norm_eps = desc.norm_eps;
    for (std::size_t i = 0; i < request->n_weights; i++) {
        const HeraldTensor *weight = request->weights[i];
        if (weight == nullptr || !COVERS(weight, HeraldTensor, data_bytes))
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "a weight is missing or too short"};
        place(*weight, layer);
    }
    if (layer.norm == nullptr || layer.gate == nullptr || layer.up == nullptr || layer.down == nullptr)
        throw Failure{HERALD_STATUS_INVALID_ARGUMENT, block + "'s mlp lacks a weight"};
    return layer;
}

std::uint32_t supports(const HeraldLayerRequest *request, HeraldError *error) {
    return guarded(error, [=] { read(request); });
}

std::uint32_t create(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    // The weights' bytes are the host's, and valid until destroy.
    return guarded(error, [=] { *out = new HeraldLayer(read(request)); });
}

void destroy(HeraldLayer *layer) { delete layer; }

std::uint32_t info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *) {
    out->scratch_bytes = layer->scratch_bytes(layer->max_tokens); // everything else is zero already
    return HERALD_STATUS_OK;
}

// ---- What they compute. ----

// Has the host's threads call work(item) for all items; returns when all are done.
template <class Work> void run(const HeraldCall &call, std::uint64_t items, const Work &work) {
    HeraldTask task{};
    task.struct_size = sizeof task;
    task.argument = const_cast<void *>(static_cast<const void *>(&work));
    task.run = [](void *argument, std::uint64_t begin, std::uint64_t end, std::uint32_t) {
        for (std::uint64_t item = begin; item < end; item++) (*static_cast<const Work *>(argument))(item);
    };
    call.parallel->run(call.parallel->context, items, &task);
}

float element(const unsigned char *data, std::size_t index) {
    float value; // a copy, since data may not be aligned; compilers turn it into one load
    std::memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
}

float dot(const unsigned char *row, const float *x, std::size_t n) {
    float sums[8] = {}; // eight sums: none waits for another, and they round less than one
    for (std::size_t i = 0; i < n; i++) sums[i % 8] += element(row, i) * x[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

float activate(std::uint32_t activation, float x) {
    if (activation == HERALD_ACTIVATION_SILU) return x / (1.0f + std::exp(-x));
    return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// to[i] = from[i] / sqrt(mean(from^2) + eps) * norm[i]
void rms_norm(const HeraldLayer &layer, const float *from, float *to) {
    double squares = 0.0;
    for (std::size_t i = 0; i < layer.hidden; i++) squares += double{from[i]} * from[i];
    const auto scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(layer.hidden) + layer.norm_eps));
    for (std::size_t i = 0; i < layer.hidden; i++) to[i] = from[i] * scale * element(layer.norm, i);
}

void compute(const HeraldLayer &layer, const HeraldCall &call) {
    const std::size_t hidden = layer.hidden, width = layer.width, n_tokens = call.n_tokens;
    const float *input = call.input != nullptr ? call.input : call.output;
    float *x = static_cast<float *>(call.scratch); // [n_tokens, hidden]: normed, and later the branch
    float *inner = x + n_tokens * hidden;          // [n_tokens, width]

    run(call, n_tokens, [&](std::size_t t) { rms_norm(layer, input + t * hidden, x + t * hidden); });
    // Each row of gate and up is read once for all tokens.
    run(call, width, [&](std::size_t row) {
        const std::size_t at = row * hidden * sizeof(float);
        for (std::size_t t = 0; t < n_tokens; t++)
            inner[t * width + row] = activate(layer.activation, dot(layer.gate + at, x + t * hidden, hidden)) *
                                     dot(layer.up + at, x + t * hidden, hidden);
    });
    // Nobody needs x any more, so the branch goes there.
    run(call, hidden, [&](std::size_t row) {
        for (std::size_t t = 0; t < n_tokens; t++)
            x[t * hidden + row] = dot(layer.down + row * width * sizeof(float), inner + t * width, width);
    });
    for (std::size_t i = 0; i < n_tokens * hidden; i++) call.output[i] += layer.residual_scale * x[i];
}

std::uint32_t forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    return guarded(error, [=] {
        if (call == nullptr || !COVERS(call, HeraldCall, parallel) || call->output == nullptr || call->scratch == nullptr ||
            call->parallel == nullptr || call->n_tokens == 0 || call->n_tokens > layer->max_tokens ||
            call->scratch_bytes < layer->scratch_bytes(call->n_tokens))
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "a call of the mlp lacks output, scratch memory, threads or tokens"};
        compute(*layer, *call);
    });
}

// ---- What the plugin says of itself. ----

std::uint32_t probe(const HeraldHardware *, HeraldProbe *out, HeraldError *) {
    out->score = 50; // scalar code scores 100: this is used only with --backend @NAME@
    std::memcpy(out->variant, "plain", sizeof "plain");
    return HERALD_STATUS_OK;
}

const std::uint32_t KINDS[] = {HERALD_LAYER_MLP};

const HeraldLayerTable LAYERS = [] {
    HeraldLayerTable table{}; // what isn't set is null: not offered
    table.struct_size = sizeof table;
    table.kinds = KINDS;
    table.n_kinds = 1;
    table.supports = supports;
    table.create = create;
    table.info = info;
    table.forward = forward;
    table.destroy = destroy;
    return table;
}();

const HeraldPlugin PLUGIN = [] {
    HeraldPlugin plugin{};
    plugin.struct_size = sizeof plugin;
    plugin.abi_version = HERALD_ABI_VERSION;
    plugin.name = "@NAME@";
    plugin.name_len = sizeof "@NAME@" - 1;
    plugin.version = "0.1.0";
    plugin.version_len = sizeof "0.1.0" - 1;
    plugin.probe = probe;
    plugin.layers = &LAYERS;
    return plugin;
}();

} // namespace

const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
