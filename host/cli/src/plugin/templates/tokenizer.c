/*
 * @NAME@: a HERALD plugin that offers a tokenizer, for vocabularies whose model (tokenizer.ggml.model in a GGUF file) is
 * "longest-match": the longest token that the rest of the text begins with, again and again.
 *
 * To grow it: answer another model in `create`, or split the text before `encode` looks for tokens. HERALD's docs/PLUGINS.md has the
 * rules.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "herald_plugin.h"

/* Whether the host's struct is long enough to have the field: an older host's may end before it. */
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

static const char MODEL[] = "longest-match";

typedef struct Token {
    const unsigned char *bytes;
    size_t length;
    uint32_t id, type;
} Token;

/* What HeraldTokenizer is, is the plugin's own affair. */
struct HeraldTokenizer {
    unsigned char *bytes; /* a copy of all tokens' bytes */
    Token *tokens;        /* [n_tokens], by id */
    Token *sorted;        /* [n_tokens], by bytes, then by id */
    size_t n_tokens, longest, longest_special;
    uint32_t unknown;
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

static int compare_bytes(const Token *a, const Token *b) {
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = shorter > 0 ? memcmp(a->bytes, b->bytes, shorter) : 0;
    return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

static int compare(const void *left, const void *right) {
    const Token *a = left, *b = right;
    int order = compare_bytes(a, b);
    return order != 0 ? order : (a->id > b->id) - (a->id < b->id);
}

static int hex_digit(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A token of type HERALD_TOKEN_BYTE is spelt <0x0A>: makes it that byte. False if it is spelt otherwise. */
static int read_byte(unsigned char *bytes, size_t *length) {
    int high = *length == 6 ? hex_digit(bytes[3]) : -1, low = *length == 6 ? hex_digit(bytes[4]) : -1;
    if (high < 0 || low < 0 || memcmp(bytes, "<0x", 3) != 0 || bytes[5] != '>') return 0;
    bytes[0] = (unsigned char)(high * 16 + low);
    *length = 1;
    return 1;
}

static void destroy(HeraldTokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    free(tokenizer->bytes);
    free(tokenizer->tokens);
    free(tokenizer->sorted);
    free(tokenizer);
}

/* Fills a new tokenizer, which the caller destroys if this fails. */
static uint32_t fill(HeraldTokenizer *made, const HeraldVocabulary *v, HeraldError *error) {
    size_t n = v->n_tokens, n_bytes = (size_t)v->token_offsets[n];
    made->bytes = malloc(n_bytes > 0 ? n_bytes : 1);
    made->tokens = calloc(n, sizeof *made->tokens);
    made->sorted = calloc(n, sizeof *made->sorted);
    if (made->bytes == NULL || made->tokens == NULL || made->sorted == NULL)
        return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for %zu tokens", n);
    if (n_bytes > 0) memcpy(made->bytes, v->token_bytes, n_bytes);
    made->n_tokens = n;
    made->unknown = v->unknown;
    for (size_t i = 0; i < n; i++) {
        if (v->token_offsets[i] > v->token_offsets[i + 1] || v->token_offsets[i + 1] > n_bytes)
            return fail(error, HERALD_STATUS_CORRUPT, "token %zu ends before it begins", i);
        Token *token = &made->tokens[i];
        unsigned char *bytes = made->bytes + v->token_offsets[i];
        token->bytes = bytes;
        token->length = (size_t)(v->token_offsets[i + 1] - v->token_offsets[i]);
        token->id = (uint32_t)i;
        token->type = v->token_types != NULL ? v->token_types[i] : HERALD_TOKEN_NORMAL;
        if (token->type == HERALD_TOKEN_BYTE && !read_byte(bytes, &token->length))
            return fail(error, HERALD_STATUS_CORRUPT, "token %zu is a byte, but is not spelt <0x00> to <0xFF>", i);
        if (token->type != HERALD_TOKEN_UNKNOWN && token->type != HERALD_TOKEN_UNUSED && token->length > made->longest)
            made->longest = token->length;
        if (token->type == HERALD_TOKEN_CONTROL && token->length > made->longest_special) made->longest_special = token->length;
    }
    memcpy(made->sorted, made->tokens, n * sizeof *made->sorted);
    qsort(made->sorted, n, sizeof *made->sorted, compare);
    return HERALD_STATUS_OK;
}

static uint32_t create(const HeraldVocabulary *v, HeraldTokenizer **out, HeraldError *error) {
    if (v == NULL || !COVERS(v, HeraldVocabulary, flags))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the vocabulary is missing or too short");
    /* Never guess: the host asks the next plugin. */
    if (v->model_len != sizeof MODEL - 1 || memcmp(v->model, MODEL, sizeof MODEL - 1) != 0 || v->pre_len != 0 || v->flags != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only the tokenizer model %s without a pre-tokenizer is offered", MODEL);
    if (v->n_tokens == 0 || v->n_tokens >= HERALD_NO_TOKEN || v->token_offsets == NULL)
        return fail(error, HERALD_STATUS_CORRUPT, "the vocabulary has %zu tokens", v->n_tokens);
    if (v->unknown != HERALD_NO_TOKEN && v->unknown >= v->n_tokens)
        return fail(error, HERALD_STATUS_CORRUPT, "the unknown token is %u of %zu", (unsigned)v->unknown, v->n_tokens);
    HeraldTokenizer *made = calloc(1, sizeof *made);
    if (made == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a tokenizer");
    uint32_t status = fill(made, v, error);
    if (status != HERALD_STATUS_OK) {
        destroy(made);
        return status;
    }
    *out = made;
    return HERALD_STATUS_OK;
}

/* The first of the tokens with these bytes that text may spell, or null; a control token, where text may spell those. */
static const Token *find(const HeraldTokenizer *tokenizer, const unsigned char *bytes, size_t length, int special) {
    const Token wanted = {bytes, length, 0, 0};
    size_t low = 0, high = tokenizer->n_tokens;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_bytes(&tokenizer->sorted[middle], &wanted) < 0) low = middle + 1;
        else high = middle;
    }
    const Token *plain = NULL;
    for (; low < tokenizer->n_tokens && compare_bytes(&tokenizer->sorted[low], &wanted) == 0; low++) {
        uint32_t type = tokenizer->sorted[low].type;
        if (type == HERALD_TOKEN_CONTROL && special) return &tokenizer->sorted[low];
        if (type != HERALD_TOKEN_CONTROL && type != HERALD_TOKEN_UNKNOWN && type != HERALD_TOKEN_UNUSED && plain == NULL)
            plain = &tokenizer->sorted[low];
    }
    return plain;
}

/* How far a token may reach: not into a control token, where text may spell those. */
static size_t reach(const HeraldTokenizer *tokenizer, const unsigned char *rest, size_t left, int special) {
    size_t most = left < tokenizer->longest ? left : tokenizer->longest;
    for (size_t at = 1; special && at < most; at++)
        for (size_t length = 1; length <= tokenizer->longest_special && length <= left - at; length++) {
            const Token *token = find(tokenizer, rest + at, length, 1);
            if (token != NULL && token->type == HERALD_TOKEN_CONTROL) return at;
        }
    return most;
}

static uint32_t encode(const HeraldTokenizer *tokenizer, const char *text, size_t text_len, uint32_t flags, uint32_t *ids,
                       size_t capacity, size_t *n_ids, HeraldError *error) {
    if ((flags & ~(uint32_t)(HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES)) != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "the flags 0x%x are not known", (unsigned)flags);
    const unsigned char *rest = (const unsigned char *)text, *end = text_len > 0 ? rest + text_len : rest;
    size_t n = 0;
    while (rest < end) {
        const Token *token = NULL;
        int special = (flags & HERALD_TEXT_SPECIAL) != 0;
        size_t left = (size_t)(end - rest), length = reach(tokenizer, rest, left, special);
        for (; token == NULL && length > 0; length--) token = find(tokenizer, rest, length, special);
        uint32_t id = token != NULL ? token->id : tokenizer->unknown;
        if (id == HERALD_NO_TOKEN)
            return fail(error, HERALD_STATUS_UNSUPPORTED, "no token begins with byte 0x%02X at %zu", (unsigned)*rest,
                        text_len - left);
        if (n < capacity) ids[n] = id;
        n++; /* those that there is no room for are counted all the same */
        if (token != NULL) {
            rest += token->length;
        } else { /* a whole character of UTF-8 */
            do rest++;
            while (rest < end && (*rest & 0xC0) == 0x80);
        }
    }
    *n_ids = n;
    if (n > capacity) return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "%zu ids need more room than for %zu", n, capacity);
    return HERALD_STATUS_OK;
}

static uint32_t decode(const HeraldTokenizer *tokenizer, const uint32_t *ids, size_t n_ids, uint32_t flags, uint8_t *bytes,
                       size_t capacity, size_t *n_bytes, HeraldError *error) {
    if ((flags & ~(uint32_t)(HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES)) != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "the flags 0x%x are not known", (unsigned)flags);
    size_t n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] >= tokenizer->n_tokens)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "token %u is outside a vocabulary of %zu", (unsigned)ids[i],
                        tokenizer->n_tokens);
        const Token *token = &tokenizer->tokens[ids[i]];
        if (token->type == HERALD_TOKEN_CONTROL && (flags & HERALD_TEXT_SPECIAL) == 0) continue;
        if (token->length > 0 && n + token->length <= capacity) memcpy(bytes + n, token->bytes, token->length);
        n += token->length;
    }
    *n_bytes = n;
    if (n > capacity) return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "%zu bytes need more room than for %zu", n, capacity);
    return HERALD_STATUS_OK;
}

/* ---- What the plugin says of itself. ---- */

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware;
    (void)error;
    out->score = 50; /* below the plugin cpu, which is asked first and knows no such model */
    memcpy(out->variant, "plain", sizeof "plain");
    return HERALD_STATUS_OK;
}

static const HeraldTokenizerTable TOKENIZERS = {
    .struct_size = sizeof(HeraldTokenizerTable),
    .create = create,
    .encode = encode,
    .decode = decode,
    .destroy = destroy,
};

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof(HeraldPlugin),
    .abi_version = HERALD_ABI_VERSION,
    .name = "@NAME@",
    .name_len = sizeof "@NAME@" - 1,
    .version = "0.1.0",
    .version_len = sizeof "0.1.0" - 1,
    .probe = probe,
    .tokenizers = &TOKENIZERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
