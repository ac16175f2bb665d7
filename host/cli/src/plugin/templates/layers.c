/*
 * @NAME@: a HERALD plugin that offers one kind of engine layer, the gated MLP over float32 weights:
 *
 *     output += residual_scale * down(act(gate(x)) * up(x)),  x = norm(input)
 *
 * Everything else of a model is left to the next plugin. To grow it: offer another element type in `find`, another activation in
 * `activate`, or another kind of layer in KINDS and `read_request`. HERALD's docs/PLUGINS.md has the rules.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "herald_plugin.h"

/* Whether the host's struct is long enough to have the field: an older host's may end before it. */
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

/* What HeraldLayer is, is the plugin's own affair. Weights are floats in the model file, at any alignment. */
struct HeraldLayer {
    size_t hidden, width, max_tokens;
    uint32_t activation;
    float residual_scale, norm_eps;
    const unsigned char *norm, *gate, *up, *down; /* [hidden], [width, hidden], [width, hidden], [hidden, width] */
};

/* Every failure is a status and one sentence: what, where, what was expected. */
static uint32_t fail(HeraldError *error, uint32_t status, const char *format, ...) {
    if (error != NULL && COVERS(error, HeraldError, message)) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

/* ---- Which layers are offered. ---- */

/* Puts a weight into the place for its role. */
static uint32_t find(const HeraldTensor *weight, HeraldLayer *layer, HeraldError *error) {
    const unsigned char **place;
    size_t rows = 1, columns = layer->hidden;
    switch (weight->role) {
    case HERALD_WEIGHT_NORM: place = &layer->norm; break;
    case HERALD_WEIGHT_GATE: place = &layer->gate; rows = layer->width; break;
    case HERALD_WEIGHT_UP: place = &layer->up; rows = layer->width; break;
    case HERALD_WEIGHT_DOWN: place = &layer->down; rows = layer->hidden; columns = layer->width; break;
    default: /* to ignore a weight would be to compute something else */
        return fail(error, HERALD_STATUS_UNSUPPORTED, "a weight has role %u, which is not offered", (unsigned)weight->role);
    }
    if (weight->dtype != HERALD_DTYPE_F32)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "a weight has dtype %u, where F32 is offered", (unsigned)weight->dtype);
    if (weight->dims[0] != columns || weight->dims[1] != rows || weight->dims[2] != 1 || weight->dims[3] != 1 ||
        weight->data == NULL || weight->data_bytes / sizeof(float) != (uint64_t)rows * columns)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the weight in role %u is [%llu, %llu], where [%zu, %zu] was expected",
                    (unsigned)weight->role, (unsigned long long)weight->dims[1], (unsigned long long)weight->dims[0], rows, columns);
    if (*place != NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "two weights have role %u", (unsigned)weight->role);
    *place = weight->data;
    return HERALD_STATUS_OK;
}

/* Reads and checks a request, for supports and create. Reads no weight data. */
static uint32_t read_request(const HeraldLayerRequest *request, HeraldLayer *layer, HeraldError *error) {
    if (request == NULL || !COVERS(request, HeraldLayerRequest, max_tokens) || request->desc == NULL ||
        !COVERS(request->desc, HeraldLayerDesc, mlp))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the layer request is missing or too short");
    const HeraldLayerDesc *desc = request->desc;
    if (desc->kind != HERALD_LAYER_MLP)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "layer kind %u is not offered", (unsigned)desc->kind);
    const HeraldMlp *mlp = desc->mlp;
    if (mlp == NULL || !COVERS(mlp, HeraldMlp, gated) || desc->hidden == 0 || mlp->width == 0 || request->max_tokens == 0)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "block %u's mlp has no size", (unsigned)desc->block);
    if (mlp->gated != 1 || (mlp->activation != HERALD_ACTIVATION_SILU && mlp->activation != HERALD_ACTIVATION_GELU_TANH))
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only a gated mlp with SiLU or GELU is offered");
    if (desc->hidden > 1 << 24 || mlp->width > 1 << 24) /* so that no size overflows */
        return fail(error, HERALD_STATUS_UNSUPPORTED, "an mlp of more than 2^24 elements is not offered");
    *layer = (HeraldLayer){.hidden = desc->hidden, .width = mlp->width, .max_tokens = request->max_tokens,
                           .activation = mlp->activation, .residual_scale = desc->residual_scale, .norm_eps = desc->norm_eps};
    for (size_t i = 0; i < request->n_weights; i++) {
        const HeraldTensor *weight = request->weights[i];
        if (weight == NULL || !COVERS(weight, HeraldTensor, data_bytes))
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "weight %zu is missing or too short", i);
        uint32_t status = find(weight, layer, error);
        if (status != HERALD_STATUS_OK) return status;
    }
    if (layer->norm == NULL || layer->gate == NULL || layer->up == NULL || layer->down == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "block %u's mlp lacks a weight", (unsigned)desc->block);
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
    *layer = made; /* the weights' bytes are the host's, and valid until destroy */
    *out = layer;
    return HERALD_STATUS_OK;
}

static void destroy(HeraldLayer *layer) { free(layer); }

/* [n_tokens, hidden] and [n_tokens, width]. */
static uint64_t scratch_bytes(const HeraldLayer *layer, size_t n_tokens) {
    return (uint64_t)n_tokens * (layer->hidden + layer->width) * sizeof(float);
}

static uint32_t info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    (void)error;
    out->scratch_bytes = scratch_bytes(layer, layer->max_tokens); /* everything else is zero already */
    return HERALD_STATUS_OK;
}

/* ---- What they compute. ---- */

/* What the tasks of one call share. */
struct forward {
    const HeraldLayer *layer;
    const HeraldCall *call;
    const float *input;
    float *x;     /* [n_tokens, hidden]: normed, and later the branch */
    float *inner; /* [n_tokens, width] */
};

static float element(const unsigned char *data, size_t index) {
    float value; /* a copy, since data may not be aligned; compilers turn it into one load */
    memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
}

static float dot(const unsigned char *row, const float *x, size_t n) {
    float sums[8] = {0}; /* eight sums: none waits for another, and they round less than one */
    for (size_t i = 0; i < n; i++) sums[i % 8] += element(row, i) * x[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

static float activate(uint32_t activation, float x) {
    if (activation == HERALD_ACTIVATION_SILU) return x / (1.0f + expf(-x));
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

/* Items are tokens. x[i] = input[i] / sqrt(mean(input^2) + eps) * norm[i] */
static void norm_tokens(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const struct forward *f = argument;
    size_t n = f->layer->hidden;
    (void)worker; /* the index for memory of a worker's own */
    for (uint64_t t = begin; t < end; t++) {
        const float *input = f->input + t * n;
        double squares = 0.0;
        for (size_t i = 0; i < n; i++) squares += (double)input[i] * input[i];
        float scale = (float)(1.0 / sqrt(squares / (double)n + f->layer->norm_eps));
        for (size_t i = 0; i < n; i++) f->x[t * n + i] = input[i] * scale * element(f->layer->norm, i);
    }
}

/* Items are rows of gate and up: each is read once for all tokens. */
static void gate_and_up(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const struct forward *f = argument;
    const HeraldLayer *layer = f->layer;
    (void)worker;
    for (uint64_t row = begin; row < end; row++)
        for (size_t t = 0; t < f->call->n_tokens; t++) {
            const float *x = f->x + t * layer->hidden;
            size_t at = row * layer->hidden * sizeof(float);
            f->inner[t * layer->width + row] = activate(layer->activation, dot(layer->gate + at, x, layer->hidden)) *
                                               dot(layer->up + at, x, layer->hidden);
        }
}

/* Items are rows of down. Nobody needs x any more, so the branch goes there. */
static void down(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const struct forward *f = argument;
    const HeraldLayer *layer = f->layer;
    (void)worker;
    for (uint64_t row = begin; row < end; row++)
        for (size_t t = 0; t < f->call->n_tokens; t++)
            f->x[t * layer->hidden + row] =
                dot(layer->down + row * layer->width * sizeof(float), f->inner + t * layer->width, layer->width);
}

static void run(struct forward *f, uint64_t items, void (*work)(void *, uint64_t, uint64_t, uint32_t)) {
    HeraldTask task = {.struct_size = sizeof task, .argument = f, .run = work};
    f->call->parallel->run(f->call->parallel->context, items, &task); /* returns when all items are done */
}

static uint32_t forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    if (call == NULL || !COVERS(call, HeraldCall, parallel) || call->output == NULL || call->scratch == NULL ||
        call->parallel == NULL || call->n_tokens == 0 || call->n_tokens > layer->max_tokens ||
        call->scratch_bytes < scratch_bytes(layer, call->n_tokens))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a call of the mlp lacks output, scratch memory, threads or tokens");
    struct forward f = {layer, call, call->input != NULL ? call->input : call->output, call->scratch,
                        (float *)call->scratch + call->n_tokens * layer->hidden};
    run(&f, call->n_tokens, norm_tokens);
    run(&f, layer->width, gate_and_up);
    run(&f, layer->hidden, down);
    for (size_t i = 0; i < call->n_tokens * layer->hidden; i++) call->output[i] += layer->residual_scale * f.x[i];
    return HERALD_STATUS_OK;
}

/* ---- What the plugin says of itself. ---- */

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware; /* look at its features here, where the plugin needs some */
    (void)error;
    out->score = 50; /* scalar code scores 100: this is used only with --backend @NAME@ */
    memcpy(out->variant, "plain", sizeof "plain");
    return HERALD_STATUS_OK;
}

static const uint32_t KINDS[] = {HERALD_LAYER_MLP};

static const HeraldLayerTable LAYERS = {
    .struct_size = sizeof(HeraldLayerTable),
    .kinds = KINDS,
    .n_kinds = 1,
    .supports = supports,
    .create = create,
    .info = info,
    .forward = forward,
    .destroy = destroy,
};

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof(HeraldPlugin),
    .abi_version = HERALD_ABI_VERSION,
    .name = "@NAME@",
    .name_len = sizeof "@NAME@" - 1,
    .version = "0.1.0",
    .version_len = sizeof "0.1.0" - 1,
    .probe = probe,
    .layers = &LAYERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
