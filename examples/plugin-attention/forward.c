/* A forward call, in the steps of docs/PLUGINS.md. */
#include "layer.h"

#include <math.h>
#include <string.h>

void run(Forward *f, uint64_t items, void (*task)(void *, uint64_t, uint64_t, uint32_t)) {
    /* By name, so that fields of a later header are 0. */
    HeraldTask made = {.struct_size = sizeof made, .argument = f, .run = task};
    f->call->parallel->run(f->call->parallel->context, items, &made);
}

float *of_worker(const Forward *f, uint32_t worker) { return f->b.workers + worker * worker_floats(f->layer); }

static float dot(const float *a, const float *b, size_t n) {
    float sums[8] = {0}; /* eight independent sums: none waits for another, and they round less than one */
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t lane = 0; lane < 8; lane++) sums[lane] += a[i + lane] * b[i + lane];
    for (; i < n; i++) sums[i % 8] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

/* RMS norm (arXiv 1910.07467) of each run of the norm's length; to may be from. */
static void rms_norm(const HeraldLayer *layer, const Vector *norm, const float *from, float *to, size_t length) {
    for (size_t start = 0; start < length; start += norm->length) {
        double squares = 0.0;
        for (size_t i = 0; i < norm->length; i++) squares += (double)from[start + i] * from[start + i];
        float scale = (float)(1.0 / sqrt(squares / (double)norm->length + layer->norm_eps));
        for (size_t i = 0; i < norm->length; i++) to[start + i] = from[start + i] * scale * norm->elements[i];
    }
}

void make_rotation(const HeraldLayer *layer, double position, float *rotation) {
    for (size_t i = 0; i < layer->pairs; i++) {
        double angle = position * layer->frequencies[i];
        rotation[2 * i] = (float)cos(angle);
        rotation[2 * i + 1] = (float)sin(angle);
    }
}

void turn(const HeraldLayer *layer, const float *rotation, float *head) {
    int neighbours = layer->rope == HERALD_ROPE_NEIGHBOURS;
    for (size_t i = 0; i < layer->pairs; i++) {
        float *a = head + (neighbours ? 2 * i : i), *b = head + (neighbours ? 2 * i + 1 : i + layer->pairs);
        float turned = *a * rotation[2 * i] - *b * rotation[2 * i + 1];
        *b = *a * rotation[2 * i + 1] + *b * rotation[2 * i];
        *a = turned;
    }
}

/* Items are tokens. */
static void norm_tokens(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    size_t n = f->layer->hidden;
    (void)worker;
    for (uint64_t t = begin; t < end; t++) {
        if (f->layer->norm.elements != NULL)
            rms_norm(f->layer, &f->layer->norm, f->input + t * n, f->b.x + t * n, n);
        else
            memcpy(f->b.x + t * n, f->input + t * n, n * sizeof(float));
    }
}

/* out[t][row] = matrix[row] . x[t] + bias[row]; the row is decoded once for all tokens. */
static void multiply_row(Forward *f, const Matrix *matrix, const Vector *bias, size_t row, const float *x, float *out,
                         uint32_t worker) {
    float *elements = of_worker(f, worker);
    read_row(matrix, row, elements);
    float added = bias->elements != NULL ? bias->elements[row] : 0.0f;
    for (size_t t = 0; t < f->call->n_tokens; t++)
        out[t * matrix->rows + row] = dot(elements, x + t * matrix->columns, matrix->columns) + added;
}

/* Items are the rows of the query, the key and the value matrix, one after another. */
static void project(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    const HeraldLayer *layer = f->layer;
    for (uint64_t item = begin; item < end; item++) {
        size_t row = (size_t)item;
        if (row < layer->query.rows)
            multiply_row(f, &layer->query, &layer->query_bias, row, f->b.x, f->b.q, worker);
        else if ((row -= layer->query.rows) < layer->key.rows)
            multiply_row(f, &layer->key, &layer->key_bias, row, f->b.x, f->b.k, worker);
        else
            multiply_row(f, &layer->value, &layer->value_bias, row - layer->key.rows, f->b.x, f->b.v, worker);
    }
}

/* Norms and turns a token's heads. */
static void finish_heads(const HeraldLayer *layer, const Vector *norm, const float *rotation, float *heads, size_t n) {
    if (norm->elements != NULL) rms_norm(layer, norm, heads, heads, n);
    for (size_t start = 0; start < n; start += layer->key_dim) turn(layer, rotation, heads + start);
}

/* Items are tokens: finishes their heads, and writes keys and values to their slots. */
static void store(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    const HeraldLayer *layer = f->layer;
    size_t heads = layer->n_kv_heads, i = 0;
    for (uint64_t t = begin; t < end; t++) {
        float *rotation = of_worker(f, worker), *k = f->b.k + t * layer->key.rows, *v = f->b.v + t * layer->value.rows;
        make_rotation(layer, f->call->positions[t], rotation);
        finish_heads(layer, &layer->query_norm, rotation, f->b.q + t * layer->query.rows, layer->query.rows);
        finish_heads(layer, &layer->key_norm, rotation, k, layer->key.rows);
        while (t >= f->sequences[i]->first + f->sequences[i]->n_tokens) i++;
        const HeraldSequence *s = f->sequences[i];
        uint64_t index = s->past + t - s->first;
        size_t p = s->n_pages - 1; /* the batch's pages are the last ones */
        while (p > 0 && s->pages[p]->start > index) p--;
        const HeraldPage *page = s->pages[p];
        size_t slot = (size_t)(index - page->start);
        for (size_t head = 0; head < heads; head++) {
            write_key(page, heads, head, slot, layer->key_dim, k + head * layer->key_dim);
            write_value(page, heads, head, slot, layer->value_dim, v + head * layer->value_dim);
        }
    }
}

/* ---- Attending. ---- */

/* Which token a block begins with: items are blocks of tokens of one sequence, each with each KV head. */
typedef struct Item {
    const HeraldSequence *sequence;
    size_t head;
    size_t token, n_tokens; /* in the batch */
} Item;

static size_t n_blocks(const HeraldSequence *s) { return ((size_t)s->n_tokens + BLOCK - 1) / BLOCK; }

static Item item_of(const Forward *f, size_t index) {
    size_t block = index / f->layer->n_kv_heads, i = 0;
    while (block >= n_blocks(f->sequences[i])) block -= n_blocks(f->sequences[i++]);
    const HeraldSequence *s = f->sequences[i];
    size_t rest = (size_t)s->n_tokens - block * BLOCK;
    return (Item){s, index % f->layer->n_kv_heads, (size_t)s->first + block * BLOCK, rest < BLOCK ? rest : BLOCK};
}

/* Where the row of an item's queries, [n_tokens, group], lies among all heads of all tokens. */
static size_t head_of(const HeraldLayer *layer, const Item *item, size_t row) {
    return (item->token + row / layer->group) * layer->n_heads + item->head * layer->group + row % layer->group;
}

/* A row of queries meets the page's visible slots: the online softmax (arXiv 1805.02867). */
static void attend_row(const HeraldLayer *layer, const Attending *a, const float *query, size_t from, size_t to, float *most,
                       float *sum, float *attended) {
    float page_most = *most;
    for (size_t slot = from; slot < to; slot++) {
        float score = layer->scale * dot(query, a->keys + slot * layer->key_dim, layer->key_dim);
        if (layer->softcap != 0.0f) score = layer->softcap * tanhf(score / layer->softcap);
        a->scores[slot] = score;
        page_most = fmaxf(page_most, score);
    }
    float before = expf(*most - page_most); /* 0 at first, where *most is minus infinity */
    *most = page_most;
    *sum *= before;
    for (size_t i = 0; i < layer->value_dim; i++) attended[i] *= before;
    for (size_t slot = from; slot < to; slot++) {
        float weight = expf(a->scores[slot] - page_most);
        const float *value = a->values + slot * layer->value_dim;
        *sum += weight;
        for (size_t i = 0; i < layer->value_dim; i++) attended[i] += weight * value[i];
    }
}

/* The queries of an item meet one page. */
static void attend_page(Forward *f, const Item *item, const HeraldPage *page, const Attending *a) {
    const HeraldLayer *layer = f->layer;
    uint64_t first = item->sequence->past + item->token - item->sequence->first; /* the index of the item's first token */
    uint64_t window = layer->window != 0 ? layer->window : UINT64_MAX, end = page->start + page->n_tokens;
    if (page->start > first + item->n_tokens - 1 || (first >= window && end <= first - window + 1)) return; /* nobody sees it */
    for (size_t slot = 0; slot < page->n_tokens; slot++) {
        read_key(page, layer->n_kv_heads, item->head, slot, layer->key_dim, a->keys + slot * layer->key_dim);
        read_value(page, layer->n_kv_heads, item->head, slot, layer->value_dim, a->values + slot * layer->value_dim);
    }
    uint64_t shift = position_shift(item->sequence, page->start);
    if (shift != 0) make_rotation(layer, -(double)shift, a->rotation);
    for (size_t t = 0; t < item->n_tokens; t++) {
        uint64_t index = first + t, oldest = index >= window ? index - window + 1 : 0;
        size_t from = oldest > page->start ? (size_t)(oldest - page->start) : 0;
        size_t to = index + 1 < end ? (size_t)(index + 1 - page->start) : page->n_tokens;
        if (index < page->start || from >= to) continue;
        for (size_t h = 0; h < layer->group; h++) {
            size_t row = t * layer->group + h, head = head_of(layer, item, row);
            const float *query = f->b.q + head * layer->key_dim;
            if (shift != 0) {
                float *shifted = a->queries + row * layer->key_dim;
                memcpy(shifted, query, layer->key_dim * sizeof(float));
                turn(layer, a->rotation, shifted);
                query = shifted;
            }
            attend_row(layer, a, query, from, to, &a->most[row], &a->sum[row], f->b.attended + head * layer->value_dim);
        }
    }
    if (page->format == HERALD_PAGE_Q4)
        atomic_fetch_add_explicit(&layer->counters->q4_pages, 1, memory_order_relaxed);
}

/* Items as item_of counts them. */
static void attend(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    const HeraldLayer *layer = f->layer;
    size_t used = 0, dim = layer->value_dim;
    Attending a = attending(layer, of_worker(f, worker), &used);
    for (uint64_t index = begin; index < end; index++) {
        Item item = item_of(f, (size_t)index);
        size_t rows = item.n_tokens * layer->group;
        for (size_t row = 0; row < rows; row++) {
            a.most[row] = -INFINITY;
            a.sum[row] = 0.0f;
            memset(f->b.attended + head_of(layer, &item, row) * dim, 0, dim * sizeof(float));
        }
        for (size_t p = 0; p < item.sequence->n_pages; p++) attend_page(f, &item, item.sequence->pages[p], &a);
        for (size_t row = 0; row < rows; row++) {
            float *attended = f->b.attended + head_of(layer, &item, row) * dim;
            for (size_t i = 0; i < dim; i++) attended[i] /= a.sum[row];
        }
    }
}

/* ---- The branch's end. ---- */

/* Items are rows of the output matrix. The normed activations are no longer needed, so the branch reuses their memory. */
static void project_output(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    for (uint64_t row = begin; row < end; row++)
        multiply_row(f, &f->layer->output, &f->layer->output_bias, (size_t)row, f->b.attended, f->b.x, worker);
}

/* Items are tokens. */
static void add_branch(void *argument, uint64_t begin, uint64_t end, uint32_t worker) {
    Forward *f = argument;
    size_t n = f->layer->hidden;
    (void)worker;
    for (uint64_t t = begin; t < end; t++) {
        float *branch = f->b.x + t * n;
        if (f->layer->post_norm.elements != NULL) rms_norm(f->layer, &f->layer->post_norm, branch, branch, n);
        for (size_t i = 0; i < n; i++) f->call->output[t * n + i] += f->layer->residual_scale * branch[i];
    }
}

/* What a call must bring. */
static uint32_t check_call(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    if (call == NULL || !COVERS(call, HeraldCall, parallel) || call->output == NULL || call->scratch == NULL ||
        call->positions == NULL || call->sequences == NULL || call->n_sequences == 0 || call->parallel == NULL ||
        !COVERS(call->parallel, HeraldParallel, run) || call->parallel->workers > layer->max_workers)
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT,
                    "a call of block %u's attention lacks output, scratch memory, positions, sequences or threads",
                    (unsigned)layer->block);
    size_t used = 0;
    buffers(layer, NULL, &used, call->n_tokens <= layer->max_tokens ? call->n_tokens : 0);
    if (call->n_tokens == 0 || call->n_tokens > layer->max_tokens || call->scratch_bytes < used * sizeof(float))
        return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "block %u's attention got %zu tokens and %llu bytes of scratch memory",
                    (unsigned)layer->block, call->n_tokens, (unsigned long long)call->scratch_bytes);
    return HERALD_STATUS_OK;
}

/* Pages are of formats that the layer reads, and no larger than it was made for. */
static uint32_t check_pages(const Forward *f, HeraldError *error) {
    for (size_t i = 0; i < f->call->n_sequences; i++)
        for (size_t p = 0; p < f->sequences[i]->n_pages; p++) {
            const HeraldPage *page = f->sequences[i]->pages[p];
            if ((page->format != HERALD_PAGE_I16 && page->format != HERALD_PAGE_Q4) || page->capacity > f->layer->page_tokens)
                return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "a page has format %u and room for %u tokens",
                            (unsigned)page->format, (unsigned)page->capacity);
        }
    return HERALD_STATUS_OK;
}

uint32_t layer_forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error) {
    uint32_t status = check_call(layer, call, error);
    if (status != HERALD_STATUS_OK) return status;
    size_t used = 0, items = 0;
    Forward f = {.layer = layer, .call = call, .sequences = call->sequences,
                 .input = call->input != NULL ? call->input : call->output,
                 .b = buffers(layer, call->scratch, &used, call->n_tokens)};
    status = check_pages(&f, error);
    if (status != HERALD_STATUS_OK) return status;
    run(&f, call->n_tokens, norm_tokens);
    run(&f, layer->query.rows + layer->key.rows + layer->value.rows, project);
    run(&f, call->n_tokens, store);
    if (COVERS(call, HeraldCall, fetch) && call->fetch != NULL) {
        score_pages(&f);
        /* From here on, the call's own list is no longer valid. */
        status = call->fetch->run(call->fetch->context, &f.sequences, error);
        if (status != HERALD_STATUS_OK) return status;
        status = check_pages(&f, error);
        if (status != HERALD_STATUS_OK) return status;
        atomic_fetch_add_explicit(&layer->counters->selections, 1, memory_order_relaxed);
    }
    for (size_t i = 0; i < call->n_sequences; i++) items += n_blocks(f.sequences[i]) * layer->n_kv_heads;
    run(&f, items, attend);
    run(&f, layer->hidden, project_output);
    run(&f, call->n_tokens, add_branch);
    atomic_fetch_add_explicit(&layer->counters->calls, 1, memory_order_relaxed);
    return HERALD_STATUS_OK;
}
