// @NAME@: a HERALD plugin that offers a memory tier: the active one, pages in RAM as attention writes them.
//
// To grow it: take pages from an arena instead of the heap, bind them to the node of the processor that reads them, or offer the
// compressed or the archived tier in KINDS, whose pages are 4-bit codes. HERALD's docs/PLUGINS.md has the rules.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>

#include "herald_plugin.h"

// Whether the host's struct is long enough to have the field: an older host's may end before it.
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

namespace {

// Keys and values each begin at a multiple of this.
constexpr std::size_t ALIGN = 64;

struct Free {
    void operator()(unsigned char *bytes) const { std::free(bytes); }
};

// A page: keys, then values. Its bytes stay where they are until it is dropped.
struct Kept {
    std::unique_ptr<unsigned char, Free> bytes;
    std::uint32_t n_tokens = 0;
};

// A status and one sentence: what, where, what was expected.
struct Failure {
    std::uint32_t status;
    std::string sentence;
};

} // namespace

// What HeraldTier is, is the plugin's own affair.
struct HeraldTier {
    std::uint32_t page_tokens = 0;
    std::size_t key_bytes = 0, value_start = 0, value_bytes = 0;
    std::uint64_t capacity = 0;
    std::mutex mutex; // calls come from any thread, many at once
    std::unordered_map<std::uint64_t, Kept> pages;
    std::uint64_t hits = 0, misses = 0;

    std::size_t page_bytes() const { return value_start + value_bytes; }

    // A page of this id; with `count` it is one that get or view asked for.
    Kept &find(std::uint64_t id, bool count) {
        const auto found = pages.find(id);
        if (count) found != pages.end() ? hits++ : misses++;
        if (found == pages.end())
            throw Failure{HERALD_STATUS_NOT_FOUND, "the memory tier holds no page " + std::to_string(id)};
        return found->second;
    }
};

namespace {

// Calls `body`, and turns what it throws into a status: no exception may leave the plugin.
template <class Body> std::uint32_t guarded(HeraldError *error, const Body &body) noexcept {
    const auto fail = [error](std::uint32_t status, const char *sentence) {
        if (error != nullptr && COVERS(error, HeraldError, message))
            std::snprintf(error->message, sizeof error->message, "%s", sentence);
        return status;
    };
    try {
        body();
        return HERALD_STATUS_OK;
    } catch (const Failure &failure) {
        return fail(failure.status, failure.sentence.c_str());
    } catch (const std::bad_alloc &) {
        return fail(HERALD_STATUS_OUT_OF_MEMORY, "there is no memory left");
    } catch (const std::exception &exception) {
        return fail(HERALD_STATUS_INTERNAL, exception.what());
    } catch (...) {
        return fail(HERALD_STATUS_INTERNAL, "an unknown exception was thrown");
    }
}

std::size_t round_up(std::size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

// Bytes of a part of a HERALD_PAGE_I16: a float32 scale a row, then int16 codes.
std::size_t part_bytes(const HeraldTierConfig &config, std::uint32_t dim) {
    return std::size_t{config.n_kv_heads} * config.page_tokens * (sizeof(float) + std::size_t{dim} * sizeof(std::int16_t));
}

std::uint32_t create(const HeraldTierConfig *config, HeraldTier **out, HeraldError *error) {
    return guarded(error, [=] {
        if (config == nullptr || !COVERS(config, HeraldTierConfig, capacity_bytes))
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "the tier's configuration is missing or too short"};
        if (COVERS(config, HeraldTierConfig, flags) && (config->flags & ~std::uint64_t{HERALD_TIER_LZ4}) != 0)
            throw Failure{HERALD_STATUS_UNSUPPORTED, "the flags " + std::to_string(config->flags) + " are not known"};
        if (config->kind != HERALD_TIER_ACTIVE || config->state_bytes != 0)
            throw Failure{HERALD_STATUS_UNSUPPORTED, "only the active tier of keys and values is offered"};
        const std::uint32_t most = 1 << 16; // so that no size overflows
        if (config->n_kv_heads == 0 || config->key_dim == 0 || config->value_dim == 0 || config->page_tokens == 0 ||
            config->n_kv_heads > most || config->key_dim > most || config->value_dim > most || config->page_tokens > most ||
            std::uint64_t{config->n_kv_heads} * config->page_tokens > std::uint64_t{1} << 32)
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "a page has no sound shape"};
        auto tier = std::make_unique<HeraldTier>();
        tier->page_tokens = config->page_tokens;
        tier->key_bytes = part_bytes(*config, config->key_dim);
        tier->value_bytes = part_bytes(*config, config->value_dim);
        tier->value_start = round_up(tier->key_bytes);
        tier->capacity = config->capacity_bytes;
        *out = tier.release();
    });
}

void destroy(HeraldTier *tier) { delete tier; }

std::uint32_t put(HeraldTier *tier, std::uint64_t id, const HeraldPage *page, HeraldError *error) {
    return guarded(error, [=] {
        if (page != nullptr && (!COVERS(page, HeraldPage, value_bytes) || page->format != HERALD_PAGE_I16 ||
                                page->keys == nullptr || page->values == nullptr || page->key_bytes != tier->key_bytes ||
                                page->value_bytes != tier->value_bytes || page->n_tokens > tier->page_tokens))
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "page " + std::to_string(id) + " has another format or shape"};
        Kept kept;
        const std::size_t bytes = round_up(tier->page_bytes());
        kept.bytes.reset(static_cast<unsigned char *>(std::aligned_alloc(ALIGN, bytes)));
        if (kept.bytes == nullptr) throw std::bad_alloc();
        std::memset(kept.bytes.get(), 0, bytes);
        if (page != nullptr) {
            std::memcpy(kept.bytes.get(), page->keys, tier->key_bytes);
            std::memcpy(kept.bytes.get() + tier->value_start, page->values, tier->value_bytes);
            kept.n_tokens = page->n_tokens;
        }
        const std::lock_guard<std::mutex> lock(tier->mutex);
        if (tier->pages.count(id) != 0)
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "there is a page " + std::to_string(id) + " already"};
        if (tier->capacity != 0 && (tier->pages.size() + 1) * tier->page_bytes() > tier->capacity)
            throw Failure{HERALD_STATUS_OUT_OF_MEMORY, "the memory tier is full"};
        tier->pages.emplace(id, std::move(kept));
    });
}

std::uint32_t get(HeraldTier *tier, std::uint64_t id, HeraldPage *into, HeraldError *error) {
    return guarded(error, [=] {
        const std::lock_guard<std::mutex> lock(tier->mutex);
        const Kept &page = tier->find(id, true);
        if (into->key_bytes < tier->key_bytes || into->value_bytes < tier->value_bytes)
            throw Failure{HERALD_STATUS_BUFFER_TOO_SMALL, "the buffers for page " + std::to_string(id) + " are too small"};
        std::memcpy(into->keys, page.bytes.get(), tier->key_bytes);
        std::memcpy(into->values, page.bytes.get() + tier->value_start, tier->value_bytes);
        into->n_tokens = page.n_tokens;
    });
}

std::uint32_t view(HeraldTier *tier, std::uint64_t id, HeraldPage *page, HeraldError *error) {
    return guarded(error, [=] {
        const std::lock_guard<std::mutex> lock(tier->mutex);
        const Kept &kept = tier->find(id, true);
        page->n_tokens = kept.n_tokens;
        page->capacity = tier->page_tokens;
        page->format = HERALD_PAGE_I16;
        page->keys = kept.bytes.get();
        page->values = kept.bytes.get() + tier->value_start;
        page->key_bytes = tier->key_bytes;
        page->value_bytes = tier->value_bytes;
    });
}

std::uint32_t commit(HeraldTier *tier, std::uint64_t id, std::uint32_t n_tokens, HeraldError *error) {
    return guarded(error, [=] {
        const std::lock_guard<std::mutex> lock(tier->mutex);
        if (n_tokens > tier->page_tokens)
            throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "page " + std::to_string(id) + " has no room for so many tokens"};
        tier->find(id, false).n_tokens = n_tokens;
    });
}

std::uint32_t drop(HeraldTier *tier, std::uint64_t id, HeraldError *error) {
    return guarded(error, [=] {
        const std::lock_guard<std::mutex> lock(tier->mutex);
        tier->find(id, false);
        tier->pages.erase(id);
    });
}

std::uint32_t stats(HeraldTier *tier, HeraldTierStats *out, HeraldError *) {
    const std::lock_guard<std::mutex> lock(tier->mutex);
    out->pages = tier->pages.size();
    out->tokens = 0;
    for (const auto &page : tier->pages) out->tokens += page.second.n_tokens;
    out->bytes = tier->pages.size() * tier->page_bytes();
    if (COVERS(out, HeraldTierStats, misses)) {
        out->hits = tier->hits;
        out->misses = tier->misses;
    }
    if (COVERS(out, HeraldTierStats, memory_bytes)) out->memory_bytes = out->bytes;
    return HERALD_STATUS_OK;
}

// ---- What the plugin says of itself. ----

std::uint32_t probe(const HeraldHardware *, HeraldProbe *out, HeraldError *) {
    out->score = 50; // below the plugin cpu: this is used only with --backend @NAME@
    std::memcpy(out->variant, "plain", sizeof "plain");
    return HERALD_STATUS_OK;
}

const std::uint32_t KINDS[] = {HERALD_TIER_ACTIVE};

const HeraldTierTable TIERS = [] {
    HeraldTierTable table{}; // what isn't set is null: not offered
    table.struct_size = sizeof table;
    table.kinds = KINDS;
    table.n_kinds = 1;
    table.create = create;
    table.put = put;
    table.get = get;
    table.view = view;
    table.commit = commit;
    table.drop = drop;
    table.destroy = destroy;
    table.stats = stats;
    return table;
}();

const HeraldPlugin PLUGIN = [] {
    HeraldPlugin plugin{};
    plugin.struct_size = sizeof plugin;
    plugin.abi_version = HERALD_ABI_VERSION;
    plugin.name = "@NAME@";
    plugin.name_len = sizeof "@NAME@" - 1;
    plugin.version = "0.1.0";
    plugin.version_len = sizeof "0.1.0" - 1;
    plugin.probe = probe;
    plugin.tiers = &TIERS;
    return plugin;
}();

} // namespace

const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
