/* Every function of herald.h, each at least once, with all memory given back: this is run under valgrind and ASan. */

#include "check.h"

static HeraldEngine *engine;

typedef struct Count {
    size_t calls;
    size_t floats;
} Count;

static int32_t count_row(void *user_data, size_t index, const float *row, size_t n) {
    Count *count = user_data;
    CHECK(index == count->calls && n > 0 && row[n - 1] == row[n - 1]);
    count->calls++;
    count->floats = n;
    return HERALD_GO_ON;
}

static int32_t count_piece(void *user_data, const HeraldPiece *piece) {
    CHECK(piece->text_len == strlen(piece->text));
    ((Count *)user_data)->calls++;
    return HERALD_GO_ON;
}

static int32_t count_hit(void *user_data, const HeraldHit *hit) {
    CHECK(hit->text_len > 0 && hit->name_len > 0);
    ((Count *)user_data)->calls++;
    return HERALD_GO_ON;
}

static void count_line(void *user_data, uint32_t level, const char *text, size_t text_len) {
    CHECK(level <= HERALD_LOG_DEBUG && strlen(text) == text_len);
    __atomic_fetch_add((size_t *)user_data, 1, __ATOMIC_RELAXED);
}

static void facts_and_texts(void) {
    HeraldEngineInfo info = {.struct_size = sizeof info};
    char text[256];
    uint32_t ids[64];
    size_t n, len;
    OK(herald_engine_info(engine, &info, &error));
    OK(herald_engine_backend(engine, text, sizeof text, &len, &error));
    CHECK(strcmp(herald_version(), HERALD_VERSION) == 0);
    CHECK(HERALD_VERSION_NUMBER ==
          HERALD_VERSION_MAJOR * 1000000 + HERALD_VERSION_MINOR * 1000 + HERALD_VERSION_PATCH);
    OK(herald_tokenize(engine, "Hello", 5, HERALD_TEXT_PROMPT, ids, 64, &n, &error));
    OK(herald_detokenize(engine, ids, n, 0, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "Hello") == 0);
    OK(herald_token_bytes(engine, ids[n - 1], 0, text, sizeof text, &len, &error));
    CHECK(herald_token_ends(engine, info.eos) == 1);
    const HeraldMessage message = {sizeof message, "user", "Hello"};
    OK(herald_chat_format(engine, &message, 1, 1, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "<user>Hello<assistant>") == 0);
}

static float length(const float *x, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

static void inside(void) {
    static float embedding[64], unit[64], last[64];
    const uint32_t ids[5] = {5, 6, 7, 8, 9};
    size_t n;
    Count count = {0, 0};
    OK(herald_embed(engine, "bees", 4, 0, 0, embedding, 64, &n, &error));
    OK(herald_embed(engine, "bees", 4, HERALD_EMBED_NORMALIZE, 60000, unit, 64, &n, &error));
    OK(herald_embed(engine, "bees", 4, HERALD_EMBED_LAST, 0, last, 64, &n, &error));
    CHECK(n == 64 && length(unit, 64) > 0.999f && length(unit, 64) < 1.001f);
    CHECK(memcmp(embedding, last, sizeof last) != 0);
    const float scale = embedding[0] / unit[0];
    for (size_t i = 0; i < 64; i++)
        CHECK(embedding[i] - scale * unit[i] < 1e-3f && scale * unit[i] - embedding[i] < 1e-3f);
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "64", herald_embed(engine, "bees", 4, 0, 0, embedding, 63, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "empty", herald_embed(engine, "", 0, 0, 0, embedding, 64, &n, &error));
    OK(herald_hidden_states(engine, ids, 5, HERALD_ALL_BLOCKS, 0, count_row, &count, &error));
    CHECK(count.calls == 5 && count.floats == 64);
    count.calls = 0;
    OK(herald_hidden_states(engine, ids, 5, 0, 0, count_row, &count, &error));
    CHECK(count.calls == 5);
}

static size_t read_file(const char *path, char *bytes, size_t room) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    const size_t len = fread(bytes, 1, room, file);
    CHECK(len < room && fclose(file) == 0);
    return len;
}

static void write_file(const char *path, const char *bytes, size_t len) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

/* One bit of the file is another, it is cut, or it is all zeros. */
static void damaged_files(const char *file) {
    static char bytes[1 << 20], damaged[1 << 20];
    const size_t len = read_file(file, bytes, sizeof bytes);
    HeraldEngineSequence *loaded;
    CHECK(len > 1000);
    for (int round = 0; round < 6; round++) {
        memcpy(damaged, bytes, len);
        if (round < 4)
            damaged[len * (size_t)round / 4 + 3] ^= 4;
        else if (round == 4)
            memset(damaged, 0, len);
        write_file(file, damaged, round == 5 ? len / 2 : len);
        FAILS(HERALD_STATUS_CORRUPT, file, herald_sequence_load(engine, file, &loaded, &error));
        CHECK(loaded == NULL);
    }
    write_file(file, bytes, len);
    OK(herald_sequence_load(engine, file, &loaded, &error));
    herald_sequence_free(loaded);
}

static void sequences(const char *file) {
    HeraldEngineSequence *sequence, *fork, *loaded;
    HeraldMemoryUsage usage = {.struct_size = sizeof usage};
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 4, .flags = HERALD_GENERATE_IGNORE_EOS};
    HeraldGenerated done = {.struct_size = sizeof done};
    static uint32_t ids[300];
    static float logits[512], again[512];
    uint64_t moved;
    size_t n;
    Count count = {0, 0};
    for (size_t i = 0; i < 300; i++)
        ids[i] = (uint32_t)(3 + i * 37 % 500);

    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_prefill(engine, sequence, ids, 300, NULL, 0, &error));
    OK(herald_sequence_compress(sequence, 64, &moved, &error));
    OK(herald_sequence_usage(sequence, &usage, &error));
    CHECK(moved > 0 && usage.compressed_pages > 0 && usage.memory_bytes > 0);
    OK(herald_engine_usage(engine, &usage, &error));
    CHECK(usage.moved_pages >= moved);

    /* A fork and a saved file go on alike. */
    OK(herald_sequence_fork(sequence, &fork, &error));
    OK(herald_sequence_save(sequence, file, &error));
    OK(herald_sequence_load(engine, file, &loaded, &error));
    OK(herald_decode(engine, &fork, &ids[7], 1, logits, 512, &error));
    OK(herald_decode(engine, &loaded, &ids[7], 1, again, 512, &error));
    CHECK(memcmp(logits, again, sizeof logits) == 0);
    OK(herald_sequence_len(fork, &n, &error));
    CHECK(n == 301);
    OK(herald_sequence_truncate(fork, 10, &error));
    static uint32_t back[300];
    OK(herald_sequence_tokens(fork, back, 300, &n, &error));
    CHECK(n == 10 && memcmp(back, ids, 10 * sizeof ids[0]) == 0);
    OK(herald_logits(engine, fork, ids, 3, count_row, &count, &error));
    CHECK(count.calls == 3);
    herald_sequence_free(loaded);
    herald_sequence_free(fork);
    FAILS(HERALD_STATUS_NOT_FOUND, "/nowhere", herald_sequence_load(engine, "/nowhere/file", &loaded, &error));
    CHECK(loaded == NULL);
    FAILS(HERALD_STATUS_NOT_FOUND, "/nowhere", herald_sequence_save(sequence, "/nowhere/file", &error));
    FAILS(HERALD_STATUS_IO, "/dev/null", herald_sequence_load(engine, "/dev/null", &loaded, &error));
    damaged_files(file);

    /* A prompt that begins as an earlier one did takes over what that computed, unless it was forgotten. */
    for (int round = 0; round < 3; round++) {
        OK(herald_sequence_truncate(sequence, 0, &error));
        if (round != 1)
            OK(herald_engine_forget_prefixes(engine, &error));
        OK(herald_generate_ids(engine, sequence, ids, 200, &how, &done, &error));
        CHECK(round == 1 ? done.n_cached_tokens >= 128 : done.n_cached_tokens == 0);
    }
    OK(herald_generate(engine, sequence, " and", 4, 0, &how, NULL, &error));

    /* A cancel is not lost, and is used up by the call that reports it. */
    OK(herald_sequence_truncate(sequence, 0, &error));
    herald_sequence_cancel(sequence);
    FAILS(HERALD_STATUS_CANCELLED, "cancelled", herald_prefill(engine, sequence, ids, 9, NULL, 0, &error));
    OK(herald_prefill(engine, sequence, ids, 9, NULL, 0, &error));
    herald_sequence_cancel(sequence);
    FAILS(HERALD_STATUS_CANCELLED, "cancelled", herald_decode(engine, &sequence, ids, 1, NULL, 0, &error));
    herald_sequence_cancel(sequence);
    FAILS(HERALD_STATUS_CANCELLED, "cancelled",
          herald_logits(engine, sequence, ids, 3, count_row, &count, &error));
    herald_sequence_cancel(sequence);
    OK(herald_generate_ids(engine, sequence, ids, 3, &how, &done, &error));
    CHECK(done.finish == HERALD_FINISH_CANCELLED && done.n_tokens == 0 && done.n_prompt_tokens == 3);
    herald_sequence_cancel(sequence);
    CHECK(herald_sequence_reset_cancel(sequence) == 1 && herald_sequence_reset_cancel(sequence) == 0);
    OK(herald_sequence_len(sequence, &n, &error));
    CHECK(n == 9);

    /* Deadlines: of the sequence, and of a generation. */
    OK(herald_sequence_set_deadline(sequence, 1, &error));
    for (uint32_t status = HERALD_STATUS_OK; status != HERALD_STATUS_DEADLINE;)
        status = herald_prefill(engine, sequence, ids, 1, NULL, 0, &error);
    OK(herald_generate_ids(engine, sequence, ids, 1, &how, &done, &error));
    CHECK(done.finish == HERALD_FINISH_DEADLINE);
    OK(herald_sequence_set_deadline(sequence, 0, &error));
    OK(herald_sequence_truncate(sequence, 0, &error));
    how.deadline_ms = 20;
    how.max_tokens = 0;
    OK(herald_generate_ids(engine, sequence, ids, 9, &how, &done, &error));
    CHECK(done.finish == HERALD_FINISH_DEADLINE || done.finish == HERALD_FINISH_CONTEXT_FULL);
    how.deadline_ms = 0;
    how.max_tokens = 4;

    /* A form that can't be compiled within bounds is refused. */
    OK(herald_sequence_truncate(sequence, 0, &error));
    how.json_schema = "{\"multipleOf\": 99999989}";
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "JSON schema can't be used",
          herald_generate_ids(engine, sequence, ids, 9, &how, &done, &error));
    herald_sequence_free(sequence);
}

static void requests(void) {
    HeraldSchedulerOptions options = {.struct_size = sizeof options, .max_running = 2, .max_waiting = 4};
    HeraldScheduler *scheduler;
    OK(herald_scheduler_new(engine, &options, &scheduler, &error));
    const uint32_t ids[4] = {5, 6, 7, 8};
    const HeraldMessage message = {sizeof message, "user", "Hello"};
    HeraldPrompt prompts[3] = {{.struct_size = sizeof(HeraldPrompt), .text = "Hello", .text_len = 5},
                               {.struct_size = sizeof(HeraldPrompt), .ids = ids, .n_ids = 4, .client = "someone"},
                               {.struct_size = sizeof(HeraldPrompt), .messages = &message, .n_messages = 1}};
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 6, .flags = HERALD_GENERATE_IGNORE_EOS};
    HeraldRequest *all[8] = {NULL};
    for (size_t i = 0; i < 3; i++)
        OK(herald_submit(scheduler, &prompts[i], &how, &all[i], &error));
    for (size_t i = 0; i < 3; i++) {
        HeraldEvent event = {.struct_size = sizeof event};
        size_t pieces = 0;
        for (;;) {
            OK(herald_request_next(all[i], pieces % 2 == 0 ? HERALD_WAIT_FOREVER : 10, &event, &error));
            if (event.kind == HERALD_EVENT_PIECE) {
                CHECK(event.piece != NULL && strlen(event.piece->text) == event.piece->text_len);
                pieces += event.piece->token != HERALD_NO_TOKEN;
            } else if (event.kind == HERALD_EVENT_FINISHED) {
                break;
            }
        }
        CHECK(event.generated->finish == HERALD_FINISH_LENGTH && event.generated->n_tokens == 6 && pieces == 6);
        OK(herald_request_next(all[i], 0, &event, &error));
        CHECK(event.kind == HERALD_EVENT_FINISHED && event.piece == NULL);
        herald_request_free(all[i]);
    }

    /* More than run and wait: the rest is refused, and says so. Cancelled ones end, those at work and those that wait. */
    how.max_tokens = 0;
    size_t n = 0;
    uint32_t status;
    do
        status = herald_submit(scheduler, &prompts[1], &how, &all[n], &error);
    while (status == HERALD_STATUS_OK && ++n < 8);
    CHECK(status == HERALD_STATUS_QUEUE_FULL && n >= 4 && all[n] == NULL && strstr(error.message, "try again") != NULL);
    for (size_t i = 0; i < n; i++) {
        HeraldEvent event = {.struct_size = sizeof event};
        herald_request_cancel(all[i]);
        do
            OK(herald_request_next(all[i], HERALD_WAIT_FOREVER, &event, &error));
        while (event.kind != HERALD_EVENT_FINISHED);
        CHECK(event.generated->finish == HERALD_FINISH_CANCELLED ||
              event.generated->finish == HERALD_FINISH_CONTEXT_FULL);
        if (i % 2 == 0)
            herald_request_free(all[i]);
    }

    HeraldRequest *none = (HeraldRequest *)&error;
    HeraldPrompt wrong = {.struct_size = sizeof wrong};
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "0 of text", herald_submit(scheduler, &wrong, &how, &none, &error));
    CHECK(none == NULL);
    wrong.text = "x";
    wrong.ids = ids;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "2 of text", herald_submit(scheduler, &wrong, &how, &none, &error));
    how.on_piece = count_piece;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "on_piece", herald_submit(scheduler, &prompts[1], &how, &none, &error));

    static char text[65536];
    size_t len;
    OK(herald_metrics_json(engine, scheduler, text, sizeof text, &len, &error));
    CHECK(text[0] == '{' && strstr(text, "\"serving\"") != NULL && strstr(text, "\"tiers\"") != NULL);
    OK(herald_metrics_prometheus(engine, scheduler, text, sizeof text, &len, &error));
    CHECK(strstr(text, "herald_generated_tokens_total") != NULL && strcmp(text + len - 6, "# EOF\n") == 0);
    OK(herald_metrics_json(engine, NULL, text, sizeof text, &len, &error));
    CHECK(strstr(text, "\"serving\"") == NULL);
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "room", herald_metrics_prometheus(engine, NULL, text, 10, &len, &error));
    CHECK(len > 10);

    /* Requests outlive their scheduler, which has ended them. */
    how.on_piece = NULL;
    OK(herald_submit(scheduler, &prompts[1], &how, &none, &error));
    herald_scheduler_free(scheduler);
    HeraldEvent event = {.struct_size = sizeof event};
    do
        OK(herald_request_next(none, HERALD_WAIT_FOREVER, &event, &error));
    while (event.kind != HERALD_EVENT_FINISHED);
    herald_request_free(none);
    for (size_t i = 1; i < n; i += 2)
        herald_request_free(all[i]);
}

static void contexts(void) {
    HeraldMemory *memory;
    HeraldMemoryUsage usage = {.struct_size = sizeof usage};
    HeraldOptimized optimized = {.struct_size = sizeof optimized};
    HeraldLeakStats stats = {.struct_size = sizeof stats};
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 3, .on_piece = count_piece};
    HeraldGenerated done = {.struct_size = sizeof done};
    const uint32_t ids[3] = {5, 6, 7};
    Count count = {0, 0};
    uint64_t moved;
    size_t n;
    how.user_data = &count;
    OK(herald_memory_new(engine, &memory, &error));
    OK(herald_memory_mark(memory, &error));
    OK(herald_memory_add_to_active(memory, "story", "Once upon a time", 16, &n, &error));
    OK(herald_memory_add_ids_to_active(memory, "story", ids, 3, &error));
    OK(herald_memory_generate(memory, "story", " there", 6, &how, &done, &error));
    CHECK(n > 0 && count.calls > 0 && done.n_tokens > 0);
    OK(herald_memory_cancel(memory, "story", &error));
    FAILS(HERALD_STATUS_CANCELLED, "cancelled", herald_memory_add_ids_to_active(memory, "story", ids, 3, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "no context", herald_memory_cancel(memory, "nothing", &error));
    OK(herald_memory_compress(memory, "story", 0, &moved, &error));
    OK(herald_memory_optimize(memory, &optimized, &error));
    OK(herald_memory_usage(memory, "story", &usage, &error));
    OK(herald_memory_usage(memory, NULL, &usage, &error));
    OK(herald_memory_leak_stats(memory, &stats, &error));
    OK(herald_memory_clear_active(memory, "story", &error));
    OK(herald_memory_close(memory, "story", &error));
    herald_memory_free(memory);
}

static void documents(void) {
    HeraldDocuments *documents;
    char text[1024];
    size_t len;
    uint64_t id;
    Count count = {0, 0};
    OK(herald_documents_open(engine, NULL, &documents, &error));
    OK(herald_documents_add(documents, "bees", "Bees make honey.", 16, &id, &error));
    OK(herald_documents_search(documents, "honey", 3, count_hit, &count, &error));
    CHECK(count.calls == 1);
    OK(herald_documents_recall(documents, "What do bees make?", 1, 200, text, sizeof text, &len, &error));
    OK(herald_documents_remove(documents, id, &error));
    OK(herald_documents_clear(documents, &error));
    herald_documents_free(documents);
}

/* An adapter changes what it is asked for, and nothing else. */
static void adapters(const char *model, const char *adapter) {
    const char *const files[2] = {adapter, adapter};
    const float none[2] = {0, 0}, nan = (float)(0.0 / 0.0), half[2] = {0.5f, 0.5f};
    const uint32_t both[2] = {1, 0}, missing = 2, ids[6] = {11, 12, 13, 14, 15, 16};
    HeraldEngineOptions options = {.struct_size = sizeof options,
                                   .model_path = model,
                                   .threads = 1,
                                   .context = 64,
                                   .loras = files,
                                   .lora_scales = none,
                                   .n_loras = 2};
    HeraldEngine *tuned;
    HeraldEngineSequence *plain, *sequence;
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 4, .flags = HERALD_GENERATE_IGNORE_EOS};
    static float without[512], with[512];
    OK(herald_engine_load(&options, &tuned, &error));
    OK(herald_sequence_new(tuned, &plain, &error));
    OK(herald_sequence_new(tuned, &sequence, &error));
    OK(herald_sequence_set_loras(sequence, both, half, 2, &error));
    OK(herald_prefill(tuned, plain, ids, 6, without, 512, &error));
    OK(herald_prefill(tuned, sequence, ids, 6, with, 512, &error));
    CHECK(memcmp(with, without, sizeof with) != 0);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "other adapters", herald_sequence_set_loras(sequence, both, half, 1, &error));
    OK(herald_sequence_truncate(sequence, 0, &error));
    OK(herald_sequence_set_loras(sequence, NULL, NULL, 0, &error));
    OK(herald_prefill(tuned, sequence, ids, 6, with, 512, &error));
    CHECK(memcmp(with, without, sizeof with) == 0);
    OK(herald_sequence_truncate(sequence, 0, &error));
    how.loras = both, how.lora_scales = half, how.n_loras = 2;
    OK(herald_generate_ids(tuned, sequence, ids, 6, &how, NULL, &error));
    how.loras = &missing, how.n_loras = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "no adapter 2", herald_generate_ids(tuned, sequence, ids, 6, &how, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "finite", herald_sequence_set_loras(plain, both, &nan, 1, &error));
    herald_sequence_free(sequence);
    herald_sequence_free(plain);
    herald_engine_free(tuned);
    options.loras = &model;
    options.n_loras = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "general.type", herald_engine_load(&options, &tuned, &error));
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    static size_t lines;
    OK(herald_log(HERALD_LOG_WARN, count_line, &lines, &error));
    HeraldEngineOptions options = {.struct_size = sizeof options,
                                   .model_path = argv[1],
                                   .backend = "cpu",
                                   .threads = 2,
                                   .context = 512,
                                   .max_batch = 64,
                                   .active_tokens = 256,
                                   .compressed_tokens = 128,
                                   .archive = argv[3],
                                   .memory_budget = 1u << 30,
                                   .prefix_bytes = 1u << 24,
                                   .selected_pages = HERALD_ALL_PAGES,
                                   .flags = HERALD_LOAD_ARCHIVE_LZ4};
    OK(herald_engine_load(&options, &engine, &error));
    facts_and_texts();
    inside();
    sequences(argv[2]);
    requests();
    contexts();
    documents();
    herald_engine_free(engine);
    adapters(argv[1], argv[4]);

    /* Exact: nothing is ever compressed. */
    HeraldEngineOptions exact = {.struct_size = sizeof exact,
                                 .model_path = argv[1],
                                 .threads = 1,
                                 .context = 512,
                                 .flags = HERALD_LOAD_EXACT | HERALD_LOAD_NO_PREFIX_CACHE};
    HeraldMemoryUsage usage = {.struct_size = sizeof usage};
    HeraldEngineSequence *sequence;
    static uint32_t ids[500];
    exact.active_tokens = 9;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HERALD_LOAD_EXACT and active_tokens",
          herald_engine_load(&exact, &engine, &error));
    exact.active_tokens = 0;
    OK(herald_engine_load(&exact, &engine, &error));
    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_prefill(engine, sequence, ids, 500, NULL, 0, &error));
    OK(herald_sequence_usage(sequence, &usage, &error));
    CHECK(usage.compressed_pages == 0 && usage.archived_pages == 0 && usage.ratio < 1.01);
    herald_sequence_free(sequence);
    herald_engine_free(engine);
    exact.memory_budget = usage.memory_bytes / 2; /* Exact comes before the budget. */
    OK(herald_engine_load(&exact, &engine, &error));
    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_prefill(engine, sequence, ids, 100, NULL, 0, &error));
    FAILS(HERALD_STATUS_OUT_OF_MEMORY, "memory budget", herald_prefill(engine, sequence, ids, 400, NULL, 0, &error));
    OK(herald_sequence_usage(sequence, &usage, &error));
    CHECK(usage.compressed_pages == 0);
    herald_sequence_free(sequence);
    herald_engine_free(engine);
    OK(herald_log(HERALD_LOG_WARN, NULL, NULL, &error));
    return 0;
}
