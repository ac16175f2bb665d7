/*
 * A gated short convolution over float32 weights, with the fault that a macro names; with none of them it is sound. It keeps a
 * recurrent state: what the last taps - 1 tokens brought.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <herald_plugin.h>

#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

enum { NORM, IN, CONV, OUT, PARTS };

struct HeraldLayer {
    size_t hidden, taps;
    uint32_t max_tokens;
    float residual_scale, eps;
    const unsigned char *weights[PARTS]; /* float32 at any address */
};

static uint32_t fail(HeraldError *error, uint32_t status, const char *sentence) {
    if (error != NULL && COVERS(error, HeraldError, message))
        snprintf(error->message, sizeof error->message, "%s", sentence);
    return status;
}

static float element(const unsigned char *from, size_t index) {
    float value;
    memcpy(&value, from + index * sizeof value, sizeof value);
    return value;
}

static uint32_t read_request(const HeraldLayerRequest *request, HeraldLayer *layer, HeraldError *error) {
    if (request == NULL || !COVERS(request, HeraldLayerRequest, max_tokens) || request->desc == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the request is missing or ends early");
    const HeraldLayerDesc *desc = request->desc;
    if (!COVERS(desc, HeraldLayerDesc, kind) || desc->kind != HERALD_LAYER_SHORT_CONV)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only short convolutions are offered");
    if (!COVERS(desc, HeraldLayerDesc, short_conv) || desc->short_conv == NULL || desc->hidden == 0 ||
        !COVERS(desc->short_conv, HeraldShortConv, taps) || desc->short_conv->taps == 0)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the convolution has no size");
    size_t n = desc->hidden, taps = desc->short_conv->taps;
    *layer = (HeraldLayer){.hidden = n, .taps = taps, .max_tokens = request->max_tokens,
                           .residual_scale = desc->residual_scale, .eps = desc->norm_eps};
    const struct { uint32_t role; uint64_t columns, rows; } parts[PARTS] = {
        {HERALD_WEIGHT_NORM, n, 1},
        {HERALD_WEIGHT_IN_PROJECTION, n, 3 * (uint64_t)n},
        {HERALD_WEIGHT_CONV, taps, n},
        {HERALD_WEIGHT_OUT_PROJECTION, n, n},
    };
    for (size_t i = 0; i < request->n_weights; i++) {
        const HeraldTensor *tensor = request->weights[i];
        if (tensor == NULL || !COVERS(tensor, HeraldTensor, data_bytes) || tensor->data == NULL)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a weight is missing or ends early");
        size_t part = 0;
        while (part < PARTS && parts[part].role != tensor->role) part++;
        if (part == PARTS || tensor->dtype != HERALD_DTYPE_F32)
            return fail(error, HERALD_STATUS_UNSUPPORTED, "a weight has a role or a type that isn't offered");
        uint64_t columns = parts[part].columns, rows = parts[part].rows;
        if (tensor->dims[0] != columns || tensor->dims[1] != rows || tensor->dims[2] != 1 || tensor->dims[3] != 1 ||
            tensor->data_bytes != rows * columns * 4 || layer->weights[part] != NULL)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a weight's shape is another, or it comes twice");
        layer->weights[part] = tensor->data;
    }
    for (size_t part = 0; part < PARTS; part++)
        if (layer->weights[part] == NULL) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a weight is missing");
    return HERALD_STATUS_OK;
}

static uint32_t supports(const HeraldLayerRequest *request, HeraldError *error) {
    HeraldLayer layer;
    return read_request(request, &layer, error);
}

static uint32_t create(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    HeraldLayer made;
    uint32_t status = read_request(request, &made, error);
    if (status != HERALD_STATUS_OK) return status;
    HeraldLayer *layer = malloc(sizeof *layer);
    if (layer == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a layer");
    *layer = made;
    *out = layer;
    return HERALD_STATUS_OK;
}

static void destroy(HeraldLayer *layer) { free(layer); }

static uint32_t info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    if (out == NULL || !COVERS(out, HeraldLayerInfo, state_bytes))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldLayerInfo ends early");
    /* Of one token: norm, and the gated part; the input projection's three parts. */
    out->scratch_bytes = 5 * (uint64_t)layer->hidden * sizeof(float);
    out->state_bytes = (uint64_t)(layer->taps - 1) * layer->hidden * sizeof(float);
#ifdef NO_STATE
    out->state_bytes = 0;
#elif defined(SMALL_STATE)
    if (layer->taps > 1) out->state_bytes -= layer->hidden * sizeof(float);
#endif
    return HERALD_STATUS_OK;
}

static float dot(const unsigned char *row, const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)element(row, i) * x[i];
    return (float)sum;
}

/* One token: state is [taps - 1, hidden], the oldest first, and moves on by one. */
static void token(const HeraldLayer *layer, const float *input, float *output, float *state, float *scratch) {
    size_t n = layer->hidden, taps = layer->taps;
    float *normed = scratch, *gated = scratch + n, *bcx = scratch + 2 * n;
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += (double)input[i] * input[i];
    float scale = (float)(1 / sqrt(squares / (double)n + layer->eps));
    for (size_t i = 0; i < n; i++) normed[i] = input[i] * scale * element(layer->weights[NORM], i);
    for (size_t row = 0; row < 3 * n; row++) bcx[row] = dot(layer->weights[IN] + row * n * 4, normed, n);
    for (size_t i = 0; i < n; i++) {
        float newest = bcx[i] * bcx[2 * n + i];
        double sum = (double)newest * element(layer->weights[CONV], i * taps + taps - 1);
        for (size_t tap = 0; tap + 1 < taps; tap++) {
            sum += (double)state[tap * n + i] * element(layer->weights[CONV], i * taps + tap);
            state[tap * n + i] = tap + 2 < taps ? state[(tap + 1) * n + i] : newest;
        }
        gated[i] = bcx[n + i] * (float)sum;
    }
    for (size_t i = 0; i < n; i++) output[i] += layer->residual_scale * dot(layer->weights[OUT] + i * n * 4, gated, n);
}

static uint32_t forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    if (call == NULL || !COVERS(call, HeraldCall, scratch_bytes) || call->output == NULL || call->scratch == NULL ||
        (call->n_sequences > 0 && call->sequences == NULL) || call->n_tokens > layer->max_tokens)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the call lacks output, scratch memory or sequences");
    size_t n = layer->hidden;
    for (size_t i = 0; i < call->n_sequences; i++) {
        const HeraldSequence *sequence = call->sequences[i];
        float *state = sequence->state;
#ifndef NO_STATE
        if (state == NULL && layer->taps > 1)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a sequence has no state");
#endif
#ifdef FORGETS_STATE
        memset(state, 0, (layer->taps - 1) * n * sizeof *state);
#endif
        for (uint64_t at = sequence->first; at < sequence->first + sequence->n_tokens; at++) {
            const float *input = (call->input != NULL ? call->input : call->output) + at * n;
            token(layer, input, call->output + at * n, state, call->scratch);
        }
    }
    return HERALD_STATUS_OK;
}

static const uint32_t KINDS[] = {HERALD_LAYER_SHORT_CONV};

static const HeraldLayerTable LAYERS = {
    .struct_size = sizeof LAYERS, .kinds = KINDS, .n_kinds = 1, .supports = supports, .create = create, .info = info,
    .forward = forward, .destroy = destroy,
};

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware, (void)error;
    out->score = 10;
    return HERALD_STATUS_OK;
}

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof PLUGIN,
    .abi_version = HERALD_ABI_VERSION,
    .name = "conv",
    .name_len = 4,
    .version = "1",
    .version_len = 1,
    .probe = probe,
    .layers = &LAYERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
