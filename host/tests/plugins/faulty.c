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
 * Loaded, preferred to every other plugin, and failing in use:
 *   CREATE_FAILS       layer_create and tokenizer_create return INTERNAL with a sentence
 *   CREATE_NULL        they succeed without a layer or tokenizer
 *   UNKNOWN_STATUS     they return 77
 *   GARBAGE_INFO       its layers need 2^60 bytes of scratch memory
 * No faults: these load and run like the example.
 *   OLDER              its tables end before the optional fields
 *   NEWER              its tables have more fields than this header knows
 */
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
#define CREATE(out) (void)(out); return fail(error, 77, "this plugin has statuses of its own")
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

#ifdef PREFERRED
static uint32_t probe_best(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    uint32_t status = probe(hardware, out, error);
    out->score = 1000000;
    return status;
}
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
#elif !defined(PREFERRED)
#error "name a fault"
#endif
#ifdef PREFERRED
    table->probe = probe_best;
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
