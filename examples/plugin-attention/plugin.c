/*
 * A HERALD plugin in plain C that offers attention: over F32, F16 and Q8_0 weights, with every RoPE but YaRN's, windows, soft caps,
 * QK-norms and biases. It reads compressed pages, and selects among the older pages of a long context.
 *
 * It was written from docs/PLUGINS.md and herald_plugin.h alone, and follows the page's steps and names. It goes for clarity: no
 * intrinsics, one straightforward kernel for each step. Begin with forward.c.
 */
#include <stdarg.h>
#include <stdio.h>

#include "layer.h"

static const HeraldHost *host;

void log_line(uint32_t level, const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (host != NULL && length > 0)
        host->log(host->context, level, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

static uint32_t start(const HeraldHost *given, HeraldError *error) {
    (void)error;
    host = given; /* valid until the process ends */
    return HERALD_STATUS_OK;
}

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    static const char variant[] = "plain C";
    (void)hardware;
    if (!COVERS(out, HeraldProbe, variant))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "HeraldProbe is too short");
    out->score = 40; /* below scalar code's 100: used only where the user names this backend */
    for (size_t i = 0; i < sizeof variant; i++) out->variant[i] = variant[i];
    return HERALD_STATUS_OK;
}

static const uint32_t KINDS[] = {HERALD_LAYER_ATTENTION};

static const HeraldLayerTable LAYERS = {
    .struct_size = sizeof(HeraldLayerTable),
    .kinds = KINDS,
    .n_kinds = 1,
    .supports = layer_supports,
    .create = layer_create,
    .info = layer_info,
    .forward = layer_forward,
    .destroy = layer_destroy,
    .summarise = layer_summarise,
};

static const char NAME[] = "example-attention", VERSION[] = "1.0.0";
static const char DESCRIPTION[] = "An example in C: attention with compressed pages and page selection";

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof(HeraldPlugin),
    .abi_version = HERALD_ABI_VERSION,
    .name = NAME,
    .name_len = sizeof NAME - 1,
    .version = VERSION,
    .version_len = sizeof VERSION - 1,
    .description = DESCRIPTION,
    .description_len = sizeof DESCRIPTION - 1,
    .start = start,
    .probe = probe,
    .layers = &LAYERS,
};

const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
