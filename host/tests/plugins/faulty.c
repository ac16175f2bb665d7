/*
 * Plugins with one fault each, for the host's tests: the C example, with the fault that a macro names.
 *
 *     cc -std=c11 -Iinclude -shared -fPIC -DWRONG_VERSION -o libherald_faulty.so host/tests/plugins/faulty.c -lm
 *
 * Refused when they are loaded:
 *   MISSING_SYMBOL     exports no herald_plugin_v1
 *   NULL_TABLE         herald_plugin_v1 returns null
 *   WRONG_VERSION      is built for version 2 of the ABI
 *   GARBAGE_SIZE       its table says that it has 2^40 bytes
 *   TINY_SIZE          its table says that it has 7 bytes
 *   BAD_NAME           its name is "../cpu"
 *   NO_FORWARD         its layer table has no forward function
 *   NO_START           says that it can't start
 * Refused when they are probed:
 *   NO_HARDWARE        can't run on any machine
 *   ZERO_SCORE         scores 0
 * Refused when they are tried in a child process:
 *   LOAD_ABORTS        aborts when it is loaded
 *   PROBE_HANGS        never answers
 *   PROBE_ABORTS       aborts
 *   PROBE_CRASHES      reads from address 8
 *   PROBE_EXITS        ends the process with exit code 0
 * Loaded, preferred to every other plugin, and failing in use:
 *   CREATE_FAILS       layer_create and tokenizer_create return INTERNAL with a sentence
 *   CREATE_NULL        they succeed without a layer or tokenizer
 *   UNKNOWN_STATUS     they return 77
 *   GARBAGE_INFO       its layers need 2^60 bytes of scratch memory
 * Loaded, preferred to every other plugin, and wrong in what it computes of the MLPs:
 *   FORWARD_NAN        each result is NaN
 *   FORWARD_NEGATED    takes the branch's result away, where it should be added
 *   FORWARD_SLOW       takes a second for each token
 *   FORWARD_HANGS      never returns; first it makes the file that the variable FAULTY_MARK names
 * The same of the head, as the only kind that it offers:
 *   HEAD_SILENT        writes nothing
 *   HEAD_FLAT          writes the same logit for each token
 * No faults: these load and run like the example.
 *   OLDER              its tables end before the optional fields
 *   NEWER              its tables have more fields than this header knows
 */
#if defined(PROBE_HANGS) || defined(FORWARD_HANGS) || defined(FORWARD_SLOW)
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>
#endif
#define herald_plugin_v1 example_plugin
#include "../../../examples/plugin-c/example.c"
#undef herald_plugin_v1

#ifndef MISSING_SYMBOL
HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void);
#endif

#if defined(OLDER) || defined(NEWER)
#define SOUND
#endif

#if defined(CREATE_FAILS)
#define CREATE(out) (void)(out); return fail(error, HERALD_STATUS_INTERNAL, "this plugin makes nothing")
#elif defined(CREATE_NULL)
#define CREATE(out) *(out) = NULL; (void)error; return HERALD_STATUS_OK
#elif defined(UNKNOWN_STATUS)
#define CREATE(out) (void)(out); return fail(error, 77, "this plugin has its own statuses")
#endif

#ifdef CREATE
#define PREFERRED
static uint32_t supports_all(const HeraldLayerRequest *request, HeraldError *error) {
    (void)request;
    (void)error;
    return HERALD_STATUS_OK;
}
static uint32_t make_no_layer(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    (void)request;
    CREATE(out);
}
static uint32_t make_no_tokenizer(const HeraldVocabulary *v, HeraldTokenizer **out, HeraldError *error) {
    (void)v;
    CREATE(out);
}
#endif

#ifdef GARBAGE_INFO
#define PREFERRED
/* It creates any layer, without weights, and needs more memory than exists. */
static uint32_t supports_all(const HeraldLayerRequest *request, HeraldError *error) {
    (void)request;
    (void)error;
    return HERALD_STATUS_OK;
}
static uint32_t make_any_layer(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    (void)request;
    *out = calloc(1, sizeof **out);
    return *out != NULL ? HERALD_STATUS_OK : fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory");
}
static uint32_t need_everything(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    (void)layer;
    (void)error;
    out->scratch_bytes = (uint64_t)1 << 60;
    return HERALD_STATUS_OK;
}
#endif

#if defined(FORWARD_NAN) || defined(FORWARD_NEGATED) || defined(FORWARD_SLOW) || defined(FORWARD_HANGS)
#define FORWARD
#define BEST
static uint32_t forward_wrongly(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
#if defined(FORWARD_HANGS)
    FILE *mark = getenv("FAULTY_MARK") != NULL ? fopen(getenv("FAULTY_MARK"), "w") : NULL;
    if (mark != NULL) fclose(mark);
    for (;;) pause();
#elif defined(FORWARD_SLOW)
    sleep((unsigned)call->n_tokens);
#endif
    size_t n = call->n_tokens * layer->hidden;
    float *before = malloc(n * sizeof *before);
    if (before == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory");
    memcpy(before, call->output, n * sizeof *before);
    uint32_t status = layer_forward(layer, call, error);
    for (size_t i = 0; i < n; i++) {
#if defined(FORWARD_NAN)
        call->output[i] = NAN;
#elif defined(FORWARD_NEGATED)
        call->output[i] = 2.0f * before[i] - call->output[i];
#endif
    }
    free(before);
    return status;
}
#endif

#if defined(HEAD_SILENT) || defined(HEAD_FLAT)
#define HEAD
#define BEST
static const uint32_t HEAD_KIND[] = {HERALD_LAYER_HEAD};
static uint32_t supports_heads(const HeraldLayerRequest *request, HeraldError *error) {
    if (request->desc->kind != HERALD_LAYER_HEAD)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "this plugin offers heads only");
    return HERALD_STATUS_OK;
}
static uint32_t make_head(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error) {
    uint32_t status = supports_heads(request, error);
    if (status != HERALD_STATUS_OK) return status;
    *out = calloc(1, sizeof **out);
    if (*out == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory");
    for (size_t i = 0; i < request->n_weights; i++)
        if (request->weights[i]->role == HERALD_WEIGHT_EMBEDDING) (*out)->width = (size_t)request->weights[i]->dims[1];
    return HERALD_STATUS_OK;
}
static uint32_t head_info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error) {
    (void)layer;
    (void)error;
    (void)out;
    return HERALD_STATUS_OK;
}
static uint32_t forward_head(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    (void)error;
#ifdef HEAD_FLAT
    for (size_t i = 0; i < call->n_tokens * layer->width; i++) call->output[i] = 1.5f;
#else
    (void)layer;
    (void)call;
#endif
    return HERALD_STATUS_OK;
}
#endif

#if defined(LOAD_ABORTS)
#define BEST
__attribute__((constructor)) static void abort_at_once(void) { abort(); }
#elif defined(PROBE_HANGS) || defined(PROBE_ABORTS) || defined(PROBE_CRASHES) || defined(PROBE_EXITS)
#define PROBE
#define BEST
static uint32_t probe_wrongly(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
#if defined(PROBE_HANGS)
    for (;;) pause();
#elif defined(PROBE_ABORTS)
    abort();
#elif defined(PROBE_CRASHES)
    volatile int *nowhere = (volatile int *)(uintptr_t)8;
    (void)*nowhere;
#else
    exit(0);
#endif
    return probe(hardware, out, error);
}
#endif

#if defined(PREFERRED) || defined(BEST)
static uint32_t probe_best(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    uint32_t status = probe(hardware, out, error);
    out->score = 1000000;
    return status;
}
#endif

#ifdef PREFERRED
static const uint32_t ALL_KINDS[] = {HERALD_LAYER_EMBEDDING, HERALD_LAYER_ATTENTION, HERALD_LAYER_MLP,
                                     HERALD_LAYER_HEAD};
#endif

#ifdef NO_START
static uint32_t no_start(const HeraldHost *host, HeraldError *error) {
    (void)host;
    return fail(error, HERALD_STATUS_NOT_FOUND, "there is no licence for this plugin");
}
#endif

#ifdef NO_HARDWARE
static uint32_t no_hardware(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware;
    (void)out;
    return fail(error, HERALD_STATUS_UNSUPPORTED, "this plugin needs a machine that nobody has built");
}
#endif

#ifdef ZERO_SCORE
static uint32_t zero_score(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    uint32_t status = probe(hardware, out, error);
    out->score = 0;
    return status;
}
#endif

#ifndef MISSING_SYMBOL
/* Room for tables of a later header. The bytes after an older table are garbage that nobody may read as fields. */
typedef struct Later {
    union {
        HeraldPlugin plugin;
        HeraldLayerTable layers;
        HeraldTokenizerTable tokenizers;
    } table;
    unsigned char later[64];
} Later;

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) {
    static Later plugin, layers, tokenizers;
    memset(&plugin, 0xFF, sizeof plugin);
    memset(&layers, 0xFF, sizeof layers);
    memset(&tokenizers, 0xFF, sizeof tokenizers);
    plugin.table.plugin = PLUGIN;
    layers.table.layers = LAYERS;
    tokenizers.table.tokenizers = TOKENIZERS;
    HeraldPlugin *table = &plugin.table.plugin;
    table->layers = &layers.table.layers;
    table->tokenizers = &tokenizers.table.tokenizers;
#ifndef SOUND
    table->name = "faulty";
    table->name_len = 6;
#endif
#if defined(NULL_TABLE)
    return NULL;
#elif defined(WRONG_VERSION)
    table->abi_version = 2;
#elif defined(GARBAGE_SIZE)
    table->struct_size = (size_t)1 << 40;
#elif defined(TINY_SIZE)
    table->struct_size = 7;
#elif defined(BAD_NAME)
    table->name = "../cpu";
#elif defined(NO_FORWARD)
    layers.table.layers.forward = NULL;
#elif defined(NO_START)
    table->start = no_start;
#elif defined(NO_HARDWARE)
    table->probe = no_hardware;
#elif defined(ZERO_SCORE)
    table->probe = zero_score;
#elif defined(OLDER)
    table->struct_size = offsetof(HeraldPlugin, tiers);
    memset(&table->tiers, 0xFF, sizeof table->tiers);
#elif defined(NEWER)
    table->struct_size += 40;
    layers.table.layers.struct_size += 64;
    tokenizers.table.tokenizers.struct_size += 8;
#elif !defined(PREFERRED) && !defined(BEST)
#error "name a fault"
#endif
#if defined(PROBE)
    table->probe = probe_wrongly;
#elif defined(PREFERRED) || defined(BEST)
    table->probe = probe_best;
#endif
#ifdef FORWARD
    layers.table.layers.forward = forward_wrongly;
#endif
#ifdef HEAD
    table->tokenizers = NULL;
    layers.table.layers.kinds = HEAD_KIND;
    layers.table.layers.n_kinds = 1;
    layers.table.layers.supports = supports_heads;
    layers.table.layers.create = make_head;
    layers.table.layers.info = head_info;
    layers.table.layers.forward = forward_head;
#endif
#ifdef PREFERRED
    layers.table.layers.kinds = ALL_KINDS;
    layers.table.layers.n_kinds = sizeof ALL_KINDS / sizeof ALL_KINDS[0];
    layers.table.layers.supports = supports_all;
#endif
#ifdef CREATE
    layers.table.layers.create = make_no_layer;
    tokenizers.table.tokenizers.create = make_no_tokenizer;
#endif
#ifdef GARBAGE_INFO
    layers.table.layers.create = make_any_layer;
    layers.table.layers.info = need_everything;
#endif
    return table;
}
#endif
