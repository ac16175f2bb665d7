/* Memory runs out at every place where much of it is asked for: each call then returns OUT_OF_MEMORY, or does without; and works as
 * before when there is memory again. The program's own malloc fails the n-th time that it is asked for at least LARGE bytes. */

#define _GNU_SOURCE

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>

#include "check.h"

/* What glibc calls its own functions. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

#define PAGE 9000 /* bytes of a tiny model's page, less than a state; more than the buffer that a file is written through */

static atomic_size_t large = (size_t)-1; /* how many bytes are much */
static atomic_long left = -1;           /* so many more may be had, where it isn't negative */
static atomic_long failed;              /* how many could not */

static int fails(size_t size) {
    if (size < large || atomic_load(&left) < 0)
        return 0;
    /* Once there is no memory, there is none for the next either. */
    if (atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) > 0)
        return 0;
    atomic_store(&left, 0);
    atomic_fetch_add(&failed, 1);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails(size) ? NULL : __libc_malloc(size); }

void *calloc(size_t n, size_t size) { return fails(n * size) ? NULL : __libc_calloc(n, size); }

void *realloc(void *old, size_t size) { return fails(size) ? NULL : __libc_realloc(old, size); }

void *aligned_alloc(size_t align, size_t size) { return fails(size) ? NULL : __libc_memalign(align, size); }

int posix_memalign(void **out, size_t align, size_t size) {
    if (fails(size))
        return ENOMEM;
    *out = __libc_memalign(align, size);
    return *out == NULL ? ENOMEM : 0;
}

/* The buffer that a folder is read with is not what this is about. */
DIR *opendir(const char *path) {
    DIR *(*real)(const char *);
    *(void **)&real = dlsym(RTLD_NEXT, "opendir");
    const long before = atomic_exchange(&left, -1);
    DIR *folder = real(path);
    atomic_store(&left, before);
    return folder;
}

static const char *model, *file;
static HeraldEngine *engine;
static HeraldEngineSequence *sequence;
static HeraldScheduler *scheduler;
static uint32_t ids[300];
static float logits[512];

static uint32_t load(void) {
    HeraldEngineOptions options = {.struct_size = sizeof options,
                                   .model_path = model,
                                   .backend = "cpu",
                                   .threads = 2,
                                   .context = 512,
                                   .max_batch = 64,
                                   .active_tokens = 256,
                                   .compressed_tokens = 128};
    herald_engine_free(engine);
    return herald_engine_load(&options, &engine, &error);
}

static uint32_t sequence_new(void) {
    herald_sequence_free(sequence);
    return herald_sequence_new(engine, &sequence, &error);
}

static uint32_t prefill(void) {
    OK(herald_sequence_truncate(sequence, 0, &error));
    return herald_prefill(engine, sequence, ids, 300, logits, 512, &error);
}

static uint32_t decode(void) { return herald_decode(engine, &sequence, ids, 1, logits, 512, &error); }

static int32_t ignore_row(void *user_data, size_t index, const float *row, size_t n) {
    (void)user_data, (void)index, (void)row, (void)n;
    return HERALD_GO_ON;
}

static uint32_t all_logits(void) {
    OK(herald_sequence_truncate(sequence, 0, &error));
    return herald_logits(engine, sequence, ids, 100, ignore_row, NULL, &error);
}

static uint32_t fork_it(void) {
    HeraldEngineSequence *fork;
    const uint32_t status = herald_sequence_fork(sequence, &fork, &error);
    herald_sequence_free(fork);
    return status;
}

static uint32_t save(void) { return herald_sequence_save(sequence, file, &error); }

static uint32_t restore(void) {
    HeraldEngineSequence *loaded;
    const uint32_t status = herald_sequence_load(engine, file, &loaded, &error);
    herald_sequence_free(loaded);
    return status;
}

static uint32_t compress(void) { return herald_sequence_compress(sequence, 64, NULL, &error); }

static uint32_t generate(void) {
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 4, .flags = HERALD_GENERATE_IGNORE_EOS};
    OK(herald_sequence_truncate(sequence, 0, &error));
    return herald_generate_ids(engine, sequence, ids, 200, &how, NULL, &error);
}

static uint32_t hidden_states(void) {
    return herald_hidden_states(engine, ids, 100, HERALD_ALL_BLOCKS, 0, ignore_row, NULL, &error);
}

static uint32_t embed(void) {
    float embedding[512];
    size_t n;
    return herald_embed(engine, "bees and honey", 14, 0, 0, embedding, 512, &n, &error);
}

static uint32_t schedule(void) {
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 4, .flags = HERALD_GENERATE_IGNORE_EOS};
    const HeraldPrompt prompt = {.struct_size = sizeof prompt, .ids = ids, .n_ids = 200};
    HeraldRequest *request;
    uint32_t status = herald_submit(scheduler, &prompt, &how, &request, &error);
    HeraldEvent event = {.struct_size = sizeof event};
    while (status == HERALD_STATUS_OK && event.kind != HERALD_EVENT_FINISHED)
        status = herald_request_next(request, HERALD_WAIT_FOREVER, &event, &error);
    herald_request_free(request);
    return status;
}

static uint32_t add_text(void) {
    HeraldMemory *memory;
    uint32_t status = herald_memory_new(engine, &memory, &error);
    if (status != HERALD_STATUS_OK)
        return status;
    size_t n;
    status = herald_memory_add_to_active(memory, "story", "Once upon a time there was a bee.", 33, &n, &error);
    herald_memory_free(memory);
    return status;
}

static void runs_out(const char *name, uint32_t (*call)(void)) {
    size_t refused = 0;
    for (long n = 0;; n++) {
        atomic_store(&failed, 0);
        atomic_store(&left, n);
        const uint32_t status = call();
        const long missed = atomic_load(&failed);
        atomic_store(&left, -1);
        if (missed == 0) {
            CHECK(status == HERALD_STATUS_OK);
            break;
        }
        if (status != HERALD_STATUS_OK && status != HERALD_STATUS_OUT_OF_MEMORY)
            fprintf(stderr, "%s, allocation %ld: status %u\n", name, n, status);
        CHECK(status == HERALD_STATUS_OK || (status == HERALD_STATUS_OUT_OF_MEMORY && error.message[0] != '\0'));
        refused += status == HERALD_STATUS_OUT_OF_MEMORY;
        OK(call());
    }
    printf("%s: %zu times OUT_OF_MEMORY\n", name, refused);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    model = argv[1];
    file = argv[2];
    for (size_t i = 0; i < 300; i++)
        ids[i] = (uint32_t)(3 + i * 37 % 500);
    OK(load()); /* The loader of plugins has its own needs. */
    /* A vocabulary is small beside a model, but not beside a tiny one; and so is what a product needs beside a batch. */
    atomic_store(&large, 64 << 10);
    runs_out("load", load);
    runs_out("sequence_new", sequence_new);
    runs_out("prefill", prefill);
    runs_out("decode", decode);
    runs_out("logits", all_logits);
    runs_out("generate", generate);
    runs_out("hidden_states", hidden_states);
    runs_out("embed", embed);
    runs_out("memory", add_text);
    /* A page's keys, or its values, and a recurrent state. */
    atomic_store(&large, PAGE);
    runs_out("sequence_new", sequence_new);
    OK(prefill());
    runs_out("fork", fork_it);
    runs_out("save", save);
    runs_out("restore", restore);
    runs_out("compress", compress);
    atomic_store(&large, 64 << 10);
    HeraldSchedulerOptions options = {.struct_size = sizeof options, .max_running = 2, .max_waiting = 4};
    OK(herald_scheduler_new(engine, &options, &scheduler, &error));
    runs_out("schedule", schedule);
    herald_scheduler_free(scheduler);
    runs_out("memory", add_text);
    herald_sequence_free(sequence);
    herald_engine_free(engine);
    return 0;
}
