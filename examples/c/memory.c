/*
 * The memory manager and the documents, in C11.
 *
 *     memory MODEL.gguf
 *
 * Fills, compresses, continues, clears and optimises a context, and prints its memory after each step; then keeps texts and
 * searches them. Everything goes to stdout, one line per step.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <herald.h>

/* Everything that the program owns; main frees it. */
typedef struct Program {
    HeraldEngine *engine;
    HeraldMemory *memory;
    HeraldDocuments *texts;
    HeraldError error;
} Program;

static uint32_t show_usage(Program *program, const char *step) {
    HeraldMemoryUsage usage = {.struct_size = sizeof usage};
    uint32_t status = herald_memory_usage(program->memory, "book", &usage, &program->error);
    if (status == HERALD_STATUS_OK)
        printf("%s: %llu pages active, %llu compressed, %llu archived, %.2f times smaller\n", step,
               (unsigned long long)usage.active_pages, (unsigned long long)usage.compressed_pages,
               (unsigned long long)usage.archived_pages, usage.ratio);
    return status;
}

/* Fills a context with a text, compresses its older pages, generates from it, and clears it. */
static uint32_t manage(Program *program) {
    const char *sentence = "The lamp was lit again at dusk, and the ships found their way home. ";
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 8, .flags = HERALD_GENERATE_IGNORE_EOS};
    HeraldGenerated generated = {.struct_size = sizeof generated};
    HeraldOptimized optimized = {.struct_size = sizeof optimized};
    HeraldLeakStats leaks = {.struct_size = sizeof leaks};
    HeraldError *error = &program->error;
    uint32_t status = herald_memory_mark(program->memory, error);
    size_t added = 0, all = 0;
    uint64_t moved = 0;

    for (int i = 0; i < 20 && status == HERALD_STATUS_OK; i++, all += added)
        status = herald_memory_add_to_active(program->memory, "book", sentence, strlen(sentence), &added, error);
    if (status == HERALD_STATUS_OK)
        status = show_usage(program, "added");
    if (status == HERALD_STATUS_OK)
        status = herald_memory_compress(program->memory, "book", 64, &moved, error);
    if (status == HERALD_STATUS_OK)
        status = show_usage(program, "compressed");
    if (status == HERALD_STATUS_OK)
        status = herald_memory_generate(program->memory, "book", "And then", 8, &how, &generated, error);
    if (status == HERALD_STATUS_OK)
        status = herald_memory_clear_active(program->memory, NULL, error);
    if (status == HERALD_STATUS_OK)
        status = herald_memory_optimize(program->memory, &optimized, error);
    if (status == HERALD_STATUS_OK)
        status = herald_memory_leak_stats(program->memory, &leaks, error);
    if (status == HERALD_STATUS_OK)
        printf("%zu tokens, %llu moves of pages, %zu tokens generated; %llu pages are left, %llu without an owner\n", all,
               (unsigned long long)moved, generated.n_tokens, (unsigned long long)leaks.held_pages,
               (unsigned long long)leaks.orphaned_pages);
    return status;
}

static int32_t show_hit(void *user_data, const HeraldHit *hit) {
    (void)user_data;
    printf("%.*s: %.*s\n", (int)hit->name_len, hit->name, (int)hit->text_len, hit->text);
    return HERALD_GO_ON;
}

/* Keeps texts and searches them. */
static uint32_t recall(Program *program) {
    static const char *const texts[] = {
        "The cat was asleep beside the fire while snow fell outside.",
        "The bank raised its interest rates again in autumn.",
        "Bees tell each other by a dance where the flowers are.",
    };
    HeraldError *error = &program->error;
    uint32_t status = HERALD_STATUS_OK;
    size_t len = 0;

    for (size_t i = 0; i < 3 && status == HERALD_STATUS_OK; i++) {
        char name[16];
        snprintf(name, sizeof name, "note %zu", i + 1);
        status = herald_documents_add(program->texts, name, texts[i], strlen(texts[i]), NULL, error);
    }
    if (status == HERALD_STATUS_OK)
        status = herald_documents_search(program->texts, "interest rates", 1, show_hit, NULL, error);
    if (status != HERALD_STATUS_OK)
        return status;

    /* The first call gets the length. */
    status = herald_documents_recall(program->texts, "What do bees do?", 2, 256, NULL, 0, &len, error);
    if (status != HERALD_STATUS_BUFFER_TOO_SMALL)
        return status;
    char *prompt = malloc(len + 1);
    if (prompt == NULL) {
        snprintf(error->message, sizeof error->message, "there is no memory for a prompt of %zu bytes", len);
        return HERALD_STATUS_OUT_OF_MEMORY;
    }
    status = herald_documents_recall(program->texts, "What do bees do?", 2, 256, prompt, len + 1, &len, error);
    if (status == HERALD_STATUS_OK)
        printf("%s\n", prompt);
    free(prompt);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: memory MODEL.gguf\n");
        return 2;
    }
    Program program = {.error = {.struct_size = sizeof(HeraldError)}};
    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = argv[1], .context = 4096};

    uint32_t status = herald_engine_load(&options, &program.engine, &program.error);
    if (status == HERALD_STATUS_OK)
        status = herald_memory_new(program.engine, &program.memory, &program.error);
    if (status == HERALD_STATUS_OK)
        status = manage(&program);
    if (status == HERALD_STATUS_OK)
        status = herald_documents_open(program.engine, NULL, &program.texts, &program.error);
    if (status == HERALD_STATUS_OK)
        status = recall(&program);
    if (status != HERALD_STATUS_OK)
        fprintf(stderr, "error: %s\n", program.error.message);
    herald_documents_free(program.texts);
    herald_memory_free(program.memory);
    herald_engine_free(program.engine);
    return status != HERALD_STATUS_OK;
}
