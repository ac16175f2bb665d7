/* Making a layer, and saying what it needs. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>

/* Finds the layer's parts in the request and checks every one, for supports and create. Reads no weight data. */
static uint32_t read_request(const HeraldLayerRequest *request, HeraldLayer *layer, Weights *weights, HeraldError *error) {
    if (request == NULL || !COVERS(request, HeraldLayerRequest, page_tokens) || request->desc == NULL ||
        !COVERS(request->desc, HeraldLayerDesc, attention))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the layer request is missing or too short");
    const HeraldLayerDesc *desc = request->desc;
    if (desc->kind != HERALD_LAYER_ATTENTION)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "layer kind %u is not offered", (unsigned)desc->kind);
    const HeraldAttention *a = desc->attention;
    if (a == NULL || !COVERS(a, HeraldAttention, scale) || desc->hidden == 0 || a->n_kv_heads == 0 || a->n_heads == 0 ||
        a->n_heads % a->n_kv_heads != 0 || a->key_dim == 0 || a->value_dim == 0)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "block %u's attention has no sound size", (unsigned)desc->block);
    if (request->max_tokens == 0 || request->max_workers == 0 || request->page_tokens == 0)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the layer request announces no tokens, workers or pages");
    if (a->rope > HERALD_ROPE_HALVES)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "RoPE kind %u is not offered", (unsigned)a->rope);
    if (a->rope != HERALD_ROPE_NONE && a->rope_scaling > HERALD_ROPE_SCALING_LINEAR)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "RoPE scaling %u is not offered", (unsigned)a->rope_scaling);
    if (a->rope != HERALD_ROPE_NONE && (a->rope_dims > a->key_dim || a->rope_dims % 2 != 0))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "RoPE is to turn %u of %u elements", (unsigned)a->rope_dims,
                    (unsigned)a->key_dim);
    /* So that no size below overflows. */
    const uint64_t most = 1 << 24;
    if (desc->hidden > most || (uint64_t)a->n_heads * a->key_dim > most || (uint64_t)a->n_heads * a->value_dim > most ||
        request->page_tokens > 1 << 16 || request->max_workers > 1 << 12)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "block %u's attention is larger than is offered", (unsigned)desc->block);

    *layer = (HeraldLayer){
        .hidden = desc->hidden, .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .group = a->n_heads / a->n_kv_heads,
        .key_dim = a->key_dim, .value_dim = a->value_dim, .window = a->window,
        .pairs = a->rope == HERALD_ROPE_NONE ? 0 : a->rope_dims / 2,
        .max_tokens = request->max_tokens, .max_workers = request->max_workers, .page_tokens = request->page_tokens,
        .block = desc->block, .rope = a->rope, .softcap = a->softcap, .scale = a->scale,
        .residual_scale = desc->residual_scale, .norm_eps = desc->norm_eps};
    size_t queries = layer->n_heads * layer->key_dim, keys = layer->n_kv_heads * layer->key_dim;
    size_t values = layer->n_kv_heads * layer->value_dim, attended = layer->n_heads * layer->value_dim;
    const Part parts[N_WEIGHTS] = {
        [QUERY] = {HERALD_WEIGHT_QUERY, queries, layer->hidden, 0},
        [KEY] = {HERALD_WEIGHT_KEY, keys, layer->hidden, 0},
        [VALUE] = {HERALD_WEIGHT_VALUE, values, layer->hidden, 0},
        [OUTPUT] = {HERALD_WEIGHT_ATTENTION_OUTPUT, layer->hidden, attended, 0},
        [NORM] = {HERALD_WEIGHT_NORM, 1, layer->hidden, 0},
        [POST_NORM] = {HERALD_WEIGHT_POST_NORM, 1, layer->hidden, 0},
        [QUERY_NORM] = {HERALD_WEIGHT_QUERY_NORM, 1, layer->key_dim, queries},
        [KEY_NORM] = {HERALD_WEIGHT_KEY_NORM, 1, layer->key_dim, keys},
        [QUERY_BIAS] = {HERALD_WEIGHT_QUERY_BIAS, 1, queries, 0},
        [KEY_BIAS] = {HERALD_WEIGHT_KEY_BIAS, 1, keys, 0},
        [VALUE_BIAS] = {HERALD_WEIGHT_VALUE_BIAS, 1, values, 0},
        [OUTPUT_BIAS] = {HERALD_WEIGHT_ATTENTION_OUTPUT_BIAS, 1, layer->hidden, 0},
        /* Without RoPE there is nothing that factors could divide. */
        [ROPE_FACTORS] = {layer->pairs > 0 ? HERALD_WEIGHT_ROPE_FACTORS : NO_ROLE, 1, layer->pairs, 0},
    };
    uint32_t status = find_weights(request, parts, weights, error);
    if (status != HERALD_STATUS_OK) return status;
    if (weights->of[NORM] == NULL && weights->of[POST_NORM] == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "block %u's attention has no norm", (unsigned)desc->block);
    return HERALD_STATUS_OK;
}

uint32_t layer_supports(const HeraldLayerRequest *request, HeraldError *error) {
    HeraldLayer layer;
    Weights weights;
    return read_request(request, &layer, &weights, error);
}

void layer_destroy(HeraldLayer *layer) {
    if (layer == NULL) return;
    if (layer->counters != NULL)
        log_line(HERALD_LOG_DEBUG, "block %u: %llu calls, %llu selections, %llu times a page of 4-bit codes",
                 (unsigned)layer->block, atomic_load(&layer->counters->calls), atomic_load(&layer->counters->selections),
                 atomic_load(&layer->counters->q4_pages));
    Vector *vectors[] = {&layer->norm,     &layer->post_norm,  &layer->query_norm, &layer->key_norm,
                         &layer->query_bias, &layer->key_bias, &layer->value_bias, &layer->output_bias};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) free(vectors[i]->elements);
    free(layer->frequencies);
    free(layer->counters);
    free(layer);
}

/* frequency[i] = base^(-2 i / dims) * interpolation / factor[i]. False where there is no memory. */
static int make_frequencies(HeraldLayer *layer, const HeraldAttention *a, const Weights *weights) {
    Vector factors;
    if (!copy_vector(weights->of[ROPE_FACTORS], &factors)) return 0;
    layer->frequencies = calloc(layer->pairs > 0 ? layer->pairs : 1, sizeof *layer->frequencies);
    if (layer->frequencies != NULL) {
        double interpolation = a->rope_scaling == HERALD_ROPE_SCALING_LINEAR ? 1.0 / a->rope_factor : 1.0;
        for (size_t i = 0; i < layer->pairs; i++)
            layer->frequencies[i] = pow(a->rope_base, -2.0 * (double)i / a->rope_dims) * interpolation /
                                    (factors.elements != NULL ? factors.elements[i] : 1.0);
    }
    free(factors.elements);
    return layer->frequencies != NULL;
}

uint32_t layer_create(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    HeraldLayer read;
    Weights weights;
    uint32_t status = read_request(request, &read, &weights, error);
    if (status != HERALD_STATUS_OK) return status;
    HeraldLayer *layer = malloc(sizeof *layer);
    if (layer == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a layer");
    *layer = read;
    /* Matrices stay where they are, in the host's memory, until layer_destroy; the short vectors are copied. */
    layer->query = as_matrix(weights.of[QUERY]);
    layer->key = as_matrix(weights.of[KEY]);
    layer->value = as_matrix(weights.of[VALUE]);
    layer->output = as_matrix(weights.of[OUTPUT]);
    layer->counters = calloc(1, sizeof *layer->counters);
    if (layer->counters == NULL || !copy_vector(weights.of[NORM], &layer->norm) ||
        !copy_vector(weights.of[POST_NORM], &layer->post_norm) || !copy_vector(weights.of[QUERY_NORM], &layer->query_norm) ||
        !copy_vector(weights.of[KEY_NORM], &layer->key_norm) || !copy_vector(weights.of[QUERY_BIAS], &layer->query_bias) ||
        !copy_vector(weights.of[KEY_BIAS], &layer->key_bias) || !copy_vector(weights.of[VALUE_BIAS], &layer->value_bias) ||
        !copy_vector(weights.of[OUTPUT_BIAS], &layer->output_bias) ||
        !make_frequencies(layer, request->desc->attention, &weights)) {
        layer_destroy(layer);
        return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a layer");
    }
    *out = layer;
    return HERALD_STATUS_OK;
}

/* Takes the next n floats; with base null this only counts. */
static float *take(float *base, size_t *used, size_t n) {
    float *taken = base != NULL ? base + *used : NULL;
    *used += (n + 15) / 16 * 16;
    return taken;
}

Attending attending(const HeraldLayer *layer, float *base, size_t *used) {
    size_t rows = BLOCK * layer->group;
    Attending a;
    a.keys = take(base, used, layer->page_tokens * layer->key_dim);
    a.values = take(base, used, layer->page_tokens * layer->value_dim);
    a.scores = take(base, used, layer->page_tokens);
    a.queries = take(base, used, rows * layer->key_dim);
    a.rotation = take(base, used, 2 * layer->pairs);
    a.most = take(base, used, rows);
    a.sum = take(base, used, rows);
    return a;
}

size_t worker_floats(const HeraldLayer *layer) {
    size_t attend = 0, row = layer->hidden > layer->output.columns ? layer->hidden : layer->output.columns;
    attending(layer, NULL, &attend);
    row = (row + 15) / 16 * 16;
    return attend > row ? attend : row;
}

Buffers buffers(const HeraldLayer *layer, float *base, size_t *used, size_t n_tokens) {
    Buffers b;
    b.x = take(base, used, n_tokens * layer->hidden);
    b.q = take(base, used, n_tokens * layer->query.rows);
    b.k = take(base, used, n_tokens * layer->key.rows);
    b.v = take(base, used, n_tokens * layer->value.rows);
    b.attended = take(base, used, n_tokens * layer->output.columns);
    b.means = take(base, used, MAX_MEANS * layer->query.rows);
    b.workers = take(base, used, layer->max_workers * worker_floats(layer));
    return b;
}

uint32_t layer_info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    size_t used = 0;
    buffers(layer, NULL, &used, layer->max_tokens);
    if (!COVERS(out, HeraldLayerInfo, weight_bytes))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldLayerInfo is too short");
    out->scratch_bytes = used * sizeof(float);
    out->state_bytes = 0;
    out->weight_bytes = 0;
    if (COVERS(out, HeraldLayerInfo, summary_bytes)) {
        out->page_formats = 1u << HERALD_PAGE_Q4;
        out->score_width = (uint32_t)(MAX_MEANS * layer->n_heads);
        out->summary_bytes = summary_floats(layer) * sizeof(float); /* a multiple of 8: two floats for each channel */
    }
    return HERALD_STATUS_OK;
}
