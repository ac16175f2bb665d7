/*
 * Generates text with HERALD, in C11.
 *
 *     generate MODEL.gguf PROMPT [MAX_TOKENS]
 *
 * Text goes to stdout as it is generated, everything else to stderr. Ctrl-C ends the text, and the program cleanly.
 */

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <herald.h>

/* Everything that the program owns; main frees it. */
typedef struct Program {
    HeraldEngine *engine;
    HeraldEngineSequence *sequence;
    uint32_t *ids;
    float *logits;
    HeraldError error;
} Program;

/* The sequence that Ctrl-C stops. */
static _Atomic(HeraldEngineSequence *) running = NULL;

static void interrupted(int signal) {
    (void)signal;
    herald_sequence_cancel(running); /* May be called from a signal handler, and with null. */
}

/* Each piece of text comes here as soon as it is certain. */
static int32_t show(void *user_data, const HeraldPiece *piece) {
    size_t *tokens = user_data;
    if (piece->token != HERALD_NO_TOKEN)
        ++*tokens;
    if (fwrite(piece->text, 1, piece->text_len, stdout) != piece->text_len || fflush(stdout) != 0)
        return HERALD_STOP; /* stdout was closed. */
    return HERALD_GO_ON;
}

/* Loads the model, creates a sequence, and prints what was loaded. */
static uint32_t load(Program *program, const char *path) {
    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = path};
    uint32_t status = herald_engine_load(&options, &program->engine, &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    status = herald_sequence_new(program->engine, &program->sequence, &program->error);
    if (status != HERALD_STATUS_OK)
        return status;

    HeraldEngineInfo info = {.struct_size = sizeof info};
    status = herald_engine_info(program->engine, &info, &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    char backend[128];
    size_t len;
    status = herald_engine_backend(program->engine, backend, sizeof backend, &len, &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    fprintf(stderr, "HERALD %s: %u tokens of vocabulary, %u of context, backend %s, %u threads, loaded in %.2f s\n",
            herald_version(), (unsigned)info.vocabulary, (unsigned)info.context, backend, (unsigned)info.threads,
            info.load_seconds);
    return HERALD_STATUS_OK;
}

/* The prompt's ids, with the model's BOS token: the first call gets their number, the second the ids. */
static uint32_t tokenize(Program *program, const char *prompt, size_t *n_ids) {
    uint32_t status = herald_tokenize(program->engine, prompt, strlen(prompt), HERALD_TEXT_PROMPT, NULL, 0, n_ids,
                                      &program->error);
    if (status != HERALD_STATUS_OK && status != HERALD_STATUS_BUFFER_TOO_SMALL)
        return status;
    program->ids = malloc((*n_ids + 1) * sizeof *program->ids);
    if (program->ids == NULL) {
        snprintf(program->error.message, sizeof program->error.message, "no memory for %zu ids", *n_ids);
        return HERALD_STATUS_OUT_OF_MEMORY;
    }
    status = herald_tokenize(program->engine, prompt, strlen(prompt), HERALD_TEXT_PROMPT, program->ids, *n_ids, n_ids,
                             &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    fprintf(stderr, "prompt ids:");
    for (size_t i = 0; i < *n_ids; i++)
        fprintf(stderr, " %u", (unsigned)program->ids[i]);
    fprintf(stderr, "\n");
    return HERALD_STATUS_OK;
}

/* Prints the token that the model finds most probable after the prompt. The sequence is empty again afterwards. */
static uint32_t look_at_logits(Program *program, size_t n_ids) {
    HeraldEngineInfo info = {.struct_size = sizeof info};
    uint32_t status = herald_engine_info(program->engine, &info, &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    program->logits = malloc(info.vocabulary * sizeof *program->logits);
    if (program->logits == NULL) {
        snprintf(program->error.message, sizeof program->error.message, "no memory for the logits");
        return HERALD_STATUS_OUT_OF_MEMORY;
    }
    status = herald_prefill(program->engine, program->sequence, program->ids, n_ids, program->logits, info.vocabulary,
                            &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    uint32_t best = 0;
    for (uint32_t id = 1; id < info.vocabulary; id++)
        if (program->logits[id] > program->logits[best])
            best = id;

    char text[256];
    size_t len;
    status = herald_detokenize(program->engine, &best, 1, HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES, text,
                               sizeof text, &len, &program->error);
    if (status != HERALD_STATUS_OK)
        return status;
    fprintf(stderr, "next: %u (\"%s\"), logit %.4f\n", (unsigned)best, text, (double)program->logits[best]);
    return herald_sequence_truncate(program->sequence, 0, &program->error);
}

static const char *reason(uint32_t finish) {
    switch (finish) {
    case HERALD_FINISH_END_TOKEN:
        return "the model ended it";
    case HERALD_FINISH_STOP_TEXT:
        return "a stop text";
    case HERALD_FINISH_LENGTH:
        return "max_tokens";
    case HERALD_FINISH_CONTEXT_FULL:
        return "the context is full";
    case HERALD_FINISH_COMPLETE:
        return "it matches the schema";
    case HERALD_FINISH_CANCELLED:
        return "stopped";
    default:
        return "a reason that is newer than this program";
    }
}

static uint32_t generate(Program *program, size_t n_ids, uint32_t max_tokens) {
    size_t shown = 0;
    HeraldGenerateOptions options = {
        .struct_size = sizeof options,
        .on_piece = show,
        .user_data = &shown,
        .max_tokens = max_tokens,
        /* Greedy. For livelier text: .temperature = 0.8f, .top_p = 0.95f */
    };
    HeraldGenerated done = {.struct_size = sizeof done};
    running = program->sequence;
    uint32_t status = herald_generate_ids(program->engine, program->sequence, program->ids, n_ids, &options, &done,
                                          &program->error);
    running = NULL;
    printf("\n");
    if (status != HERALD_STATUS_OK)
        return status;
    fprintf(stderr, "%zu tokens (%s), prompt %.0f tokens/s, decode %.0f tokens/s\n", shown, reason(done.finish),
            done.prompt_seconds > 0 ? (double)done.n_prompt_tokens / done.prompt_seconds : 0.0,
            done.decode_seconds > 0 ? (double)done.n_tokens / done.decode_seconds : 0.0);
    return HERALD_STATUS_OK;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s MODEL.gguf PROMPT [MAX_TOKENS]\n", argv[0]);
        return 2;
    }
    unsigned long max_tokens = 64;
    if (argc == 4) {
        char *end;
        errno = 0;
        max_tokens = strtoul(argv[3], &end, 10);
        if (*end != '\0' || end == argv[3] || errno != 0 || max_tokens == 0 || max_tokens > UINT32_MAX) {
            fprintf(stderr, "%s: MAX_TOKENS is \"%s\", where a number from 1 was expected\n", argv[0], argv[3]);
            return 2;
        }
    }
    signal(SIGINT, interrupted);

    Program program = {.error = {.struct_size = sizeof program.error}};
    size_t n_ids = 0;
    uint32_t status = load(&program, argv[1]);
    if (status == HERALD_STATUS_OK)
        status = tokenize(&program, argv[2], &n_ids);
    if (status == HERALD_STATUS_OK)
        status = look_at_logits(&program, n_ids);
    if (status == HERALD_STATUS_OK)
        status = generate(&program, n_ids, (uint32_t)max_tokens);
    if (status != HERALD_STATUS_OK)
        fprintf(stderr, "%s: %s\n", argv[0], program.error.message);

    free(program.logits);
    free(program.ids);
    herald_sequence_free(program.sequence); /* All three accept null. */
    herald_engine_free(program.engine);
    return status == HERALD_STATUS_OK ? 0 : 1;
}
