/* Many threads submit to one scheduler, read, cancel and free, in every order; nothing hangs, and no memory is left. */

#include <pthread.h>

#include "check.h"

enum { THREADS = 8, REQUESTS = 25 };

static HeraldEngine *engine;
static HeraldScheduler *scheduler;

static void *cancel(void *request) {
    herald_request_cancel(request);
    return NULL;
}

static void *client(void *number) {
    HeraldError failure = {.struct_size = sizeof failure};
    unsigned random = *(unsigned *)number;
    for (int i = 0; i < REQUESTS; i++) {
        random = random * 1103515245u + 12345u;
        const unsigned what = random >> 16 & 7;
        const uint32_t ids[40] = {5, 6, 7, what};
        char name[2] = {(char)('a' + what % 3), '\0'};
        HeraldPrompt prompt = {.struct_size = sizeof prompt, .ids = ids, .n_ids = 1 + what * 5, .client = name};
        HeraldGenerateOptions how = {.struct_size = sizeof how,
                                     .max_tokens = what == 3 ? 0 : 1 + what,
                                     .flags = HERALD_GENERATE_IGNORE_EOS,
                                     .deadline_ms = what == 4 ? 1 : what == 3 ? 30 : 0};
        HeraldEvent event = {.struct_size = sizeof event};
        HeraldRequest *request;
        const uint32_t status = herald_submit(scheduler, &prompt, &how, &request, &failure);
        CHECK(status == HERALD_STATUS_OK || status == HERALD_STATUS_QUEUE_FULL);
        if (status == HERALD_STATUS_QUEUE_FULL)
            continue;
        pthread_t other;
        const int cancelled = what == 5 || what == 6;
        if (cancelled)
            CHECK(pthread_create(&other, NULL, cancel, request) == 0);
        if (what != 7) {
            size_t pieces = 0;
            do {
                CHECK(herald_request_next(request, what == 2 ? 1 : HERALD_WAIT_FOREVER, &event, &failure) == HERALD_STATUS_OK);
                pieces += event.kind == HERALD_EVENT_PIECE;
            } while (event.kind != HERALD_EVENT_FINISHED);
            const uint32_t finish = event.generated->finish;
            CHECK(finish == HERALD_FINISH_LENGTH || finish == HERALD_FINISH_CONTEXT_FULL ||
                  (cancelled && finish == HERALD_FINISH_CANCELLED) ||
                  (how.deadline_ms != 0 && finish == HERALD_FINISH_DEADLINE));
            CHECK(finish != HERALD_FINISH_LENGTH || pieces >= event.generated->n_tokens);
        }
        if (cancelled)
            CHECK(pthread_join(other, NULL) == 0);
        herald_request_free(request); /* Also one that still runs. */
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    HeraldEngineOptions options = {
        .struct_size = sizeof options, .model_path = argv[1], .threads = 2, .context = 128, .flags = HERALD_LOAD_NO_PREFIX_CACHE};
    HeraldSchedulerOptions how = {.struct_size = sizeof how, .max_running = 3, .max_waiting = 4};
    HeraldMemoryUsage usage = {.struct_size = sizeof usage};
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    OK(herald_engine_load(&options, &engine, &error));
    OK(herald_scheduler_new(engine, &how, &scheduler, &error));
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, client, &numbers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    herald_scheduler_free(scheduler);
    OK(herald_engine_usage(engine, &usage, &error));
    CHECK(usage.active_pages == 0 && usage.state_bytes == 0);
    herald_engine_free(engine);
    return 0;
}
