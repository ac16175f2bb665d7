/*
 * Memory tiers that keep pages as they come, in RAM and in a file, with the fault that a macro names; with none of them they
 * are sound. The file is written anew, in whole, when it is flushed and when the tier goes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <herald_plugin.h>

#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

typedef struct Kept {
    struct Kept *next;
    uint64_t id;
    uint32_t n_tokens;
    uint8_t *bytes; /* keys, and at the next multiple of 64 values */
} Kept;

struct HeraldTier {
    pthread_mutex_t lock;
    HeraldTierConfig shape;
    size_t key_bytes, value_bytes, value_start;
    char *path; /* null: in RAM only */
    Kept *first;
    uint64_t n_pages, tokens, hits, misses;
};

/* What a file begins with, and what it says of each page before the page's bytes. */
typedef struct Header {
    char magic[8];
    uint64_t n_pages, key_bytes, value_bytes, shape[4], sum;
} Header;

typedef struct Entry {
    uint64_t id, n_tokens, sum;
} Entry;

static uint32_t fail(HeraldError *error, uint32_t status, const char *sentence) {
    if (error != NULL && COVERS(error, HeraldError, message))
        snprintf(error->message, sizeof error->message, "%s", sentence);
    return status;
}

/* FNV-1a, 64 bits. */
static uint64_t sum_of(const void *from, size_t len, uint64_t sum) {
    const uint8_t *bytes = from;
    for (size_t i = 0; i < len; i++) sum = (sum ^ bytes[i]) * 0x100000001b3u;
    return sum;
}

static const uint64_t SEED = 0xcbf29ce484222325u;

static uint64_t entry_sum(const Entry *entry, const HeraldTier *tier, const uint8_t *bytes) {
    uint64_t sum = sum_of(entry, offsetof(Entry, sum), SEED);
    return sum_of(bytes, tier->value_start + tier->value_bytes, sum);
}

static Header header_of(const HeraldTier *tier) {
    Header header;
    memset(&header, 0, sizeof header);
    memcpy(header.magic, "KEPTPAGE", 8);
    header.n_pages = tier->n_pages;
    header.key_bytes = tier->key_bytes;
    header.value_bytes = tier->value_bytes;
    header.shape[0] = tier->shape.n_kv_heads;
    header.shape[1] = tier->shape.key_dim;
    header.shape[2] = tier->shape.value_dim;
    header.shape[3] = tier->shape.page_tokens;
    header.sum = sum_of(&header, offsetof(Header, sum), SEED);
    return header;
}

static Kept **find(HeraldTier *tier, uint64_t id) {
    Kept **at = &tier->first;
    while (*at != NULL && (*at)->id != id) at = &(*at)->next;
    return at;
}

static uint8_t *new_bytes(const HeraldTier *tier) {
    void *bytes = NULL;
    size_t len = tier->value_start + tier->value_bytes;
    if (posix_memalign(&bytes, 64, len > 0 ? len : 1) != 0) return NULL;
    memset(bytes, 0, len);
    return bytes;
}

/* Adds a page; it takes the bytes over. */
static int add(HeraldTier *tier, uint64_t id, uint32_t n_tokens, uint8_t *bytes) {
    Kept *kept = bytes != NULL ? malloc(sizeof *kept) : NULL;
    if (kept == NULL) return 0;
    *kept = (Kept){tier->first, id, n_tokens, bytes};
    tier->first = kept;
    tier->n_pages++;
    tier->tokens += n_tokens;
    return 1;
}

static uint32_t write_file(HeraldTier *tier, HeraldError *error) {
    if (tier->path == NULL) return HERALD_STATUS_OK;
    char part[4200];
    if (snprintf(part, sizeof part, "%s.part", tier->path) >= (int)sizeof part)
        return fail(error, HERALD_STATUS_IO, "the path is too long");
    FILE *file = fopen(part, "wb");
    if (file == NULL) return fail(error, HERALD_STATUS_IO, "the file can't be written");
    Header header = header_of(tier);
    int ok = fwrite(&header, sizeof header, 1, file) == 1;
    size_t len = tier->value_start + tier->value_bytes;
    for (Kept *kept = tier->first; ok && kept != NULL; kept = kept->next) {
        Entry entry = {kept->id, kept->n_tokens, 0};
        entry.sum = entry_sum(&entry, tier, kept->bytes);
        ok = fwrite(&entry, sizeof entry, 1, file) == 1 && fwrite(kept->bytes, 1, len, file) == len;
    }
    ok = fclose(file) == 0 && ok;
    ok = ok && rename(part, tier->path) == 0;
    if (ok) return HERALD_STATUS_OK;
    remove(part);
#ifdef SILENT_WHEN_FULL
    return HERALD_STATUS_OK;
#endif
    return fail(error, HERALD_STATUS_IO, "the file can't be written");
}

static uint32_t read_pages(HeraldTier *tier, FILE *file, HeraldError *error) {
    Header header, mine = header_of(tier);
    size_t got = fread(&header, 1, sizeof header, file);
    if (got == 0) return HERALD_STATUS_OK; /* new */
    mine.n_pages = header.n_pages;
    mine.sum = sum_of(&mine, offsetof(Header, sum), SEED);
    if (got != sizeof header || memcmp(&header, &mine, sizeof header) != 0)
        return fail(error, HERALD_STATUS_CORRUPT, "the file is damaged, or holds no pages of this shape");
    size_t len = tier->value_start + tier->value_bytes;
    for (uint64_t i = 0; i < header.n_pages; i++) {
        Entry entry;
        uint8_t *bytes = new_bytes(tier);
        if (bytes == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a page");
        int sound = fread(&entry, sizeof entry, 1, file) == 1 && fread(bytes, 1, len, file) == len;
#ifndef TAKES_DAMAGE
        sound = sound && entry.sum == entry_sum(&entry, tier, bytes);
#endif
        if (!sound || !add(tier, entry.id, (uint32_t)entry.n_tokens % (tier->shape.page_tokens + 1), bytes)) {
            free(bytes);
            return fail(error, HERALD_STATUS_CORRUPT, "a page of the file is damaged");
        }
    }
    return HERALD_STATUS_OK;
}

/* Opens the file of the configuration, if it names one. */
static uint32_t open_file(HeraldTier *tier, HeraldError *error) {
    const HeraldTierConfig *config = &tier->shape;
    if (config->path_len == 0 || config->path_len > 4096 || memchr(config->path, 0, config->path_len) != NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the archive has no path, or one that can't be");
    tier->path = strndup(config->path, config->path_len);
    if (tier->path == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a path");
    struct stat is;
    if (stat(tier->path, &is) == 0 && S_ISDIR(is.st_mode)) { /* a file without a name: memory will do */
        free(tier->path);
        tier->path = NULL;
        return HERALD_STATUS_OK;
    }
    FILE *file = fopen(tier->path, "rb");
    uint32_t status = HERALD_STATUS_OK;
    if (file != NULL) {
        status = read_pages(tier, file, error);
        fclose(file);
    } else if (errno != ENOENT || (file = fopen(tier->path, "ab")) == NULL || fclose(file) != 0) {
        status = fail(error, HERALD_STATUS_IO, "the file can't be opened");
    }
    return status;
}

static void clear(HeraldTier *tier) {
    while (tier->first != NULL) {
        Kept *kept = tier->first;
        tier->first = kept->next;
        free(kept->bytes);
        free(kept);
    }
    free(tier->path);
    pthread_mutex_destroy(&tier->lock);
    free(tier);
}

static void destroy(HeraldTier *tier) {
    if (tier == NULL) return;
    write_file(tier, NULL);
    clear(tier);
}

static uint32_t create(const HeraldTierConfig *config, HeraldTier **out, HeraldError *error) {
    if (config == NULL || !COVERS(config, HeraldTierConfig, page_tokens))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the configuration ends early");
    HeraldTierConfig shape = {.struct_size = sizeof shape};
    memcpy((char *)&shape + sizeof(size_t), (const char *)config + sizeof(size_t),
           (config->struct_size < sizeof shape ? config->struct_size : sizeof shape) - sizeof(size_t));
    if (shape.kind != HERALD_TIER_ACTIVE && shape.kind != HERALD_TIER_ARCHIVED)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only active and archived tiers are offered");
    if ((shape.flags & ~(uint64_t)HERALD_TIER_LZ4) != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "a flag is unknown");
    int empty = shape.state_bytes == 0 && (shape.n_kv_heads == 0 || shape.key_dim == 0 || shape.value_dim == 0);
    if (shape.page_tokens == 0 || empty)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the pages would be empty");
    __extension__ typedef unsigned __int128 Wide;
    Wide slots = (Wide)shape.n_kv_heads * shape.page_tokens;
    Wide keys = shape.state_bytes > 0 ? shape.state_bytes : slots * (4 + 2 * (Wide)shape.key_dim);
    Wide values = shape.state_bytes > 0 ? 0 : slots * (4 + 2 * (Wide)shape.value_dim);
    if (keys + values > (Wide)1 << 40) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the pages are too large");
    HeraldTier *tier = calloc(1, sizeof *tier);
    if (tier == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a tier");
    pthread_mutex_init(&tier->lock, NULL);
    tier->shape = shape;
    tier->key_bytes = (size_t)keys;
    tier->value_bytes = (size_t)values;
    tier->value_start = (tier->key_bytes + 63) / 64 * 64;
    uint32_t status = shape.kind == HERALD_TIER_ARCHIVED ? open_file(tier, error) : HERALD_STATUS_OK;
    if (status != HERALD_STATUS_OK) {
        clear(tier);
        return status;
    }
    *out = tier;
    return HERALD_STATUS_OK;
}

static uint32_t format(const HeraldTier *tier) {
    return tier->shape.state_bytes > 0 ? HERALD_PAGE_OPAQUE : HERALD_PAGE_I16;
}

static uint32_t put_locked(HeraldTier *tier, uint64_t id, const HeraldPage *page, HeraldError *error) {
    if (*find(tier, id) != NULL) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the id is taken");
    uint64_t each = tier->value_start + tier->value_bytes;
#ifndef IGNORES_CAPACITY
    if (tier->shape.capacity_bytes != 0 && (tier->n_pages + 1) * each > tier->shape.capacity_bytes)
        return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "the tier is full");
#endif
    uint8_t *bytes = new_bytes(tier);
    if (bytes != NULL && page != NULL) {
        memcpy(bytes, page->keys, tier->key_bytes);
        if (tier->value_bytes > 0) memcpy(bytes + tier->value_start, page->values, tier->value_bytes);
    }
    if (add(tier, id, page != NULL ? page->n_tokens : 0, bytes)) return HERALD_STATUS_OK;
    free(bytes);
    return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a page");
}

static uint32_t put(HeraldTier *tier, uint64_t id, const HeraldPage *page, HeraldError *error) {
    if (page == NULL && tier->shape.kind == HERALD_TIER_ARCHIVED)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "an archive has no empty pages");
    if (page != NULL && (!COVERS(page, HeraldPage, value_bytes) || page->format != format(tier) ||
                         page->key_bytes != tier->key_bytes || page->value_bytes != tier->value_bytes ||
                         page->keys == NULL || page->n_tokens > tier->shape.page_tokens))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the page has another shape");
    pthread_mutex_lock(&tier->lock);
    uint32_t status = put_locked(tier, id, page, error);
    pthread_mutex_unlock(&tier->lock);
    return status;
}

/* The page, counted as a hit or a miss; to be called with the lock. */
static Kept *look_up(HeraldTier *tier, uint64_t id, HeraldError *error) {
    Kept *kept = *find(tier, id);
    if (kept != NULL) tier->hits++;
    else tier->misses++;
    if (kept == NULL) fail(error, HERALD_STATUS_NOT_FOUND, "there is no such page");
    return kept;
}

static uint32_t get(HeraldTier *tier, uint64_t id, HeraldPage *into, HeraldError *error) {
    if (into->key_bytes < tier->key_bytes || into->value_bytes < tier->value_bytes)
        return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "the page has no room");
    pthread_mutex_lock(&tier->lock);
    Kept *kept = look_up(tier, id, error);
    if (kept != NULL) {
        const uint8_t *from = kept->bytes;
#ifdef GIVES_ANOTHER
        from = tier->first->bytes;
#endif
        memcpy(into->keys, from, tier->key_bytes);
        if (tier->value_bytes > 0) memcpy(into->values, from + tier->value_start, tier->value_bytes);
#ifdef GET_WRITES_PAST
        ((uint8_t *)into->keys)[tier->key_bytes] = 1;
#endif
        into->n_tokens = kept->n_tokens;
    }
    pthread_mutex_unlock(&tier->lock);
    return kept != NULL ? HERALD_STATUS_OK : HERALD_STATUS_NOT_FOUND;
}

static uint32_t view(HeraldTier *tier, uint64_t id, HeraldPage *page, HeraldError *error) {
    pthread_mutex_lock(&tier->lock);
    Kept *kept = look_up(tier, id, error);
    if (kept != NULL) {
        page->format = format(tier);
        page->n_tokens = kept->n_tokens;
        page->capacity = tier->shape.page_tokens;
        page->keys = kept->bytes;
        page->key_bytes = tier->key_bytes;
        page->values = tier->value_bytes > 0 ? kept->bytes + tier->value_start : NULL;
        page->value_bytes = tier->value_bytes;
#ifdef VIEW_LENGTH_LIES
        page->key_bytes *= 2;
#endif
    }
    pthread_mutex_unlock(&tier->lock);
    return kept != NULL ? HERALD_STATUS_OK : HERALD_STATUS_NOT_FOUND;
}

static uint32_t commit(HeraldTier *tier, uint64_t id, uint32_t n_tokens, HeraldError *error) {
    pthread_mutex_lock(&tier->lock);
    Kept *kept = *find(tier, id);
    uint32_t status = HERALD_STATUS_OK;
    if (kept == NULL) {
        status = fail(error, HERALD_STATUS_NOT_FOUND, "there is no such page");
    } else if (n_tokens > tier->shape.page_tokens) {
        status = fail(error, HERALD_STATUS_INVALID_ARGUMENT, "so many tokens have no room");
    } else {
        tier->tokens += (uint64_t)n_tokens - kept->n_tokens;
        kept->n_tokens = n_tokens;
    }
    pthread_mutex_unlock(&tier->lock);
    return status;
}

static uint32_t drop(HeraldTier *tier, uint64_t id, HeraldError *error) {
    pthread_mutex_lock(&tier->lock);
    Kept **at = find(tier, id), *kept = *at;
    if (kept == NULL) {
        pthread_mutex_unlock(&tier->lock);
        return fail(error, HERALD_STATUS_NOT_FOUND, "there is no such page");
    }
#ifndef DROPS_NOTHING
    *at = kept->next;
    tier->n_pages--;
    tier->tokens -= kept->n_tokens;
#ifndef DROP_LEAKS
    free(kept->bytes);
    free(kept);
#endif
#endif
    pthread_mutex_unlock(&tier->lock);
    return HERALD_STATUS_OK;
}

static uint32_t stats(HeraldTier *tier, HeraldTierStats *out, HeraldError *error) {
    if (!COVERS(out, HeraldTierStats, bytes)) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "it ends early");
    pthread_mutex_lock(&tier->lock);
    out->pages = tier->n_pages;
    out->tokens = tier->tokens;
    out->bytes = tier->n_pages * (tier->value_start + tier->value_bytes);
    if (COVERS(out, HeraldTierStats, misses)) out->hits = tier->hits, out->misses = tier->misses;
    pthread_mutex_unlock(&tier->lock);
    return HERALD_STATUS_OK;
}

static uint32_t list(HeraldTier *tier, uint64_t *ids, size_t room, size_t *n, HeraldError *error) {
    (void)error;
    pthread_mutex_lock(&tier->lock);
    size_t count = 0;
    for (Kept *kept = tier->first; kept != NULL; kept = kept->next, count++)
        if (count < room) ids[count] = kept->id;
#if defined(LIST_OF_2_61)
    count = (size_t)1 << 61;
#elif defined(LIST_OF_2_42)
    count = (size_t)1 << 42;
#elif defined(LIST_GROWS)
    count = room + 1;
#endif
    *n = count;
    pthread_mutex_unlock(&tier->lock);
    return HERALD_STATUS_OK;
}

static uint32_t flush(HeraldTier *tier, HeraldError *error) {
    pthread_mutex_lock(&tier->lock);
    uint32_t status = write_file(tier, error);
    pthread_mutex_unlock(&tier->lock);
    return status;
}

static const uint32_t KINDS[] = {HERALD_TIER_ACTIVE, HERALD_TIER_ARCHIVED};

static const HeraldTierTable TIERS = {
    .struct_size = sizeof TIERS, .kinds = KINDS, .n_kinds = 2, .create = create, .put = put, .get = get, .view = view,
    .commit = commit, .drop = drop, .destroy = destroy, .stats = stats, .list = list, .flush = flush,
};

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware, (void)error;
    out->score = 10;
    return HERALD_STATUS_OK;
}

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof PLUGIN,
    .abi_version = HERALD_ABI_VERSION,
    .name = "tiers",
    .name_len = 5,
    .version = "1",
    .version_len = 1,
    .probe = probe,
    .tiers = &TIERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
