/* Page selection: which older pages are worth attending to. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t summary_floats(const HeraldLayer *layer) { return layer->n_kv_heads * 2 * layer->key_dim; }

uint64_t position_shift(const HeraldSequence *s, uint64_t start) {
    uint64_t limit = COVERS(s, HeraldSequence, max_distance) ? s->max_distance : 0;
    uint64_t distance = s->past + s->n_tokens - start;
    return limit != 0 && distance > limit ? distance - limit : 0;
}

static size_t n_selectable(const HeraldSequence *s) { return COVERS(s, HeraldSequence, n_selectable) ? s->n_selectable : 0; }

/* A summary: for each KV head the least elements [key_dim], then the greatest, of keys turned back as if the page began at 0. */
uint32_t layer_summarise(const HeraldLayer *layer, const HeraldPage *page, void *summary, HeraldError *error) {
    if (page == NULL || !COVERS(page, HeraldPage, value_bytes) || page->format != HERALD_PAGE_I16 || summary == NULL)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a page that is to be summarised is no page of 16-bit integers");
    float *work = calloc(layer->key_dim + 2 * layer->pairs + 1, sizeof *work); /* this is no forward call */
    if (work == NULL) return fail(error, HERALD_STATUS_OUT_OF_MEMORY, "there is no memory for a summary");
    float *key = work, *rotation = work + layer->key_dim, *least = summary;
    make_rotation(layer, -(double)page->start, rotation);
    for (size_t head = 0; head < layer->n_kv_heads; head++, least += 2 * layer->key_dim) {
        float *greatest = least + layer->key_dim;
        for (size_t slot = 0; slot < page->n_tokens; slot++) {
            read_key(page, layer->n_kv_heads, head, slot, layer->key_dim, key);
            turn(layer, rotation, key);
            for (size_t i = 0; i < layer->key_dim; i++) {
                least[i] = slot == 0 ? key[i] : fminf(least[i], key[i]);
                greatest[i] = slot == 0 ? key[i] : fmaxf(greatest[i], key[i]);
            }
        }
    }
    free(work);
    return HERALD_STATUS_OK;
}

/* Mean queries of a sequence's tokens. */
static void make_means(Forward *f, const HeraldSequence *s) {
    size_t width = f->layer->query.rows, n = (size_t)s->n_tokens;
    f->n_means = (n + TOKENS_PER_MEAN - 1) / TOKENS_PER_MEAN;
    if (f->n_means > MAX_MEANS) f->n_means = MAX_MEANS;
    memset(f->b.means, 0, f->n_means * width * sizeof(float));
    for (size_t m = 0; m < f->n_means; m++) {
        size_t from = m * n / f->n_means, to = (m + 1) * n / f->n_means;
        for (size_t t = from; t < to; t++)
            for (size_t i = 0; i < width; i++)
                f->b.means[m * width + i] += f->b.q[((size_t)s->first + t) * width + i] / (float)(to - from);
    }
}

/* Items are selectable pages: for each mean query and head, scale times what no key of the page has a greater product than. */
static void bound_pages(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    const HeraldLayer *layer = f->layer;
    const HeraldSequence *s = f->scored;
    size_t dim = layer->key_dim;
    float *rotation = of_worker(f, worker), *query = rotation + (2 * layer->pairs + 15) / 16 * 16;
    for (uint64_t page = begin; page < end; page++) {
        uint64_t start = s->selectable_starts[page];
        make_rotation(layer, -(double)(start + position_shift(s, start)), rotation);
        const float *summary = (const float *)s->selectable_summaries + page * summary_floats(layer);
        for (size_t row = 0; row < f->n_means * layer->n_heads; row++) {
            const float *least = summary + row % layer->n_heads / layer->group * 2 * dim, *greatest = least + dim;
            memcpy(query, f->b.means + row * dim, dim * sizeof(float));
            turn(layer, rotation, query);
            float bound = 0.0f;
            for (size_t i = 0; i < dim; i++) bound += fmaxf(query[i] * least[i], query[i] * greatest[i]);
            f->bounds[row * s->n_selectable + page] = layer->scale * bound;
        }
    }
}

/* Items are rows of bounds: a softmax over the pages. */
static void share_pages(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    size_t n = f->scored->n_selectable;
    (void)worker;
    for (uint64_t row = begin; row < end; row++) {
        float *bounds = f->bounds + row * n, most = bounds[0], sum = 0.0f;
        for (size_t i = 1; i < n; i++) most = fmaxf(most, bounds[i]);
        for (size_t i = 0; i < n; i++) sum += bounds[i] = expf(bounds[i] - most);
        for (size_t i = 0; i < n; i++) bounds[i] /= sum;
    }
}

/* A sequence's bounds begin where its scores are to be, and reach over memory that is free. */
void score_pages(Forward *f) {
    float *scores = f->call->fetch->scores;
    for (size_t i = 0; i < f->call->n_sequences; i++) {
        const HeraldSequence *s = f->sequences[i];
        size_t n = n_selectable(s);
        if (n == 0) continue;
        make_means(f, s);
        f->scored = s;
        f->bounds = scores;
        size_t rows = f->n_means * f->layer->n_heads;
        run(f, n, bound_pages);
        run(f, rows, share_pages);
        for (size_t row = 1; row < rows; row++)
            for (size_t page = 0; page < n; page++) scores[page] += scores[row * n + page];
        scores += n;
    }
}
