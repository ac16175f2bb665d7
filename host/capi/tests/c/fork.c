/* A child of fork() has none of the engine's threads: its calls fail at once, and it may load its own engine. */

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static HeraldEngine *engine;
static HeraldEngineSequence *sequence;
static HeraldScheduler *scheduler;
static HeraldRequest *request;
static HeraldMemory *memory;
static HeraldDocuments *documents;

static const uint32_t ids[3] = {5, 6, 7};

#define FORKED(call) FAILS(HERALD_STATUS_UNSUPPORTED, "was forked from process", call)

static void in_the_child(const char *model) {
    size_t n;
    float embedding[64];
    HeraldEvent event = {.struct_size = sizeof event};
    HeraldEngineSequence *other;
    HeraldRequest *more;
    HeraldPrompt prompt = {.struct_size = sizeof prompt, .ids = ids, .n_ids = 3};
    FORKED(herald_prefill(engine, sequence, ids, 3, NULL, 0, &error));
    FORKED(herald_decode(engine, &sequence, ids, 1, NULL, 0, &error));
    FORKED(herald_generate_ids(engine, sequence, ids, 3, NULL, NULL, &error));
    FORKED(herald_sequence_len(sequence, &n, &error));
    FORKED(herald_sequence_new(engine, &other, &error));
    FORKED(herald_sequence_fork(sequence, &other, &error));
    FORKED(herald_embed(engine, "x", 1, 0, 0, embedding, 64, &n, &error));
    FORKED(herald_submit(scheduler, &prompt, NULL, &more, &error));
    FORKED(herald_request_next(request, HERALD_WAIT_FOREVER, &event, &error));
    FORKED(herald_memory_add_ids_to_active(memory, "story", ids, 3, &error));
    FORKED(herald_documents_clear(documents, &error));
    herald_sequence_cancel(sequence);
    herald_request_cancel(request);
    herald_request_free(request);
    herald_scheduler_free(scheduler);
    herald_memory_free(memory);
    herald_documents_free(documents);
    herald_sequence_free(sequence);
    herald_engine_free(engine);

    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = model, .threads = 2};
    OK(herald_engine_load(&options, &engine, &error));
    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_prefill(engine, sequence, ids, 3, NULL, 0, &error));
    herald_sequence_free(sequence);
    herald_engine_free(engine);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = argv[1], .threads = 2};
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 3};
    HeraldPrompt prompt = {.struct_size = sizeof prompt, .ids = ids, .n_ids = 3};
    HeraldEvent event = {.struct_size = sizeof event};
    OK(herald_engine_load(&options, &engine, &error));
    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_scheduler_new(engine, NULL, &scheduler, &error));
    OK(herald_memory_new(engine, &memory, &error));
    OK(herald_documents_open(engine, NULL, &documents, &error));
    OK(herald_prefill(engine, sequence, ids, 3, NULL, 0, &error));
    OK(herald_submit(scheduler, &prompt, &how, &request, &error));
    do
        OK(herald_request_next(request, HERALD_WAIT_FOREVER, &event, &error));
    while (event.kind != HERALD_EVENT_FINISHED);

    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(120); /* A hang ends as a failure. */
        in_the_child(argv[1]);
        fflush(stdout);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);

    /* The parent goes on. */
    OK(herald_prefill(engine, sequence, ids, 3, NULL, 0, &error));
    herald_request_free(request);
    herald_documents_free(documents);
    herald_memory_free(memory);
    herald_sequence_free(sequence);
    herald_scheduler_free(scheduler);
    herald_engine_free(engine);
    return 0;
}
