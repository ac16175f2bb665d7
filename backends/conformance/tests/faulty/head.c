/*
 * The output head over float32 weights, with the fault that a macro names; with none of them it is sound.
 *
 *     cc -std=c11 -Iinclude -shared -fPIC -DWRONG_SIGN -o libherald_head.so backends/conformance/tests/faulty/head.c -lm
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <herald_plugin.h>

#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

struct HeraldLayer {
    size_t hidden, vocabulary;
    uint32_t max_tokens;
    float scale, softcap, eps;
    const unsigned char *norm, *matrix; /* float32 at any address */
    size_t matrix_bytes;
};

static uint32_t fail(HeraldError *error, uint32_t status, const char *sentence) {
#ifdef NO_SENTENCE
    (void)error, (void)sentence;
#else
    if (error != NULL && COVERS(error, HeraldError, message))
        snprintf(error->message, sizeof error->message, "%s", sentence);
#endif
    return status;
}

static float element(const unsigned char *from, size_t index) {
    float value;
    memcpy(&value, from + index * sizeof value, sizeof value);
    return value;
}

/* One weight of the request, checked against its shape. */
static uint32_t take(const HeraldTensor *tensor, HeraldLayer *layer, HeraldError *error) {
    if (tensor == NULL || !COVERS(tensor, HeraldTensor, data_bytes) || tensor->data == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a weight is missing or ends early");
    if (tensor->role != HERALD_WEIGHT_NORM && tensor->role != HERALD_WEIGHT_EMBEDDING)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "a weight's role is none of a head's");
    if (tensor->dtype != HERALD_DTYPE_F32)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only float32 weights are offered");
    int is_norm = tensor->role == HERALD_WEIGHT_NORM;
    uint64_t rows = is_norm ? 1 : layer->vocabulary;
    if (tensor->dims[0] != layer->hidden || tensor->dims[1] != rows || tensor->dims[2] != 1 || tensor->dims[3] != 1 ||
        tensor->data_bytes != rows * layer->hidden * 4)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a weight's shape contradicts the description");
    const unsigned char **to = is_norm ? &layer->norm : &layer->matrix;
    if (*to != NULL) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a weight comes twice");
    *to = tensor->data;
    if (!is_norm) layer->matrix_bytes = tensor->data_bytes;
    return HERALD_STATUS_OK;
}

static uint32_t read_request(const HeraldLayerRequest *request, HeraldLayer *layer, HeraldError *error) {
    if (request == NULL || !COVERS(request, HeraldLayerRequest, max_tokens) || request->desc == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the request is missing or ends early");
    const HeraldLayerDesc *desc = request->desc;
    if (!COVERS(desc, HeraldLayerDesc, head))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the description ends early");
    if (desc->kind != HERALD_LAYER_HEAD) return fail(error, HERALD_STATUS_UNSUPPORTED, "only heads are offered");
    const HeraldHead *head = desc->head;
    if (head == NULL || !COVERS(head, HeraldHead, softcap) || desc->hidden == 0 || head->vocabulary == 0)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the head has no size");
    *layer = (HeraldLayer){.hidden = desc->hidden, .vocabulary = head->vocabulary, .max_tokens = request->max_tokens,
                           .scale = head->scale, .softcap = head->softcap, .eps = desc->norm_eps};
    for (size_t i = 0; i < request->n_weights; i++) {
        uint32_t status = take(request->weights[i], layer, error);
        if (status != HERALD_STATUS_OK) return status;
    }
    if (layer->norm == NULL || layer->matrix == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the head needs its norm and its matrix");
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
#ifdef CREATE_REFUSES
    return fail(error, HERALD_STATUS_UNSUPPORTED, "it changed its mind");
#endif
    HeraldLayer *layer = malloc(sizeof *layer);
    if (layer == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a head");
    *layer = made;
    *out = layer;
    return HERALD_STATUS_OK;
}

static void destroy(HeraldLayer *layer) { free(layer); }

static uint32_t info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    if (out == NULL || !COVERS(out, HeraldLayerInfo, scratch_bytes))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldLayerInfo ends early");
    out->scratch_bytes = (uint64_t)layer->max_tokens * layer->hidden * sizeof(float);
#ifdef SMALL_SCRATCH
    out->scratch_bytes /= 2;
#endif
    return HERALD_STATUS_OK;
}

typedef struct Job {
    const HeraldLayer *layer;
    const HeraldCall *call;
    float *normed; /* [n_tokens, hidden] */
} Job;

static void norm_tokens(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const Job *job = argument;
    size_t n = job->layer->hidden;
    (void)worker;
    for (uint64_t token = begin; token < end; token++) {
        const float *x = job->call->input + token * n;
        double squares = 0;
        for (size_t i = 0; i < n; i++) squares += (double)x[i] * x[i];
#ifdef BATCH_DEPENDENT /* normed with the first token of the batch in mind */
        squares *= job->call->n_tokens > 1 ? 1.02 : 1.0;
#endif
        float scale = (float)(1 / sqrt(squares / (double)n + job->layer->eps));
        for (size_t i = 0; i < n; i++) job->normed[token * n + i] = x[i] * scale * element(job->layer->norm, i);
    }
}

static void products(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    const Job *job = argument;
    const HeraldLayer *layer = job->layer;
    (void)worker;
    for (uint64_t row = begin; row < end; row++)
        for (size_t token = 0; token < job->call->n_tokens; token++) {
            double sum = 0;
            for (size_t i = 0; i < layer->hidden; i++)
                sum += (double)element(layer->matrix, row * layer->hidden + i) * job->normed[token * layer->hidden + i];
            float logit = (float)sum * layer->scale;
            if (layer->softcap > 0) logit = layer->softcap * tanhf(logit / layer->softcap);
            job->call->output[token * layer->vocabulary + row] = logit;
        }
}

#ifdef STARTS_THREAD
static void *nothing(void *argument) { return argument; }
#endif

/* What the faulty ones do besides. */
static void misbehave(const HeraldLayer *layer, const HeraldCall *call) {
    size_t n = call->n_tokens * layer->vocabulary;
    (void)n;
#ifdef WRONG_SIGN
    for (size_t i = 0; i < n; i++) call->output[i] = -call->output[i];
#elif defined(WRONG_RESULT)
    for (size_t i = 0; i < n; i++) call->output[i] *= 1.2f;
#elif defined(NOT_A_NUMBER)
    call->output[n - 1] = NAN;
#elif defined(WRITES_PAST)
    call->output[n] = 1;
#elif defined(WRITES_PAST_SCRATCH)
    ((char *)call->scratch)[call->scratch_bytes] = 1;
#elif defined(READS_PAST_WEIGHT)
    volatile unsigned char past = layer->matrix[layer->matrix_bytes];
    (void)past;
#elif defined(STARTS_THREAD)
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
#elif defined(STARTS_PROCESS)
    static pid_t once;
    if (once == 0 && (once = fork()) == 0) _exit(0);
#elif defined(ALLOCATES)
    void *volatile memory = malloc(100);
    free(memory);
#elif defined(FORWARD_HANGS)
    for (volatile int forever = 1; forever;) usleep(1000);
#elif defined(FORWARD_CRASHES)
    *(volatile int *)0 = 1;
#elif defined(FORWARD_EXITS)
    exit(0);
#elif defined(UNSTABLE)
    static unsigned calls;
    call->output[0] += (float)(calls++ % 7) * 1e-4f;
#endif
}

static uint32_t forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    if (call == NULL || !COVERS(call, HeraldCall, parallel) || call->input == NULL || call->output == NULL ||
        call->parallel == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the call lacks input, output or threads");
    if (call->n_tokens == 0 || call->n_tokens > layer->max_tokens)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the call has too few or too many tokens");
#ifdef NOT_WRITTEN
    return HERALD_STATUS_OK;
#endif
    Job job = {layer, call, call->scratch};
    HeraldTask norm = {.struct_size = sizeof norm, .argument = &job, .run = norm_tokens};
    HeraldTask rows = {.struct_size = sizeof rows, .argument = &job, .run = products};
    call->parallel->run(call->parallel->context, call->n_tokens, &norm);
    call->parallel->run(call->parallel->context, layer->vocabulary, &rows);
    misbehave(layer, call);
    return HERALD_STATUS_OK;
}

static const uint32_t KINDS[] = {HERALD_LAYER_HEAD};

static const HeraldLayerTable LAYERS = {
    .struct_size = sizeof LAYERS,
    .kinds = KINDS,
    .n_kinds = 1,
    .supports = supports,
    .create = create,
    .info = info,
#ifndef NO_FORWARD
    .forward = forward,
#endif
    .destroy = destroy,
};

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware;
    if (out == NULL || !COVERS(out, HeraldProbe, variant))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldProbe ends early");
#if defined(PROBE_HANGS)
    for (volatile int forever = 1; forever;) usleep(1000);
#elif defined(PROBE_ABORTS)
    abort();
#elif defined(PROBE_EXITS)
    exit(0);
#endif
    out->score = 10;
    memcpy(out->variant, "c", 2);
    return HERALD_STATUS_OK;
}

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof PLUGIN,
#ifdef WRONG_VERSION
    .abi_version = 2,
#else
    .abi_version = HERALD_ABI_VERSION,
#endif
    .name = "head",
    .name_len = 4,
    .version = "1",
    .version_len = 1,
    .probe = probe,
    .layers = &LAYERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) {
    (void)forward;
    return &PLUGIN;
}
