/*
 * @NAME@: a HERALD plugin that offers a memory tier: the active one, pages in RAM as attention writes them.
 *
 * To grow it: take pages from an arena instead of the heap, bind them to the node of the processor that reads them, or offer the
 * compressed or the archived tier in KINDS, whose pages are 4-bit codes. HERALD's docs/PLUGINS.md has the rules.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "herald_plugin.h"

/* Whether the host's struct is long enough to have the field: an older host's may end before it. */
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

/* Keys and values each begin at a multiple of this. */
#define ALIGN 64

/* Pages are found by their ids in chains. */
#define CHAINS 4096

/* A page: keys, then values. Its bytes stay where they are until it is dropped. */
typedef struct Kept {
    struct Kept *next;
    uint64_t id;
    uint32_t n_tokens;
    unsigned char *bytes;
} Kept;

/* What HeraldTier is, is the plugin's own affair. */
struct HeraldTier {
    uint32_t page_tokens;
    size_t key_bytes, value_start, value_bytes;
    uint64_t capacity, n_pages, hits, misses;
    pthread_mutex_t mutex; /* calls come from any thread, many at once */
    Kept *chains[CHAINS];
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

static uint32_t not_found(HeraldError *error, uint64_t id) {
    return fail(error, HERALD_STATUS_NOT_FOUND, "the memory tier holds no page %llu", (unsigned long long)id);
}

static size_t round_up(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static size_t page_bytes(const HeraldTier *tier) { return round_up(tier->value_start + tier->value_bytes); }

/* Where the pointer to a page of this id is, or to the null at its chain's end. */
static Kept **find(HeraldTier *tier, uint64_t id) {
    Kept **at = &tier->chains[id % CHAINS];
    while (*at != NULL && (*at)->id != id) at = &(*at)->next;
    return at;
}

/* The same of a page that get or view asks for. */
static Kept *look_up(HeraldTier *tier, uint64_t id) {
    Kept *page = *find(tier, id);
    if (page != NULL) tier->hits++;
    else tier->misses++;
    return page;
}

/* Bytes of a part of a HERALD_PAGE_I16: a float32 scale a row, then int16 codes. */
static size_t part_bytes(const HeraldTierConfig *config, uint32_t dim) {
    return (size_t)config->n_kv_heads * config->page_tokens * (sizeof(float) + (size_t)dim * sizeof(int16_t));
}

static uint32_t create(const HeraldTierConfig *config, HeraldTier **out, HeraldError *error) {
    const uint32_t most = 1 << 16; /* so that no size overflows */
    if (config == NULL || !COVERS(config, HeraldTierConfig, capacity_bytes))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the tier's configuration is missing or too short");
    if (COVERS(config, HeraldTierConfig, flags) && (config->flags & ~(uint64_t)HERALD_TIER_LZ4) != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "the flags 0x%llx are not known", (unsigned long long)config->flags);
    if (config->kind != HERALD_TIER_ACTIVE || config->state_bytes != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only the active tier of keys and values is offered");
    if (config->n_kv_heads == 0 || config->key_dim == 0 || config->value_dim == 0 || config->page_tokens == 0 ||
        config->n_kv_heads > most || config->key_dim > most || config->value_dim > most || config->page_tokens > most)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a page has no sound shape");
    HeraldTier *tier = calloc(1, sizeof *tier);
    if (tier == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a tier");
    if (pthread_mutex_init(&tier->mutex, NULL) != 0) {
        free(tier);
        return fail(error, HERALD_STATUS_INTERNAL, "a mutex can't be made");
    }
    tier->page_tokens = config->page_tokens;
    tier->key_bytes = part_bytes(config, config->key_dim);
    tier->value_bytes = part_bytes(config, config->value_dim);
    tier->value_start = round_up(tier->key_bytes);
    tier->capacity = config->capacity_bytes;
    *out = tier;
    return HERALD_STATUS_OK;
}

static void free_page(Kept *page) {
    if (page != NULL) free(page->bytes);
    free(page);
}

static void destroy(HeraldTier *tier) {
    if (tier == NULL) return;
    for (size_t i = 0; i < CHAINS; i++)
        while (tier->chains[i] != NULL) {
            Kept *page = tier->chains[i];
            tier->chains[i] = page->next;
            free_page(page);
        }
    pthread_mutex_destroy(&tier->mutex);
    free(tier);
}

static uint32_t put(HeraldTier *tier, uint64_t id, const HeraldPage *page, HeraldError *error) {
    if (page != NULL && (!COVERS(page, HeraldPage, value_bytes) || page->format != HERALD_PAGE_I16 || page->keys == NULL ||
                         page->values == NULL || page->key_bytes != tier->key_bytes ||
                         page->value_bytes != tier->value_bytes || page->n_tokens > tier->page_tokens))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "page %llu has another format or shape", (unsigned long long)id);
    Kept *kept = calloc(1, sizeof *kept);
    if (kept != NULL) kept->bytes = aligned_alloc(ALIGN, page_bytes(tier));
    if (kept == NULL || kept->bytes == NULL) {
        free_page(kept);
        return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a page");
    }
    memset(kept->bytes, 0, page_bytes(tier));
    kept->id = id;
    if (page != NULL) {
        memcpy(kept->bytes, page->keys, tier->key_bytes);
        memcpy(kept->bytes + tier->value_start, page->values, tier->value_bytes);
        kept->n_tokens = page->n_tokens;
    }
    pthread_mutex_lock(&tier->mutex);
    Kept **at = find(tier, id);
    int taken = *at != NULL, full = tier->capacity != 0 && (tier->n_pages + 1) * page_bytes(tier) > tier->capacity;
    if (!taken && !full) {
        *at = kept;
        tier->n_pages++;
    }
    pthread_mutex_unlock(&tier->mutex);
    if (!taken && !full) return HERALD_STATUS_OK;
    free_page(kept);
    if (taken) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "there is a page %llu already", (unsigned long long)id);
    return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "the memory tier is full");
}

static uint32_t get(HeraldTier *tier, uint64_t id, HeraldPage *into, HeraldError *error) {
    if (into->key_bytes < tier->key_bytes || into->value_bytes < tier->value_bytes)
        return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "the buffers for page %llu are too small", (unsigned long long)id);
    pthread_mutex_lock(&tier->mutex);
    const Kept *page = look_up(tier, id);
    if (page != NULL) {
        memcpy(into->keys, page->bytes, tier->key_bytes);
        memcpy(into->values, page->bytes + tier->value_start, tier->value_bytes);
        into->n_tokens = page->n_tokens;
    }
    pthread_mutex_unlock(&tier->mutex);
    return page != NULL ? HERALD_STATUS_OK : not_found(error, id);
}

static uint32_t view(HeraldTier *tier, uint64_t id, HeraldPage *page, HeraldError *error) {
    pthread_mutex_lock(&tier->mutex);
    const Kept *kept = look_up(tier, id);
    if (kept != NULL) {
        page->n_tokens = kept->n_tokens;
        page->capacity = tier->page_tokens;
        page->format = HERALD_PAGE_I16;
        page->keys = kept->bytes;
        page->values = kept->bytes + tier->value_start;
        page->key_bytes = tier->key_bytes;
        page->value_bytes = tier->value_bytes;
    }
    pthread_mutex_unlock(&tier->mutex);
    return kept != NULL ? HERALD_STATUS_OK : not_found(error, id);
}

static uint32_t commit(HeraldTier *tier, uint64_t id, uint32_t n_tokens, HeraldError *error) {
    if (n_tokens > tier->page_tokens)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "page %llu has no room for %u tokens", (unsigned long long)id,
                    (unsigned)n_tokens);
    pthread_mutex_lock(&tier->mutex);
    Kept *page = *find(tier, id);
    if (page != NULL) page->n_tokens = n_tokens;
    pthread_mutex_unlock(&tier->mutex);
    return page != NULL ? HERALD_STATUS_OK : not_found(error, id);
}

static uint32_t drop(HeraldTier *tier, uint64_t id, HeraldError *error) {
    pthread_mutex_lock(&tier->mutex);
    Kept **at = find(tier, id), *page = *at;
    if (page != NULL) {
        *at = page->next;
        tier->n_pages--;
    }
    pthread_mutex_unlock(&tier->mutex);
    free_page(page);
    return page != NULL ? HERALD_STATUS_OK : not_found(error, id);
}

static uint32_t stats(HeraldTier *tier, HeraldTierStats *out, HeraldError *error) {
    (void)error;
    pthread_mutex_lock(&tier->mutex);
    out->pages = tier->n_pages;
    out->tokens = 0;
    for (size_t i = 0; i < CHAINS; i++)
        for (const Kept *page = tier->chains[i]; page != NULL; page = page->next) out->tokens += page->n_tokens;
    out->bytes = tier->n_pages * page_bytes(tier);
    if (COVERS(out, HeraldTierStats, misses)) {
        out->hits = tier->hits;
        out->misses = tier->misses;
    }
    if (COVERS(out, HeraldTierStats, memory_bytes)) out->memory_bytes = out->bytes;
    pthread_mutex_unlock(&tier->mutex);
    return HERALD_STATUS_OK;
}

/* ---- What the plugin says of itself. ---- */

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware;
    (void)error;
    out->score = 50; /* below the plugin cpu: this is used only with --backend @NAME@ */
    memcpy(out->variant, "plain", sizeof "plain");
    return HERALD_STATUS_OK;
}

static const uint32_t KINDS[] = {HERALD_TIER_ACTIVE};

static const HeraldTierTable TIERS = {
    .struct_size = sizeof(HeraldTierTable),
    .kinds = KINDS,
    .n_kinds = 1,
    .create = create,
    .put = put,
    .get = get,
    .view = view,
    .commit = commit,
    .drop = drop,
    .destroy = destroy,
    .stats = stats,
};

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof(HeraldPlugin),
    .abi_version = HERALD_ABI_VERSION,
    .name = "@NAME@",
    .name_len = sizeof "@NAME@" - 1,
    .version = "0.1.0",
    .version_len = sizeof "0.1.0" - 1,
    .probe = probe,
    .tiers = &TIERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
