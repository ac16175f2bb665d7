// A sound plugin in C++: the embedding over float32 and float16 weights.
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include <herald_plugin.h>

// A layer, as its handle points at it.
struct HeraldLayer {
    std::size_t hidden = 0, vocabulary = 0;
    float scale = 1;
    std::uint32_t dtype = HERALD_DTYPE_F32, max_tokens = 0;
    const unsigned char *matrix = nullptr;
};

namespace {

// A failure with its status.
struct Failure : std::runtime_error {
    std::uint32_t status;
    Failure(std::uint32_t status, const std::string &sentence) : std::runtime_error(sentence), status(status) {}
};

template <typename Struct, typename Field>
bool covers(const Struct *pointer, Field Struct::*field) {
    auto offset = reinterpret_cast<const char *>(&(pointer->*field)) - reinterpret_cast<const char *>(pointer);
    return pointer->struct_size >= static_cast<std::size_t>(offset) + sizeof(Field);
}

// Runs a body; no exception crosses.
template <typename Body>
std::uint32_t guarded(HeraldError *error, Body body) noexcept {
    std::uint32_t status = HERALD_STATUS_INTERNAL;
    const char *sentence = "something was thrown";
    std::string kept;
    try {
        body();
        return HERALD_STATUS_OK;
    } catch (const Failure &failure) {
        status = failure.status;
        try { kept = failure.what(); sentence = kept.c_str(); } catch (...) {}
    } catch (const std::bad_alloc &) {
        status = HERALD_STATUS_OUT_OF_MEMORY;
        sentence = "there is no memory";
    } catch (const std::exception &) {
    }
    if (error != nullptr && covers(error, &HeraldError::message)) {
        std::strncpy(error->message, sentence, sizeof error->message - 1);
        error->message[sizeof error->message - 1] = 0;
    }
    return status;
}

float of_half(std::uint16_t bits) {
    std::uint32_t sign = std::uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value;
    if (exponent == 0) {
        value = static_cast<float>(fraction) / 16777216.0F;
        return sign != 0 ? -value : value;
    }
    std::uint32_t whole = sign | (exponent == 31 ? 0xffU : exponent + 112U) << 23 | fraction << 13;
    std::memcpy(&value, &whole, sizeof value);
    return value;
}

HeraldLayer read(const HeraldLayerRequest *request) {
    if (request == nullptr || !covers(request, &HeraldLayerRequest::max_tokens) || request->desc == nullptr)
        throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the request is missing or ends early");
    const HeraldLayerDesc &desc = *request->desc;
    if (!covers(&desc, &HeraldLayerDesc::embedding))
        throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the description ends early");
    if (desc.kind != HERALD_LAYER_EMBEDDING)
        throw Failure(HERALD_STATUS_UNSUPPORTED, "layer kind " + std::to_string(desc.kind) + " is not offered");
    if (desc.embedding == nullptr || !covers(desc.embedding, &HeraldEmbedding::scale) || desc.hidden == 0 ||
        desc.embedding->vocabulary == 0)
        throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the embedding has no size");
    HeraldLayer layer;
    layer.hidden = desc.hidden;
    layer.vocabulary = desc.embedding->vocabulary;
    layer.scale = desc.embedding->scale;
    layer.max_tokens = request->max_tokens;
    for (std::size_t i = 0; i < request->n_weights; i++) {
        const HeraldTensor *tensor = request->weights[i];
        if (tensor == nullptr || !covers(tensor, &HeraldTensor::data_bytes) || tensor->data == nullptr)
            throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "a weight is missing or ends early");
        bool is_half = tensor->dtype == HERALD_DTYPE_F16;
        if (tensor->role != HERALD_WEIGHT_EMBEDDING || (!is_half && tensor->dtype != HERALD_DTYPE_F32))
            throw Failure(HERALD_STATUS_UNSUPPORTED, "only an embedding of F32 or F16 is offered");
        std::uint64_t bytes = std::uint64_t(layer.vocabulary) * layer.hidden * (is_half ? 2 : 4);
        if (layer.matrix != nullptr || tensor->dims[0] != layer.hidden || tensor->dims[1] != layer.vocabulary ||
            tensor->dims[2] != 1 || tensor->dims[3] != 1 || tensor->data_bytes != bytes)
            throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the weight's shape contradicts the description");
        layer.matrix = static_cast<const unsigned char *>(tensor->data);
        layer.dtype = tensor->dtype;
    }
    if (layer.matrix == nullptr) throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the embedding has no weight");
    return layer;
}

std::uint32_t supports(const HeraldLayerRequest *request, HeraldError *error) {
    return guarded(error, [&] { read(request); });
}

std::uint32_t create(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    return guarded(error, [&] { *out = std::make_unique<HeraldLayer>(read(request)).release(); });
}

void destroy(HeraldLayer *layer) { delete layer; }

std::uint32_t info(const HeraldLayer *, HeraldLayerInfo *, HeraldError *) {
    return HERALD_STATUS_OK; // it needs nothing: zeros, as the host set them
}

std::uint32_t forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    return guarded(error, [&] {
        if (call == nullptr || !covers(call, &HeraldCall::output) || call->tokens == nullptr || call->output == nullptr)
            throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the call lacks tokens or output");
        if (call->n_tokens == 0 || call->n_tokens > layer->max_tokens)
            throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "the call has too few or too many tokens");
        for (std::size_t token = 0; token < call->n_tokens; token++) {
            std::size_t row = call->tokens[token];
            if (row >= layer->vocabulary)
                throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "a token is outside the vocabulary");
            float *to = call->output + token * layer->hidden;
            for (std::size_t i = 0; i < layer->hidden; i++) {
                std::size_t at = row * layer->hidden + i;
                float value;
                std::uint16_t half;
                if (layer->dtype == HERALD_DTYPE_F32) {
                    std::memcpy(&value, layer->matrix + 4 * at, sizeof value);
                } else {
                    std::memcpy(&half, layer->matrix + 2 * at, sizeof half);
                    value = of_half(half);
                }
                to[i] = value * layer->scale;
            }
        }
    });
}

std::uint32_t probe(const HeraldHardware *, HeraldProbe *out, HeraldError *error) {
    return guarded(error, [&] {
        if (out == nullptr || !covers(out, &HeraldProbe::variant))
            throw Failure(HERALD_STATUS_INVALID_ARGUMENT, "HeraldProbe ends early");
        out->score = 10;
        std::memcpy(out->variant, "c++", 4);
    });
}

const std::uint32_t KINDS[] = {HERALD_LAYER_EMBEDDING};

HeraldLayerTable layers() {
    HeraldLayerTable table = {};
    table.struct_size = sizeof table;
    table.kinds = KINDS;
    table.n_kinds = 1;
    table.supports = supports;
    table.create = create;
    table.info = info;
    table.forward = forward;
    table.destroy = destroy;
    return table;
}

const HeraldLayerTable LAYERS = layers();

HeraldPlugin plugin() {
    HeraldPlugin table = {};
    table.struct_size = sizeof table;
    table.abi_version = HERALD_ABI_VERSION;
    table.name = "embedding";
    table.name_len = 9;
    table.version = "1";
    table.version_len = 1;
    table.probe = probe;
    table.layers = &LAYERS;
    return table;
}

} // namespace

const HeraldPlugin *herald_plugin_v1(void) {
    static const HeraldPlugin PLUGIN = plugin();
    return &PLUGIN;
}
