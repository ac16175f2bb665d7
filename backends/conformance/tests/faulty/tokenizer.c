/*
 * A tokenizer that makes a token of each byte, with the fault that a macro names; with none of them it is sound. Its model is
 * "single-bytes": control tokens, and others that the vocabulary may have, are known, but text becomes bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <herald_plugin.h>

#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

struct HeraldTokenizer {
    uint8_t *bytes;
    uint64_t *offsets; /* [n + 1] */
    uint32_t *types;
    size_t n;
    uint32_t of_byte[256];
};

static uint32_t fail(HeraldError *error, uint32_t status, const char *sentence) {
    if (error != NULL && COVERS(error, HeraldError, message))
        snprintf(error->message, sizeof error->message, "%s", sentence);
    return status;
}

static void destroy(HeraldTokenizer *made) {
    if (made == NULL) return;
#ifndef LEAKS
    free(made->bytes);
#endif
#ifndef KEEPS_VOCABULARY
    free(made->offsets);
#endif
    free(made->types);
    free(made);
}

static int digit(uint8_t c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

static void *copy(const void *from, size_t bytes) {
    void *to = malloc(bytes > 0 ? bytes : 1);
    if (to != NULL && bytes > 0) memcpy(to, from, bytes);
    return to;
}

/* Copies the vocabulary and finds the token of each byte. */
static uint32_t fill(HeraldTokenizer *made, const HeraldVocabulary *v, HeraldError *error) {
    for (size_t i = 0; i < v->n_tokens; i++)
        if (v->token_offsets[i] > v->token_offsets[i + 1])
            return fail(error, HERALD_STATUS_CORRUPT, "a token ends before it begins");
    made->n = v->n_tokens;
    made->bytes = copy(v->token_bytes, v->token_offsets[v->n_tokens]);
    made->types = copy(v->token_types, v->n_tokens * sizeof *made->types);
#ifdef KEEPS_VOCABULARY
    made->offsets = (uint64_t *)v->token_offsets;
#else
    made->offsets = copy(v->token_offsets, (v->n_tokens + 1) * sizeof *made->offsets);
#endif
    if (made->bytes == NULL || made->types == NULL || made->offsets == NULL)
        return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a vocabulary");
    int found = 0;
    for (size_t i = 0; i < made->n; i++) {
        const uint8_t *token = made->bytes + made->offsets[i];
        if (made->types[i] != HERALD_TOKEN_BYTE) continue;
        if (made->offsets[i + 1] - made->offsets[i] != 6 || digit(token[3]) < 0 || digit(token[4]) < 0)
            return fail(error, HERALD_STATUS_CORRUPT, "a byte is not spelt <0x00> to <0xFF>");
        made->of_byte[digit(token[3]) * 16 + digit(token[4])] = (uint32_t)i;
        found++;
    }
    if (found != 256) return fail(error, HERALD_STATUS_CORRUPT, "the vocabulary lacks bytes");
    return HERALD_STATUS_OK;
}

static uint32_t create(const HeraldVocabulary *v, HeraldTokenizer **out, HeraldError *error) {
    static const char model[] = "single-bytes";
    if (v == NULL || !COVERS(v, HeraldVocabulary, flags))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "the vocabulary ends early");
    if (v->model_len != sizeof model - 1 || memcmp(v->model, model, sizeof model - 1) != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "only the model \"single-bytes\" is offered");
    if (v->pre_len != 0 || v->flags != 0)
        return fail(error, HERALD_STATUS_UNSUPPORTED, "no pre-tokenizers or flags are offered");
    if (v->n_tokens == 0 || v->token_types == NULL)
        return fail(error, HERALD_STATUS_CORRUPT, "the vocabulary has no tokens or no types");
#ifndef TAKES_CONTRADICTION
    if (v->unknown != HERALD_NO_TOKEN && v->unknown >= v->n_tokens)
        return fail(error, HERALD_STATUS_CORRUPT, "the unknown token is outside the vocabulary");
#endif
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

/* The control token that the text begins with, or n. */
static size_t control(const HeraldTokenizer *made, const uint8_t *text, size_t len) {
    for (size_t i = 0; i < made->n; i++) {
        size_t bytes = (size_t)(made->offsets[i + 1] - made->offsets[i]);
        if (made->types[i] == HERALD_TOKEN_CONTROL && bytes > 0 && bytes <= len &&
            memcmp(text, made->bytes + made->offsets[i], bytes) == 0)
            return i;
    }
    return made->n;
}

static const uint32_t FLAGS = HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES;

static uint32_t encode(const HeraldTokenizer *made, const char *text, size_t len, uint32_t flags, uint32_t *ids,
                       size_t capacity, size_t *n_ids, HeraldError *error) {
    if ((flags & ~FLAGS) != 0) return fail(error, HERALD_STATUS_UNSUPPORTED, "a flag is unknown");
    const uint8_t *bytes = (const uint8_t *)text;
    size_t n = 0;
#ifdef READS_PAST
    if (len > 0 && bytes[len] == 0) n = 0;
#endif
    for (size_t at = 0; at < len; n++) {
        size_t special = (flags & HERALD_TEXT_SPECIAL) != 0 ? control(made, bytes + at, len - at) : made->n;
        uint32_t id = special < made->n ? (uint32_t)special : made->of_byte[bytes[at]];
        at += special < made->n ? (size_t)(made->offsets[special + 1] - made->offsets[special]) : 1;
#ifdef ID_OUT_OF_RANGE
        if (bytes[at - 1] == 'q') id = (uint32_t)made->n;
#endif
#ifdef QUADRATIC /* looks at all that came before */
        volatile unsigned seen = 0;
        for (size_t i = 0; i < at; i++) seen += bytes[i];
#endif
#ifdef IGNORES_ROOM
        ids[n < capacity + 8 ? n : 0] = id;
#else
        if (n < capacity) ids[n] = id;
#endif
    }
    *n_ids = n;
    if (n > capacity) return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "the ids have no room");
#ifdef COUNT_LIES
    if (n > 0 && n < capacity) *n_ids = n + 1;
#endif
    return HERALD_STATUS_OK;
}

static uint32_t decode(const HeraldTokenizer *made, const uint32_t *ids, size_t n_ids, uint32_t flags, uint8_t *bytes,
                       size_t capacity, size_t *n_bytes, HeraldError *error) {
    if ((flags & ~FLAGS) != 0) return fail(error, HERALD_STATUS_UNSUPPORTED, "a flag is unknown");
    size_t n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] >= made->n) return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "an id is outside the vocabulary");
        const uint8_t *token = made->bytes + made->offsets[ids[i]];
        size_t len = (size_t)(made->offsets[ids[i] + 1] - made->offsets[ids[i]]);
        uint8_t byte;
        if (made->types[ids[i]] == HERALD_TOKEN_BYTE) {
            byte = (uint8_t)(digit(token[3]) * 16 + digit(token[4]));
#ifdef WRONG_DECODE
            if (byte == 'e') byte = 'a';
#endif
            token = &byte;
            len = 1;
        }
        if (made->types[ids[i]] == HERALD_TOKEN_CONTROL && (flags & HERALD_TEXT_SPECIAL) == 0) continue;
        if (n <= capacity && len <= capacity - n) memcpy(bytes + n, token, len);
        n += len;
    }
    *n_bytes = n;
    if (n > capacity) return fail(error, HERALD_STATUS_BUFFER_TOO_SMALL, "the bytes have no room");
    return HERALD_STATUS_OK;
}

static const HeraldTokenizerTable TOKENIZERS = {
    .struct_size = sizeof TOKENIZERS, .create = create, .encode = encode, .decode = decode, .destroy = destroy,
};

static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
    (void)hardware, (void)error;
    out->score = 10;
    return HERALD_STATUS_OK;
}

static const HeraldPlugin PLUGIN = {
    .struct_size = sizeof PLUGIN,
    .abi_version = HERALD_ABI_VERSION,
    .name = "tokenizer",
    .name_len = 9,
    .version = "1",
    .version_len = 1,
    .probe = probe,
    .tokenizers = &TOKENIZERS,
};

HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) { return &PLUGIN; }
