/*
 * A HERALD plugin in plain C, to copy and change. It offers one kind of engine layer (the gated MLP over float32
 * weights) and a tokenizer (greedy longest match), and leaves everything else to the next plugin.
 *
 * It needs only herald_plugin.h. docs/PLUGINS.md walks through it.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <herald_plugin.h>

/* Whether the host's struct is long enough to have the field: an older host's may end before it. */
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

/* Returns the status, with one sentence in the caller's buffer, cut between characters if it is too long. */
static uint32_t fail(HeraldError *error, uint32_t status, const char *format, ...) {
    if (error != NULL && COVERS(error, HeraldError, message)) {
        va_list arguments;
        va_start(arguments, format);
        int length = vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        if (length < 0) {
            error->message[0] = 0;
        } else if ((size_t)length >= sizeof error->message) {
            size_t end = sizeof error->message - 1;
            while (end > 0 && ((unsigned char)error->message[end - 1] & 0xC0) == 0x80) end--;
            if (end > 0 && ((unsigned char)error->message[end - 1] & 0x80) != 0) end--;
            error->message[end] = 0;
        }
    }
    return status;
}

/* ---- The engine layer: output += residual_scale * post_norm(down(act(gate(x)) * up(x))), x = norm(input). ---- */

/* A weight in the model file: rows of float32, one after another, at any alignment. */
typedef struct Matrix {
    const unsigned char *data;
    size_t rows, columns;
} Matrix;

struct HeraldLayer {
    size_t hidden, width;
    uint32_t activation, max_tokens, block;
    float residual_scale, norm_eps;
    Matrix norm, gate, up, down;
    Matrix post_norm; /* data is null if the layer has none */
};

static float element(const unsigned char *data, size_t index) {
    float value; /* a copy, since data may not be aligned; compilers turn it into one load */
    memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
}

static float dot(const unsigned char *row, const float *x, size_t n) {
    float sums[8] = {0}; /* eight independent sums: none waits for another, and they round less than one */
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t lane = 0; lane < 8; lane++) sums[lane] += element(row, i + lane) * x[i + lane];
    for (; i < n; i++) sums[i % 8] += element(row, i) * x[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

/* RMS norm (arXiv 1910.07467): to[i] = from[i] / sqrt(mean(from^2) + eps) * weight[i]. to may be from. */
static void rms_norm(const Matrix *weight, const float *from, float *to, size_t n, float eps) {
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) squares += (double)from[i] * from[i];
    float scale = (float)(1.0 / sqrt(squares / (double)n + eps));
    for (size_t i = 0; i < n; i++) to[i] = from[i] * scale * element(weight->data, i);
}

static float activate(uint32_t activation, float x) {
    if (activation == HERALD_ACTIVATION_SILU) return x / (1.0f + expf(-x));
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

/* Finds the layer's parts in the request and checks every one, for supports and create. */
static uint32_t read_request(const HeraldLayerRequest *request, HeraldLayer *layer, HeraldError *error) {
    if (request == NULL || !COVERS(request, HeraldLayerRequest, max_tokens) || request->desc == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the layer request is missing or too short");
    const HeraldLayerDesc *desc = request->desc;
    if (!COVERS(desc, HeraldLayerDesc, mlp))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the layer's description is too short");
    if (desc->kind != HERALD_LAYER_MLP)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "layer kind %u is not offered", (unsigned)desc->kind);
    const HeraldMlp *mlp = desc->mlp;
    if (mlp == NULL || !COVERS(mlp, HeraldMlp, gated) || mlp->width == 0 || desc->hidden == 0)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "block %u's mlp has no size", (unsigned)desc->block);
    if (mlp->gated != 1)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only a gated mlp is offered");
    if (mlp->activation != HERALD_ACTIVATION_SILU && mlp->activation != HERALD_ACTIVATION_GELU_TANH)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "activation %u is not offered", (unsigned)mlp->activation);
    if (request->max_tokens > UINT64_MAX / sizeof(float) / ((uint64_t)desc->hidden + mlp->width))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "%u tokens of block %u's mlp need more than 64 bits",
                    (unsigned)request->max_tokens, (unsigned)desc->block);
    memset(layer, 0, sizeof *layer);
    layer->hidden = desc->hidden;
    layer->width = mlp->width;
    layer->activation = mlp->activation;
    layer->max_tokens = request->max_tokens;
    layer->block = desc->block;
    layer->residual_scale = desc->residual_scale;
    layer->norm_eps = desc->norm_eps;
    /* A role that isn't in this list is UNSUPPORTED: ignoring a weight would compute something else. */
    const struct { uint32_t role; Matrix *matrix; size_t rows, columns; } parts[] = {
        {HERALD_WEIGHT_NORM, &layer->norm, 1, layer->hidden},
        {HERALD_WEIGHT_GATE, &layer->gate, layer->width, layer->hidden},
        {HERALD_WEIGHT_UP, &layer->up, layer->width, layer->hidden},
        {HERALD_WEIGHT_DOWN, &layer->down, layer->hidden, layer->width},
        {HERALD_WEIGHT_POST_NORM, &layer->post_norm, 1, layer->hidden},
    };
    const size_t n_parts = sizeof parts / sizeof parts[0];
    for (size_t i = 0; i < request->n_weights; i++) {
        const HeraldTensor *tensor = request->weights[i];
        if (tensor == NULL || !COVERS(tensor, HeraldTensor, data_bytes))
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "weight %zu is missing or too short", i);
        int has_name = COVERS(tensor, HeraldTensor, name_len) && tensor->name != NULL;
        const char *name = has_name ? tensor->name : "?";
        int length = has_name ? (int)(tensor->name_len < 128 ? tensor->name_len : 128) : 1;
        size_t part = 0;
        while (part < n_parts && parts[part].role != tensor->role) part++;
        if (part == n_parts)
            return fail(error, HERALD_STATUS_UNSUPPORTED, "weight %.*s has role %u, which this plugin doesn't know",
                        length, name, (unsigned)tensor->role);
        if (tensor->dtype != HERALD_DTYPE_F32)
            return fail(error, HERALD_STATUS_UNSUPPORTED, "weight %.*s has dtype %u, where only F32 (0) is offered",
                        length, name, (unsigned)tensor->dtype);
        size_t rows = parts[part].rows, columns = parts[part].columns;
        /* Both sizes are below 2^32, so their product fits in 64 bits; it is compared without multiplying it by 4. */
        if (tensor->dims[0] != columns || tensor->dims[1] != rows || tensor->dims[2] != 1 || tensor->dims[3] != 1 ||
            tensor->data == NULL || tensor->data_bytes / 4 != (uint64_t)rows * columns || tensor->data_bytes % 4 != 0)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT,
                        "weight %.*s is [%llu, %llu] in %llu bytes, where [%zu, %zu] of F32 was expected", length, name,
                        (unsigned long long)tensor->dims[1], (unsigned long long)tensor->dims[0],
                        (unsigned long long)tensor->data_bytes, rows, columns);
        if (parts[part].matrix->data != NULL)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "weight %.*s has a role that is taken", length, name);
        *parts[part].matrix = (Matrix){tensor->data, rows, columns};
    }
    if (!layer->norm.data || !layer->gate.data || !layer->up.data || !layer->down.data)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT,
                    "block %u's mlp needs the weights norm, gate, up and down", (unsigned)desc->block);
    return HERALD_STATUS_OK;
}

static uint32_t layer_supports(const HeraldLayerRequest *request, HeraldError *error) {
    HeraldLayer layer;
    return read_request(request, &layer, error);
}

static uint32_t layer_create(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    HeraldLayer made;
    uint32_t status = read_request(request, &made, error);
    if (status != HERALD_STATUS_OK) return status;
    HeraldLayer *layer = malloc(sizeof *layer);
    if (layer == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a layer");
    *layer = made; /* the weights' bytes belong to the host, and are valid until layer_destroy */
    *out = layer;
    return HERALD_STATUS_OK;
}

static void layer_destroy(HeraldLayer *layer) { free(layer); }

/* Two arrays of floats: [n_tokens, hidden] and [n_tokens, width]. */
static uint64_t scratch_bytes(const HeraldLayer *layer, size_t n_tokens) {
    return (uint64_t)n_tokens * (layer->hidden + layer->width) * sizeof(float);
}

static uint32_t layer_info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    if (!COVERS(out, HeraldLayerInfo, scratch_bytes))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldLayerInfo is too short");
    out->scratch_bytes = scratch_bytes(layer, layer->max_tokens);
    if (COVERS(out, HeraldLayerInfo, state_bytes)) out->state_bytes = 0;
    if (COVERS(out, HeraldLayerInfo, weight_bytes)) out->weight_bytes = 0;
    return HERALD_STATUS_OK;
}

/* Shared by the tasks of one forward call; it is on the caller's stack. */
typedef struct Forward {
    const HeraldLayer *layer;
    size_t n_tokens;
    const float *input;
    float *output, *normed, *inner; /* normed: [n_tokens, hidden], later the branch; inner: [n_tokens, width] */
} Forward;

/* Items are tokens. */
static void norm_tokens(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const Forward *f = argument;
    size_t n = f->layer->hidden;
    (void)worker;
    for (uint64_t t = begin; t < end; t++)
        rms_norm(&f->layer->norm, f->input + t * n, f->normed + t * n, n, f->layer->norm_eps);
}

/* Items are rows of gate and up: each row is read once for all tokens. */
static void gate_and_up(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const Forward *f = argument;
    size_t n = f->layer->hidden, width = f->layer->width;
    (void)worker;
    for (uint64_t row = begin; row < end; row++) {
        const unsigned char *gate = f->layer->gate.data + row * n * sizeof(float);
        const unsigned char *up = f->layer->up.data + row * n * sizeof(float);
        for (size_t t = 0; t < f->n_tokens; t++) {
            const float *x = f->normed + t * n;
            f->inner[t * width + row] = activate(f->layer->activation, dot(gate, x, n)) * dot(up, x, n);
        }
    }
}

/* Items are rows of down. The normed activations are no longer needed, so the branch reuses their memory. */
static void project_down(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const Forward *f = argument;
    size_t n = f->layer->hidden, width = f->layer->width;
    (void)worker;
    for (uint64_t row = begin; row < end; row++)
        for (size_t t = 0; t < f->n_tokens; t++)
            f->normed[t * n + row] =
                dot(f->layer->down.data + row * width * sizeof(float), f->inner + t * width, width);
}

/* Items are tokens. */
static void add_branch(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const Forward *f = argument;
    size_t n = f->layer->hidden;
    (void)worker;
    for (uint64_t t = begin; t < end; t++) {
        float *branch = f->normed + t * n;
        if (f->layer->post_norm.data != NULL)
            rms_norm(&f->layer->post_norm, branch, branch, n, f->layer->norm_eps);
        for (size_t i = 0; i < n; i++) f->output[t * n + i] += f->layer->residual_scale * branch[i];
    }
}

static uint32_t layer_forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    if (call == NULL || !COVERS(call, HeraldCall, parallel) || call->output == NULL || call->scratch == NULL ||
        call->parallel == NULL || !COVERS(call->parallel, HeraldParallel, run) || call->parallel->run == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the call lacks output, scratch memory or threads");
    if (call->n_tokens == 0 || call->n_tokens > layer->max_tokens ||
        call->scratch_bytes < scratch_bytes(layer, call->n_tokens))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT,
                    "block %u's mlp got %zu tokens and %llu bytes of scratch memory, where 1 to %u tokens and %llu bytes "
                    "were expected",
                    (unsigned)layer->block, call->n_tokens, (unsigned long long)call->scratch_bytes,
                    (unsigned)layer->max_tokens, (unsigned long long)scratch_bytes(layer, layer->max_tokens));
    Forward f = {layer, call->n_tokens, call->input != NULL ? call->input : call->output, call->output,
                 call->scratch, (float *)call->scratch + call->n_tokens * layer->hidden};
    const HeraldParallel *parallel = call->parallel;
    /* By name, so that fields of a later header are 0. */
    HeraldTask norm = {.struct_size = sizeof norm, .argument = &f, .run = norm_tokens};
    HeraldTask inner = {.struct_size = sizeof inner, .argument = &f, .run = gate_and_up};
    HeraldTask down = {.struct_size = sizeof down, .argument = &f, .run = project_down};
    HeraldTask add = {.struct_size = sizeof add, .argument = &f, .run = add_branch};
    parallel->run(parallel->context, call->n_tokens, &norm); /* each call returns when its work is done */
    parallel->run(parallel->context, layer->width, &inner);
    parallel->run(parallel->context, layer->hidden, &down);
    parallel->run(parallel->context, call->n_tokens, &add);
    return HERALD_STATUS_OK;
}

static const uint32_t LAYER_KINDS[] = {HERALD_LAYER_MLP};

static const HeraldLayerTable LAYERS = {
    .struct_size = sizeof(HeraldLayerTable),
    .kinds = LAYER_KINDS,
    .n_kinds = 1,
    .supports = layer_supports,
    .create = layer_create,
    .info = layer_info,
    .forward = layer_forward,
    .destroy = layer_destroy,
};

/* ---- The tokenizer: at each position, the longest token of the vocabulary that matches the text. ---- */

typedef struct Token {
    const uint8_t *bytes;
    size_t length;
    uint32_t id, type;
} Token;

struct HeraldTokenizer {
    uint8_t *bytes;  /* a copy of all tokens' bytes */
    Token *tokens;   /* [n_tokens], by id */
    Token *matched;  /* [n_matched], those that text can produce, sorted by bytes */
    size_t n_tokens, n_matched;
    uint32_t unknown;
};

static void tokenizer_destroy(HeraldTokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    free(tokenizer->bytes);
    free(tokenizer->tokens);
    free(tokenizer->matched);
    free(tokenizer);
}

/* By bytes; among equals special tokens last (by their type, which no other token has), then by id. */
static int compare(const void *left, const void *right) {
    const Token *a = left, *b = right;
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->bytes, b->bytes, shorter);
    if (order != 0) return order;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    int a_special = a->type == HERALD_TOKEN_CONTROL, b_special = b->type == HERALD_TOKEN_CONTROL;
    if (a_special != b_special) return a_special - b_special;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Fills a new tokenizer, which the caller destroys if this fails. */
static uint32_t fill_tokenizer(HeraldTokenizer *made, const HeraldVocabulary *v, HeraldError *error) {
    size_t n = v->n_tokens;
    size_t n_bytes = (size_t)v->token_offsets[n];
    for (size_t i = 0; i < n; i++)
        if (v->token_offsets[i] > v->token_offsets[i + 1])
            return fail(error, HERALD_STATUS_CORRUPT, "token %zu ends before it begins", i);
    made->bytes = malloc(n_bytes > 0 ? n_bytes : 1);
    made->tokens = calloc(n, sizeof *made->tokens);
    made->matched = calloc(n, sizeof *made->matched);
    if (made->bytes == NULL || made->tokens == NULL || made->matched == NULL)
        return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for %zu tokens", n);
    if (n_bytes > 0) memcpy(made->bytes, v->token_bytes, n_bytes);
    made->n_tokens = n;
    made->unknown = v->unknown;
    for (size_t i = 0; i < n; i++) {
        Token *token = &made->tokens[i];
        uint8_t *bytes = made->bytes + v->token_offsets[i];
        token->bytes = bytes;
        token->length = (size_t)(v->token_offsets[i + 1] - v->token_offsets[i]);
        token->id = (uint32_t)i;
        token->type = v->token_types != NULL ? v->token_types[i] : HERALD_TOKEN_NORMAL;
        if (token->type == HERALD_TOKEN_BYTE) { /* written <0x0A>: replace it by that byte */
            int high = token->length == 6 ? hex_digit(bytes[3]) : -1;
            int low = token->length == 6 ? hex_digit(bytes[4]) : -1;
            if (high < 0 || low < 0 || memcmp(bytes, "<0x", 3) != 0 || bytes[5] != '>')
                return fail(error, HERALD_STATUS_CORRUPT, "token %zu is a byte, but is not spelt <0x00> to <0xFF>", i);
            bytes[0] = (uint8_t)(high * 16 + low);
            token->length = 1;
        }
        if (token->length > 0 && token->type != HERALD_TOKEN_UNKNOWN && token->type != HERALD_TOKEN_UNUSED)
            made->matched[made->n_matched++] = *token;
    }
    qsort(made->matched, made->n_matched, sizeof *made->matched, compare);
    return HERALD_STATUS_OK;
}

static uint32_t tokenizer_create(const HeraldVocabulary *v, HeraldTokenizer **out, HeraldError *error) {
    static const char model[] = "longest-match";
    if (v == NULL || !COVERS(v, HeraldVocabulary, flags))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the vocabulary is missing or too short");
    if (v->model_len != sizeof model - 1 || memcmp(v->model, model, sizeof model - 1) != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "the tokenizer model %.*s is not offered, only %s",
                    (int)(v->model_len < 64 ? v->model_len : 64), v->model_len > 0 ? v->model : "", model);
    if (v->pre_len != 0 || v->flags != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "pre-tokenizers and SentencePiece's flags are not offered");
    if (v->n_tokens == 0 || v->n_tokens >= HERALD_NO_TOKEN || v->token_offsets == NULL)
        return fail(error, HERALD_STATUS_CORRUPT, "the vocabulary has %zu tokens, where 1 or more were expected",
                    v->n_tokens);
    if (v->unknown != HERALD_NO_TOKEN && v->unknown >= v->n_tokens)
        return fail(error, HERALD_STATUS_CORRUPT, "the unknown token is %u of a vocabulary of %zu", (unsigned)v->unknown,
                    v->n_tokens);
    HeraldTokenizer *made = calloc(1, sizeof *made);
    if (made == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a tokenizer");
    uint32_t status = fill_tokenizer(made, v, error);
    if (status != HERALD_STATUS_OK) {
        tokenizer_destroy(made);
        return status;
    }
    *out = made;
    return HERALD_STATUS_OK;
}

/* The longest token that the text begins with, or null. Tokens with the same first bytes are adjacent, so each further byte
 * narrows a range of the table. */
static const Token *longest(const HeraldTokenizer *tokenizer, const uint8_t *text, size_t length, int special) {
    const Token *table = tokenizer->matched, *found = NULL;
    size_t low = 0, high = tokenizer->n_matched;
    for (size_t depth = 0; depth < length && low < high; depth++) {
        for (int upper = 0; upper < 2; upper++) { /* the first token after text[depth], then the first with it */
            size_t from = low, to = high;
            while (from < to) {
                size_t middle = from + (to - from) / 2;
                int before = table[middle].length <= depth || table[middle].bytes[depth] < text[depth] + (upper == 0);
                if (before) from = middle + 1;
                else to = middle;
            }
            if (upper == 0) high = from;
            else low = from;
        }
        /* The first token that ends here is not special, unless all are. */
        if (low < high && table[low].length == depth + 1 && (special || table[low].type != HERALD_TOKEN_CONTROL))
            found = &table[low];
    }
    return found;
}

static uint32_t check_flags(uint32_t flags, HeraldError *error) {
    if ((flags & ~(uint32_t)(HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES)) == 0) return HERALD_STATUS_OK;
    return fail(error, HERALD_STATUS_UNSUPPORTED, "the flags %#x hold one that this plugin doesn't know", (unsigned)flags);
}

static uint32_t tokenizer_encode(const HeraldTokenizer *tokenizer, const char *text, size_t text_len, uint32_t flags,
                                 uint32_t *ids, size_t capacity, size_t *n_ids, HeraldError *error) {
    uint32_t status = check_flags(flags, error);
    if (status != HERALD_STATUS_OK) return status;
    size_t n = 0;
    for (size_t at = 0; at < text_len;) {
        const Token *token = longest(tokenizer, (const uint8_t *)text + at, text_len - at,
                                     (flags & HERALD_TEXT_SPECIAL) != 0);
        if (token == NULL && tokenizer->unknown == HERALD_NO_TOKEN)
            return fail(error, HERALD_STATUS_UNSUPPORTED,
                        "byte %zu of the text, %#04x, is in no token, and the vocabulary has no unknown token", at,
                        (unsigned)(uint8_t)text[at]);
        if (n < capacity) ids[n] = token != NULL ? token->id : tokenizer->unknown;
        n++;
        at += token != NULL ? token->length : 1;
    }
    *n_ids = n;
    if (n > capacity)
        return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "the text has %zu tokens, where %zu had room", n, capacity);
    return HERALD_STATUS_OK;
}

static uint32_t tokenizer_decode(const HeraldTokenizer *tokenizer, const uint32_t *ids, size_t n_ids, uint32_t flags,
                                 uint8_t *bytes, size_t capacity, size_t *n_bytes, HeraldError *error) {
    uint32_t status = check_flags(flags, error);
    if (status != HERALD_STATUS_OK) return status;
    size_t n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] >= tokenizer->n_tokens)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the id %u is outside the vocabulary of %zu tokens",
                        (unsigned)ids[i], tokenizer->n_tokens);
        const Token *token = &tokenizer->tokens[ids[i]];
        if (token->type == HERALD_TOKEN_CONTROL && (flags & HERALD_TEXT_SPECIAL) == 0) continue;
        if (n <= capacity && token->length > 0 && token->length <= capacity - n)
            memcpy(bytes + n, token->bytes, token->length);
        n += token->length;
    }
    *n_bytes = n;
    if (n > capacity)
        return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "the text has %zu bytes, where %zu had room", n, capacity);
    return HERALD_STATUS_OK;
}

static const HeraldTokenizerTable TOKENIZERS = {
    .struct_size = sizeof(HeraldTokenizerTable),
    .create = tokenizer_create,
    .encode = tokenizer_encode,
    .decode = tokenizer_decode,
    .destroy = tokenizer_destroy,
};

/* ---- The plugin. ---- */

static uint32_t start(const HeraldHost *host, HeraldError *error) {
    static const char line[] = "example-c started";
    (void)error;
    if (host != NULL && COVERS(host, HeraldHost, log) && host->log != NULL)
        host->log(host->context, HERALD_LOG_DEBUG, line, sizeof line - 1);
    return HERALD_STATUS_OK;
}

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware; /* plain C runs anywhere */
    if (!COVERS(out, HeraldProbe, variant))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldProbe is too short");
    out->score = 50; /* half of scalar code's score: used only if the user names this backend */
    memcpy(out->variant, "c", 2);
    return HERALD_STATUS_OK;
}

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof(HeraldPlugin),
    .abi_version = HERALD_ABI_VERSION,
    .name = "example-c",
    .name_len = sizeof "example-c" - 1,
    .version = "1.0.0",
    .version_len = sizeof "1.0.0" - 1,
    .description = "An example in C: a gated MLP and a longest-match tokenizer",
    .description_len = sizeof "An example in C: a gated MLP and a longest-match tokenizer" - 1,
    .start = start,
    .probe = probe,
    .layers = &LAYERS,
    .tokenizers = &TOKENIZERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
