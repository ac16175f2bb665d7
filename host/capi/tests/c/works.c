/* What the functions do with correct arguments, and how work is stopped. */

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/stat.h>

#include "check.h"

static HeraldEngine *engine;
static HeraldEngineSequence *sequence;

/* What a generation has passed to the callback. */
typedef struct Heard {
    char text[4096];
    size_t text_len;
    uint32_t tokens[256];
    size_t n_tokens;
    size_t n_top;
    size_t stop_after; /* 0: never. */
} Heard;

static int32_t hear(void *user_data, const HeraldPiece *piece) {
    Heard *heard = user_data;
    CHECK(piece->struct_size == sizeof *piece && strlen(piece->text) == piece->text_len);
    CHECK(heard->text_len + piece->text_len < sizeof heard->text);
    memcpy(heard->text + heard->text_len, piece->text, piece->text_len + 1);
    heard->text_len += piece->text_len;
    if (piece->token != HERALD_NO_TOKEN) {
        CHECK(heard->n_tokens < 256 && piece->logprob <= 0.0f);
        heard->tokens[heard->n_tokens++] = piece->token;
        heard->n_top = piece->n_top;
        for (size_t i = 1; i < piece->n_top; i++)
            CHECK(piece->top_logprobs[i - 1] >= piece->top_logprobs[i] && piece->top_tokens[i] < 512);
    }
    /* The sequence is in use and refuses calls; the engine is free for other work. */
    size_t n;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "in use", herald_sequence_len(sequence, &n, &error));
    OK(herald_tokenize(engine, "", 0, 0, NULL, 0, &n, &error));
    return heard->stop_after != 0 && heard->n_tokens >= heard->stop_after ? HERALD_STOP : HERALD_GO_ON;
}

static HeraldGenerated generate(const HeraldGenerateOptions *how, Heard *heard) {
    HeraldGenerateOptions options = *how;
    HeraldGenerated done = {.struct_size = sizeof done};
    options.on_piece = hear;
    options.user_data = heard;
    OK(herald_sequence_truncate(sequence, 0, &error));
    OK(herald_generate(engine, sequence, "The capital", 11, HERALD_TEXT_PROMPT, &options, &done, &error));
    CHECK(done.n_tokens == heard->n_tokens);
    return done;
}

static void text_to_tokens(void) {
    const char text[] = "Hello, <|im_start|>w\xc3\xb6rld";
    uint32_t ids[64];
    size_t n, len;
    char back[64];
    OK(herald_tokenize(engine, text, sizeof text - 1, 0, ids, 64, &n, &error));
    OK(herald_detokenize(engine, ids, n, 0, back, sizeof back, &len, &error));
    CHECK(len == sizeof text - 1 && strcmp(back, text) == 0);

    /* Each token's bytes, one after another, are the text too. */
    len = 0;
    for (size_t i = 0; i < n; i++) {
        size_t more;
        OK(herald_token_bytes(engine, ids[i], 0, back + len, sizeof back - len, &more, &error));
        len += more;
    }
    CHECK(strcmp(back, text) == 0);

    /* With HERALD_TEXT_SPECIAL a special token is one token and is written out; without it, it is plain text or left out. */
    size_t fewer;
    OK(herald_tokenize(engine, text, sizeof text - 1, HERALD_TEXT_SPECIAL, ids, 64, &fewer, &error));
    CHECK(fewer < n);
    OK(herald_detokenize(engine, ids, fewer, HERALD_TEXT_SPECIAL, back, sizeof back, &len, &error));
    CHECK(strcmp(back, text) == 0);
    OK(herald_detokenize(engine, ids, fewer, HERALD_TEXT_CONTINUES, back, sizeof back, &len, &error));
    CHECK(strcmp(back, "Hello, w\xc3\xb6rld") == 0);
    CHECK(herald_token_ends(engine, 0) == 1 && herald_token_ends(engine, 100) == 0);
}

static int32_t first_rows(void *user_data, size_t index, const float *logits, size_t n_logits) {
    float *rows = user_data;
    CHECK(n_logits == 512 && index < 3);
    memcpy(rows + index * 512, logits, sizeof(float[512]));
    return index == 2 ? HERALD_STOP : HERALD_GO_ON;
}

/* Passes of other sizes add in another order, so the last digits may differ. */
static int are_close(const float *a, const float *b) {
    for (size_t i = 0; i < 512; i++)
        if (!(fabsf(a[i] - b[i]) < 1e-4f))
            return 0;
    return 1;
}

static void logits_in_every_way(void) {
    static float rows[3 * 512], all_at_once[512], one_by_one[512], in_a_batch[2 * 512];
    const uint32_t ids[4] = {50, 60, 70, 80};
    size_t len;

    /* A stop in the middle: no more rows come. */
    CHECK(herald_logits(engine, sequence, ids, 4, first_rows, rows, &error) == HERALD_STATUS_CANCELLED);
    OK(herald_sequence_truncate(sequence, 0, &error));

    OK(herald_prefill(engine, sequence, ids, 3, all_at_once, 512, &error));
    CHECK(are_close(all_at_once, rows + 2 * 512));
    OK(herald_sequence_truncate(sequence, 2, &error));
    OK(herald_decode(engine, &sequence, &ids[2], 1, one_by_one, 512, &error));

    HeraldEngineSequence *both[2] = {sequence, NULL};
    OK(herald_sequence_new(engine, &both[1], &error));
    OK(herald_prefill(engine, both[1], ids, 2, NULL, 0, &error));
    OK(herald_sequence_truncate(sequence, 1, &error));
    const uint32_t next[2] = {ids[1], ids[2]};
    OK(herald_decode(engine, both, next, 2, in_a_batch, 2 * 512, &error));
    CHECK(are_close(one_by_one, all_at_once));
    CHECK(are_close(in_a_batch, rows + 512) && are_close(in_a_batch + 512, all_at_once));
    uint32_t tokens[8];
    OK(herald_sequence_tokens(both[1], tokens, 8, &len, &error));
    CHECK(len == 3 && memcmp(tokens, ids, sizeof(uint32_t[3])) == 0);
    herald_sequence_free(both[1]);
    OK(herald_sequence_truncate(sequence, 0, &error));
}

static void generations(void) {
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 20, .top_logprobs = 3};
    static Heard greedy, again, some, drawn, same, banned;
    size_t len;

    HeraldGenerated done = generate(&how, &greedy);
    CHECK(done.finish == HERALD_FINISH_LENGTH && done.n_tokens == 20 && done.end_token == HERALD_NO_TOKEN);
    CHECK(greedy.n_top == 3 && done.n_prompt_tokens > 0 && done.prompt_seconds > 0 && done.decode_seconds > 0);
    OK(herald_sequence_len(sequence, &len, &error));
    CHECK(len == done.n_prompt_tokens + 19); /* The last token has not been run. */

    /* An older caller's shorter struct: missing fields have their defaults. */
    how.struct_size = offsetof(HeraldGenerateOptions, top_logprobs);
    generate(&how, &again);
    CHECK(again.n_top == 0 && memcmp(again.tokens, greedy.tokens, sizeof greedy.tokens) == 0);
    how.struct_size = sizeof how;

    some.stop_after = 5;
    CHECK(generate(&how, &some).finish == HERALD_FINISH_CANCELLED && some.n_tokens == 5);

    /* A stop text from the middle of the earlier text: the text ends before its first occurrence. */
    const char *stops[2] = {"this does not come", greedy.text + greedy.text_len / 2};
    const char *first = strstr(greedy.text, stops[1]);
    static Heard stopped;
    how.stops = stops;
    how.n_stops = 2;
    done = generate(&how, &stopped);
    CHECK(done.finish == HERALD_FINISH_STOP_TEXT && done.stop == 1);
    CHECK(stopped.text_len == (size_t)(first - greedy.text) && memcmp(stopped.text, greedy.text, stopped.text_len) == 0);
    how.n_stops = 0;

    static Heard ended;
    how.stop_tokens = &greedy.tokens[7];
    how.n_stop_tokens = 1;
    done = generate(&how, &ended);
    CHECK(done.finish == HERALD_FINISH_END_TOKEN && done.end_token == greedy.tokens[7] && done.n_tokens <= 8);
    how.n_stop_tokens = 0;

    static Heard formed;
    how.regex = "[0-9]{3}-[a-c]";
    done = generate(&how, &formed);
    CHECK(done.finish == HERALD_FINISH_COMPLETE && formed.text_len == 5 && formed.text[3] == '-');
    how.regex = NULL;
    static Heard json;
    how.json_schema = "{\"enum\": [\"yes\"]}";
    done = generate(&how, &json);
    CHECK(done.finish == HERALD_FINISH_COMPLETE && json.text_len == 5 && memcmp(json.text, "\"yes\"", 5) == 0);
    how.json_schema = NULL;
    static Heard parsed;
    how.grammar = "root ::= \"no\" | \"never\"";
    done = generate(&how, &parsed);
    CHECK(done.finish == HERALD_FINISH_COMPLETE && parsed.text[0] == 'n');
    how.grammar = NULL;

    const float minus_infinity = -INFINITY;
    how.bias_tokens = &greedy.tokens[0];
    how.biases = &minus_infinity;
    how.n_biases = 1;
    generate(&how, &banned);
    for (size_t i = 0; i < banned.n_tokens; i++)
        CHECK(banned.tokens[i] != greedy.tokens[0]);
    how.n_biases = 0;

    how.temperature = 1.5f;
    how.flags = HERALD_GENERATE_SEEDED | HERALD_GENERATE_IGNORE_EOS;
    how.seed = 42;
    CHECK(generate(&how, &drawn).seed == 42);
    generate(&how, &same);
    CHECK(memcmp(drawn.tokens, same.tokens, sizeof drawn.tokens) == 0);
    CHECK(memcmp(drawn.tokens, greedy.tokens, sizeof drawn.tokens) != 0);
}

/* Cancelled from another thread during the callback for the first token. */
static void *cancel(void *unused) {
    herald_sequence_cancel(sequence);
    return unused;
}

static int32_t wait_for_cancel(void *user_data, const HeraldPiece *piece) {
    pthread_t thread;
    (void)user_data, (void)piece;
    CHECK(pthread_create(&thread, NULL, cancel, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return HERALD_GO_ON;
}

static void cancelled_from_another_thread(void) {
    HeraldGenerateOptions how = {.struct_size = sizeof how, .on_piece = wait_for_cancel};
    HeraldGenerated done = {.struct_size = sizeof done};
    OK(herald_sequence_truncate(sequence, 0, &error));
    OK(herald_generate(engine, sequence, "The", 3, 0, &how, &done, &error));
    CHECK(done.finish == HERALD_FINISH_CANCELLED && done.n_tokens == 1);

    herald_sequence_cancel(sequence); /* Nothing runs: the next call is told. */
    const uint32_t ids[9] = {9};
    FAILS(HERALD_STATUS_CANCELLED, "cancelled", herald_prefill(engine, sequence, ids, 9, NULL, 0, &error));
    OK(herald_prefill(engine, sequence, ids, 9, NULL, 0, &error));
    OK(herald_sequence_truncate(sequence, 0, &error));
}

/* Two threads on one engine, each with its own sequence. */
static void *prefill(void *logits) {
    HeraldEngineSequence *own = NULL;
    HeraldError failure = {.struct_size = sizeof failure};
    const uint32_t ids[3] = {9, 8, 7};
    uint32_t status = herald_sequence_new(engine, &own, &failure);
    if (status == HERALD_STATUS_OK)
        status = herald_prefill(engine, own, ids, 3, logits, 512, &failure);
    herald_sequence_free(own);
    return status == HERALD_STATUS_OK ? logits : NULL;
}

static void two_threads(void) {
    static float logits[2][512];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, prefill, logits[i]) == 0);
    for (int i = 0; i < 2; i++) {
        void *done;
        CHECK(pthread_join(threads[i], &done) == 0 && done == logits[i]);
    }
    CHECK(are_close(logits[0], logits[1]));
}

static void chat(const char *model) {
    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = model};
    const HeraldMessage messages[2] = {{sizeof(HeraldMessage), "user", "Hello"},
                                       {sizeof(HeraldMessage), "assistant", "Hi"}};
    HeraldEngine *chatty;
    char text[128];
    size_t len;
    OK(herald_engine_load(&options, &chatty, &error));
    OK(herald_chat_format(chatty, messages, 2, 0, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "<user>Hello<assistant>Hi") == 0 && len == strlen(text));
    OK(herald_chat_format(chatty, messages, 1, 1, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "<user>Hello<assistant>") == 0);
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "room for 22", herald_chat_format(chatty, messages, 1, 1, text, 22, &len, &error));
    CHECK(len == 22);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "one message at least",
          herald_chat_format(chatty, NULL, 0, 1, text, sizeof text, &len, &error));
    herald_engine_free(chatty);
}

static size_t lines;

static void log_line(void *user_data, uint32_t level, const char *text, size_t text_len) {
    CHECK(user_data == &lines && level >= HERALD_LOG_ERROR && level <= HERALD_LOG_WARN && strlen(text) == text_len);
    lines += strstr(text, "libherald_nothing.so") != NULL;
}

/* An unusable plugin in a folder that is searched costs a line in the log, and the next one is tried. One that was named is an
   error. */
static void log_of_a_load(const char *model, const char *beside) {
    char folder[4096], file[4200];
    snprintf(folder, sizeof folder, "%s.plugins", beside);
    snprintf(file, sizeof file, "%s/libherald_nothing.so", folder);
    CHECK(mkdir(folder, 0755) == 0 || errno == EEXIST);
    FILE *nothing = fopen(file, "w");
    CHECK(nothing && fputs("nothing", nothing) >= 0 && fclose(nothing) == 0);
    CHECK(setenv("HERALD_PLUGIN_PATH", folder, 1) == 0);
    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = model};
    HeraldEngine *loaded;
    OK(herald_log(HERALD_LOG_WARN, log_line, &lines, &error));
    OK(herald_engine_load(&options, &loaded, &error));
    herald_engine_free(loaded);
    CHECK(lines == 1);
    OK(herald_log(HERALD_LOG_WARN, NULL, NULL, &error));
    OK(herald_engine_load(&options, &loaded, &error));
    herald_engine_free(loaded);
    CHECK(lines == 1);
    CHECK(unsetenv("HERALD_PLUGIN_PATH") == 0);

    const char *plugin = "/nowhere/libherald_nothing.so";
    options.plugins = &plugin;
    options.n_plugins = 1;
    FAILS(HERALD_STATUS_NOT_FOUND, "libherald_nothing.so", herald_engine_load(&options, &loaded, &error));
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    HeraldEngineOptions options = {.struct_size = sizeof options,
                                   .model_path = argv[1],
                                   .backend = "cpu",
                                   .threads = 2,
                                   .context = 256,
                                   .max_batch = 4};
    HeraldEngineInfo info = {.struct_size = sizeof info};
    char backend[16];
    size_t len;
    OK(herald_engine_load(&options, &engine, &error));
    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_engine_info(engine, &info, &error));
    CHECK(info.vocabulary == 512 && info.context == 256 && info.hidden == 64 && info.blocks == 3 && info.threads == 2);
    CHECK(info.bos == 0 && info.eos == 0 && info.load_seconds > 0);
    OK(herald_engine_backend(engine, backend, sizeof backend, &len, &error));
    CHECK(strcmp(backend, "cpu") == 0 && len == 3 && strlen(herald_version()) >= 5);

    text_to_tokens();
    logits_in_every_way();
    generations();
    cancelled_from_another_thread();
    two_threads();
    chat(argv[2]);
    log_of_a_load(argv[1], argv[2]);

    /* The engine first: the sequence keeps the model that it needs. */
    herald_engine_free(engine);
    OK(herald_sequence_len(sequence, &len, &error));
    herald_sequence_free(sequence);
    return 0;
}
