// @NAME@: a HERALD plugin that offers a tokenizer, for vocabularies whose model (tokenizer.ggml.model in a GGUF file) is
// "longest-match": the longest token that the rest of the text begins with, again and again.
//
// To grow it: answer another model in `read`, or split the text before `encode` looks for tokens. HERALD's docs/PLUGINS.md has the
// rules.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "herald_plugin.h"

// Whether the host's struct is long enough to have the field: an older host's may end before it.
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

namespace {

const std::string MODEL = "longest-match";

// A status and one sentence: what, where, what was expected.
struct Failure {
    std::uint32_t status;
    std::string sentence;
};

struct Token {
    std::string bytes;
    std::uint32_t type = HERALD_TOKEN_NORMAL;
};

} // namespace

// What HeraldTokenizer is, is the plugin's own affair.
struct HeraldTokenizer {
    std::vector<Token> tokens;
    std::unordered_map<std::string, std::uint32_t> plain, special; // tokens that text may always spell, and control tokens
    std::size_t longest = 0, longest_special = 0;
    std::uint32_t unknown = HERALD_NO_TOKEN;

    // The token with these bytes that text may spell, or HERALD_NO_TOKEN.
    std::uint32_t find(const std::string &bytes, bool may_be_special) const {
        const auto control = special.find(bytes);
        if (may_be_special && control != special.end()) return control->second;
        const auto found = plain.find(bytes);
        return found != plain.end() ? found->second : HERALD_NO_TOKEN;
    }

    // How far a token may reach: not into a control token, where text may spell those.
    std::size_t reach(const char *rest, std::size_t left, bool may_be_special) const {
        const std::size_t most = std::min(longest, left);
        for (std::size_t at = 1; may_be_special && at < most; at++)
            for (std::size_t length = 1; length <= std::min(longest_special, left - at); length++)
                if (special.count(std::string(rest + at, length)) != 0) return at;
        return most;
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

// A token of type HERALD_TOKEN_BYTE is spelt <0x0A>: the byte.
std::string byte_of(const std::string &spelt) {
    static const std::string digits = "0123456789ABCDEF";
    const auto digit = [&](std::size_t at) { return spelt.size() == 6 ? digits.find(spelt[at]) : std::string::npos; };
    if (digit(3) == std::string::npos || digit(4) == std::string::npos || spelt.compare(0, 3, "<0x") != 0 || spelt[5] != '>')
        throw Failure{HERALD_STATUS_CORRUPT, "a token is a byte, but is not spelt <0x00> to <0xFF>"};
    return std::string(1, static_cast<char>(digit(3) * 16 + digit(4)));
}

// Flags that a later header has ask for something that would not be done.
void check_flags(std::uint32_t flags) {
    if ((flags & ~std::uint32_t{HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES}) != 0)
        throw Failure{HERALD_STATUS_UNSUPPORTED, "the flags " + std::to_string(flags) + " are not known"};
}

// What the vocabulary's words for its kind are, which need not be there.
std::string text(const char *from, std::size_t length) { return length > 0 ? std::string(from, length) : std::string(); }

std::unique_ptr<HeraldTokenizer> read(const HeraldVocabulary *v) {
    if (v == nullptr || !COVERS(v, HeraldVocabulary, flags))
        throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "the vocabulary is missing or too short"};
    // Never guess: the host asks the next plugin.
    if (text(v->model, v->model_len) != MODEL || v->pre_len != 0 || v->flags != 0)
        throw Failure{HERALD_STATUS_UNSUPPORTED, "only the tokenizer model " + MODEL + " without a pre-tokenizer is offered"};
    if (v->n_tokens == 0 || v->n_tokens >= HERALD_NO_TOKEN || v->token_offsets == nullptr)
        throw Failure{HERALD_STATUS_CORRUPT, "the vocabulary has " + std::to_string(v->n_tokens) + " tokens"};
    if (v->unknown != HERALD_NO_TOKEN && v->unknown >= v->n_tokens)
        throw Failure{HERALD_STATUS_CORRUPT, "the unknown token is " + std::to_string(v->unknown)};
    auto made = std::make_unique<HeraldTokenizer>();
    made->tokens.resize(v->n_tokens);
    made->unknown = v->unknown;
    for (std::size_t i = 0; i < v->n_tokens; i++) {
        const std::uint64_t begin = v->token_offsets[i], end = v->token_offsets[i + 1];
        if (begin > end) throw Failure{HERALD_STATUS_CORRUPT, "token " + std::to_string(i) + " ends before it begins"};
        Token &token = made->tokens[i];
        if (begin < end) token.bytes.assign(reinterpret_cast<const char *>(v->token_bytes) + begin, end - begin);
        if (v->token_types != nullptr) token.type = v->token_types[i];
        if (token.type == HERALD_TOKEN_BYTE) token.bytes = byte_of(token.bytes);
        if (token.type == HERALD_TOKEN_UNKNOWN || token.type == HERALD_TOKEN_UNUSED) continue;
        auto &map = token.type == HERALD_TOKEN_CONTROL ? made->special : made->plain;
        map.emplace(token.bytes, static_cast<std::uint32_t>(i)); // of tokens with the same bytes the first
        made->longest = std::max(made->longest, token.bytes.size());
        if (token.type == HERALD_TOKEN_CONTROL) made->longest_special = std::max(made->longest_special, token.bytes.size());
    }
    return made;
}

std::uint32_t create(const HeraldVocabulary *vocabulary, HeraldTokenizer **out, HeraldError *error) {
    return guarded(error, [=] { *out = read(vocabulary).release(); });
}

void destroy(HeraldTokenizer *tokenizer) { delete tokenizer; }

std::uint32_t encode(const HeraldTokenizer *tokenizer, const char *text, std::size_t text_len, std::uint32_t flags,
                     std::uint32_t *ids, std::size_t capacity, std::size_t *n_ids, HeraldError *error) {
    return guarded(error, [=] {
        check_flags(flags);
        std::size_t at = 0, n = 0;
        while (at < text_len) {
            std::uint32_t id = HERALD_NO_TOKEN;
            const bool special = (flags & HERALD_TEXT_SPECIAL) != 0;
            std::size_t length = tokenizer->reach(text + at, text_len - at, special);
            for (; length > 0; length--) {
                id = tokenizer->find(std::string(text + at, length), special);
                if (id != HERALD_NO_TOKEN) break;
            }
            if (id == HERALD_NO_TOKEN) { // a whole character of UTF-8
                id = tokenizer->unknown;
                for (length = 1; at + length < text_len && (text[at + length] & 0xC0) == 0x80;) length++;
            }
            if (id == HERALD_NO_TOKEN)
                throw Failure{HERALD_STATUS_UNSUPPORTED, "no token begins with the byte at " + std::to_string(at)};
            if (n < capacity) ids[n] = id;
            n++; // those that there is no room for are counted all the same
            at += length;
        }
        *n_ids = n;
        if (n > capacity) throw Failure{HERALD_STATUS_BUFFER_TOO_SMALL, std::to_string(n) + " ids need more room"};
    });
}

std::uint32_t decode(const HeraldTokenizer *tokenizer, const std::uint32_t *ids, std::size_t n_ids, std::uint32_t flags,
                     std::uint8_t *bytes, std::size_t capacity, std::size_t *n_bytes, HeraldError *error) {
    return guarded(error, [=] {
        check_flags(flags);
        std::size_t n = 0;
        for (std::size_t i = 0; i < n_ids; i++) {
            if (ids[i] >= tokenizer->tokens.size())
                throw Failure{HERALD_STATUS_INVALID_ARGUMENT, "token " + std::to_string(ids[i]) + " is outside the vocabulary"};
            const Token &token = tokenizer->tokens[ids[i]];
            if (token.type == HERALD_TOKEN_CONTROL && (flags & HERALD_TEXT_SPECIAL) == 0) continue;
            const std::size_t length = token.bytes.size();
            if (length > 0 && n + length <= capacity) std::memcpy(bytes + n, token.bytes.data(), length);
            n += length;
        }
        *n_bytes = n;
        if (n > capacity) throw Failure{HERALD_STATUS_BUFFER_TOO_SMALL, std::to_string(n) + " bytes need more room"};
    });
}

// ---- What the plugin says of itself. ----

std::uint32_t probe(const HeraldHardware *, HeraldProbe *out, HeraldError *) {
    out->score = 50; // below the plugin cpu, which is asked first and knows no such model
    std::memcpy(out->variant, "plain", sizeof "plain");
    return HERALD_STATUS_OK;
}

const HeraldTokenizerTable TOKENIZERS = [] {
    HeraldTokenizerTable table{};
    table.struct_size = sizeof table;
    table.create = create;
    table.encode = encode;
    table.decode = decode;
    table.destroy = destroy;
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
    plugin.tokenizers = &TOKENIZERS;
    return plugin;
}();

} // namespace

const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
