#include "pages.h"

#include <float.h>
#include <math.h>

#include "f16.h"

/* A row of a page of 16-bit integers: keys or values of one head of one token. */
static void write_i16(void *part, size_t rows, size_t row, size_t dim, const float *from) {
    float *scale = (float *)part + row;
    int16_t *codes = (int16_t *)((float *)part + rows) + row * dim;
    float most = 0.0f, fault = 0.0f;
    for (size_t i = 0; i < dim; i++) {
        most = fmaxf(most, fabsf(from[i]));
        fault += 0.0f * from[i]; /* NaN, where an element is NaN or infinite */
    }
    *scale = most / 32767.0f + fault;
    for (size_t i = 0; i < dim; i++) codes[i] = *scale >= FLT_MIN ? (int16_t)lrintf(from[i] / *scale) : 0;
}

static void read_i16(const void *part, size_t rows, size_t row, size_t dim, float *to) {
    float scale = ((const float *)part)[row];
    const int16_t *codes = (const int16_t *)((const float *)part + rows) + row * dim;
    for (size_t i = 0; i < dim; i++) to[i] = scale * codes[i];
}

/* A row of a page of 4-bit codes. pair: the index of the first element's pair; each of them serves `every` elements. */
static void read_q4(const void *pairs, const uint8_t *codes, size_t pair, size_t every, size_t dim, float *to) {
    const uint16_t *pair_of = (const uint16_t *)pairs + 2 * pair;
    size_t half_dim = (dim + 1) / 2;
    for (size_t i = 0; i < dim; i++) {
        const uint16_t *p = pair_of + 2 * (i / every);
        int code = i < half_dim ? codes[i] & 15 : codes[i - half_dim] >> 4;
        to[i] = from_f16(p[1]) + from_f16(p[0]) * (float)code;
    }
}

static void read_q4_key(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, float *to) {
    size_t groups = (page->capacity + 63) / 64, width = (dim + 1) / 2;
    const uint8_t *codes = (const uint8_t *)page->keys + n_kv_heads * groups * dim * 4;
    size_t row = head * page->capacity + slot;
    read_q4(page->keys, codes + row * width, (head * groups + slot / 64) * dim, 1, dim, to);
}

static void read_q4_value(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, float *to) {
    size_t groups = (dim + 63) / 64, width = (dim + 1) / 2, rows = n_kv_heads * page->capacity;
    const uint8_t *codes = (const uint8_t *)page->values + rows * groups * 4;
    size_t row = head * page->capacity + slot;
    read_q4(page->values, codes + row * width, row * groups, 64, dim, to);
}

void write_key(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, const float *from) {
    write_i16(page->keys, n_kv_heads * page->capacity, head * page->capacity + slot, dim, from);
}

void write_value(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, const float *from) {
    write_i16(page->values, n_kv_heads * page->capacity, head * page->capacity + slot, dim, from);
}

void read_key(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, float *to) {
    if (page->format == HERALD_PAGE_Q4)
        read_q4_key(page, n_kv_heads, head, slot, dim, to);
    else
        read_i16(page->keys, n_kv_heads * page->capacity, head * page->capacity + slot, dim, to);
}

void read_value(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, float *to) {
    if (page->format == HERALD_PAGE_Q4)
        read_q4_value(page, n_kv_heads, head, slot, dim, to);
    else
        read_i16(page->values, n_kv_heads * page->capacity, head * page->capacity + slot, dim, to);
}
