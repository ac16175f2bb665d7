/* The layer, its memory, and what its parts call of each other. */
#ifndef LAYER_H
#define LAYER_H

#include <stdatomic.h>

#include "pages.h"
#include "weights.h"

/* Tokens whose queries go over a page together, so that it is decoded once for all of them. */
#define BLOCK 16

/* Mean queries that stand for a batch when pages are scored, and the tokens that share one, at least. */
#define MAX_MEANS 4
#define TOKENS_PER_MEAN 32

/* Counted for the log, by forward calls on any thread. */
typedef struct Counters {
    atomic_ullong calls, selections, q4_pages;
} Counters;

struct HeraldLayer {
    size_t hidden, n_heads, n_kv_heads, group, key_dim, value_dim, window, pairs;
    size_t max_tokens, max_workers, page_tokens;
    uint32_t block, rope;
    float softcap, scale, residual_scale, norm_eps;
    Matrix query, key, value, output;
    Vector norm, post_norm, query_norm, key_norm, query_bias, key_bias, value_bias, output_bias;
    double *frequencies; /* [pairs], radians a position */
    Counters *counters;
};

/* ---- layer.c: making layers, and saying what they need. ---- */

uint32_t layer_supports(const HeraldLayerRequest *request, HeraldError *error);
uint32_t layer_create(const HeraldLayerRequest *request, HeraldLayer **out, HeraldError *error);
uint32_t layer_info(const HeraldLayer *layer, HeraldLayerInfo *out, HeraldError *error);
void layer_destroy(HeraldLayer *layer);

/* ---- Scratch memory: pieces of floats, each aligned to 64 bytes. ---- */

typedef struct Buffers {
    float *x;        /* [n_tokens, hidden]: normed activations, in the end the branch */
    float *q;        /* [n_tokens, n_heads, key_dim] */
    float *k;        /* [n_tokens, n_kv_heads, key_dim] */
    float *v;        /* [n_tokens, n_kv_heads, value_dim] */
    float *attended; /* [n_tokens, n_heads, value_dim] */
    float *means;    /* [MAX_MEANS, n_heads, key_dim] */
    float *workers;  /* [max_workers, worker_floats] */
} Buffers;

/* A worker's memory while it attends. */
typedef struct Attending {
    float *keys;     /* [page_tokens, key_dim] */
    float *values;   /* [page_tokens, value_dim] */
    float *scores;   /* [page_tokens] */
    float *queries;  /* [BLOCK * group, key_dim], with their positions shifted */
    float *rotation; /* [pairs, 2] */
    float *most;     /* [BLOCK * group]: the greatest score of each row so far */
    float *sum;      /* [BLOCK * group] */
} Attending;

/* The pieces of a call of n_tokens from base on, of which `used` counts the floats; with base null they are only counted. */
Buffers buffers(const HeraldLayer *layer, float *base, size_t *used, size_t n_tokens);

/* The same of a worker. */
Attending attending(const HeraldLayer *layer, float *base, size_t *used);

/* Floats of a worker's memory: for a row of a matrix, for a head, or for attending. */
size_t worker_floats(const HeraldLayer *layer);

/* ---- forward.c: a call. ---- */

/* Shared by the tasks of one call; it is on the caller's stack. */
typedef struct Forward {
    const HeraldLayer *layer;
    const HeraldCall *call;
    const HeraldSequence *const *sequences; /* the call's, or those with the selected pages */
    const float *input;
    Buffers b;
    /* While a sequence's pages are scored: */
    const HeraldSequence *scored;
    size_t n_means;
    float *bounds; /* [n_means, n_heads, n_selectable] */
} Forward;

uint32_t layer_forward(const HeraldLayer *layer, const HeraldCall *call, HeraldError *error);

/* Has the host's threads do all items. */
void run(Forward *f, uint64_t items, void (*task)(void *, uint64_t, uint64_t, uint32_t));

float *of_worker(const Forward *f, uint32_t worker);

/* Cosine and sine of each pair's angle at a position, which may be negative. */
void make_rotation(const HeraldLayer *layer, double position, float *rotation);

/* Turns a head's pairs. */
void turn(const HeraldLayer *layer, const float *rotation, float *head);

/* ---- selection.c: which older pages are worth attending to. ---- */

size_t summary_floats(const HeraldLayer *layer);
uint32_t layer_summarise(const HeraldLayer *layer, const HeraldPage *page, void *summary, HeraldError *error);

/* How many positions a sequence's queries are moved back for the page that begins at start. */
uint64_t position_shift(const HeraldSequence *s, uint64_t start);

/* Fills the scores of all selectable pages of a call that has any. */
void score_pages(Forward *f);

/* ---- plugin.c ---- */

void log_line(uint32_t level, const char *format, ...);

#endif
