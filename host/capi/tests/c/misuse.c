/* Wrong arguments to every function: each gets a status and a sentence, and nothing else is written. */

#include "check.h"

static int32_t go_on(void *user_data, size_t index, const float *logits, size_t n_logits) {
    (void)user_data, (void)index, (void)logits, (void)n_logits;
    return HERALD_GO_ON;
}

static void load(const char *model, const char *program) {
    HeraldEngine *engine = (HeraldEngine *)&error; /* Must be made null. */
    HeraldEngineOptions options = {.struct_size = sizeof options};

    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HeraldEngineOptions is null", herald_engine_load(NULL, &engine, &error));
    CHECK(engine == NULL);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "out is null", herald_engine_load(&options, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "model_path is null", herald_engine_load(&options, &engine, &error));
    options.model_path = model;
    options.struct_size = 0;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "has 0 bytes", herald_engine_load(&options, &engine, &error));
    options.struct_size = 8;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "has 8 bytes", herald_engine_load(&options, &engine, &error));
    options.struct_size = SIZE_MAX;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "bytes, where", herald_engine_load(&options, &engine, &error));
    options.struct_size = sizeof options;
    options.flags = 1u << 31;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "flags is 0x80000000", herald_engine_load(&options, &engine, &error));
    options.flags = HERALD_LOAD_INT8_ACTIVATIONS | HERALD_LOAD_INT16_ACTIVATIONS;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "are both set", herald_engine_load(&options, &engine, &error));
    options.flags = 0;
    options.n_plugins = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "plugins: 1 elements at null", herald_engine_load(&options, &engine, &error));
    options.n_plugins = SIZE_MAX;
    options.plugins = &options.model_path;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "plugins", herald_engine_load(&options, &engine, &error));
    options.n_plugins = 1;
    const char *no_plugin = NULL;
    options.plugins = &no_plugin;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "plugins[0] is null", herald_engine_load(&options, &engine, &error));
    no_plugin = "/nowhere/libherald_nothing.so";
    options.flags = HERALD_LOAD_ONLY_NAMED_PLUGINS;
    FAILS(HERALD_STATUS_NOT_FOUND, "libherald_nothing.so", herald_engine_load(&options, &engine, &error));
    options.flags = 0;
    options.n_plugins = 0;
    options.backend = "no\xff";
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "backend is not UTF-8: byte 2", herald_engine_load(&options, &engine, &error));
    options.backend = "abacus";
    FAILS(HERALD_STATUS_NOT_FOUND, "abacus", herald_engine_load(&options, &engine, &error));
    options.backend = NULL;
    options.threads = UINT32_MAX;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "threads", herald_engine_load(&options, &engine, &error));
    options.threads = 0;
    options.model_path = "/nowhere/model.gguf";
    FAILS(HERALD_STATUS_NOT_FOUND, "/nowhere/model.gguf", herald_engine_load(&options, &engine, &error));
    options.model_path = "/";
    CHECK(herald_engine_load(&options, &engine, &error) != HERALD_STATUS_OK);
    options.model_path = program;
    FAILS(HERALD_STATUS_CORRUPT, "misuse", herald_engine_load(&options, &engine, &error));
    CHECK(engine == NULL);

    /* No room for the sentence, or no struct at all: only the status. */
    HeraldError small = {.struct_size = 12, .message = "untouched"};
    CHECK(herald_engine_load(&options, &engine, &small) == HERALD_STATUS_CORRUPT);
    CHECK(strcmp(small.message, "untouched") == 0);
    CHECK(herald_engine_load(&options, &engine, NULL) == HERALD_STATUS_CORRUPT);
}

static void handles_that_are_null(HeraldEngine *engine) {
    HeraldEngineInfo info = {.struct_size = sizeof info};
    HeraldEngineSequence *sequence = NULL;
    uint32_t id = 3;
    size_t n = 0;
    char text[8];
    float logits[8];

    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_engine_info(NULL, &info, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_engine_backend(NULL, text, 8, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_sequence_new(NULL, &sequence, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_tokenize(NULL, "a", 1, 0, &id, 1, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_detokenize(NULL, &id, 1, 0, text, 8, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_token_bytes(NULL, id, 0, text, 8, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_prefill(NULL, NULL, &id, 1, logits, 8, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_decode(NULL, NULL, &id, 1, logits, 8, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_logits(NULL, NULL, &id, 1, go_on, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null",
          herald_generate(NULL, NULL, "a", 1, 0, NULL, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null",
          herald_generate_ids(NULL, NULL, &id, 1, NULL, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "engine is null", herald_chat_format(NULL, NULL, 0, 1, text, 8, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequence is null", herald_prefill(engine, NULL, &id, 1, NULL, 0, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequences[0] is null",
          herald_decode(engine, &sequence, &id, 1, NULL, 0, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequence is null",
          herald_logits(engine, NULL, &id, 1, go_on, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequence is null",
          herald_generate_ids(engine, NULL, &id, 1, NULL, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequence is null", herald_sequence_len(NULL, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequence is null", herald_sequence_tokens(NULL, &id, 1, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequence is null", herald_sequence_truncate(NULL, 0, &error));
    CHECK(herald_token_ends(NULL, 0) == 0);
    herald_sequence_cancel(NULL);
    herald_sequence_free(NULL);
    herald_engine_free(NULL);
}

static void answers(HeraldEngine *engine, HeraldEngineSequence *sequence) {
    HeraldEngineInfo info = {.struct_size = 7};
    uint32_t ids[4] = {77, 77, 77, 77};
    char text[4] = "zzz";
    size_t n = 99;

    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HeraldEngineInfo", herald_engine_info(engine, &info, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HeraldEngineInfo is null", herald_engine_info(engine, NULL, &error));
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "room for 3", herald_engine_backend(engine, text, 3, &n, &error));
    CHECK(n == 3 && strcmp(text, "zzz") == 0); /* "cpu" and a NUL need 4. */
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "is null", herald_engine_backend(engine, text, 3, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "is null", herald_engine_backend(engine, NULL, 4, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "out is null", herald_sequence_new(engine, NULL, &error));

    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "is needed", herald_tokenize(engine, "zzzz", 4, 0, ids, 1, &n, &error));
    CHECK(n > 1 && n <= 4 && ids[0] == 77);
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "is needed", herald_tokenize(engine, "zzzz", 4, 0, NULL, 0, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "is null", herald_tokenize(engine, "zzzz", 4, 0, NULL, 4, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "is null", herald_tokenize(engine, "zzzz", 4, 0, ids, 4, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "text", herald_tokenize(engine, NULL, 4, 0, ids, 4, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "text", herald_tokenize(engine, "z", SIZE_MAX, 0, ids, 4, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "UTF-8: byte 1", herald_tokenize(engine, "z\xc3", 2, 0, ids, 4, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "flags", herald_tokenize(engine, "z", 1, 1u << 5, ids, 4, &n, &error));
    OK(herald_tokenize(engine, NULL, 0, 0, NULL, 0, &n, &error));
    CHECK(n == 0);

    const uint32_t letters[2] = {67, 67}, unknown = 1000000;
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "and a NUL", herald_detokenize(engine, letters, 2, 0, text, 2, &n, &error));
    CHECK(n == 2 && strcmp(text, "zzz") == 0);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "1000000",
          herald_detokenize(engine, &unknown, 1, HERALD_TEXT_CONTINUES, text, 4, &n, &error));
    CHECK(herald_detokenize(engine, &unknown, 1, 0, text, 4, &n, &error) == HERALD_STATUS_INVALID_ARGUMENT);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "1000000", herald_token_bytes(engine, unknown, 0, text, 4, &n, &error));
    CHECK(herald_token_ends(engine, unknown) == 0);

    OK(herald_prefill(engine, sequence, letters, 2, NULL, 0, &error));
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "2 is needed", herald_sequence_tokens(sequence, ids, 1, &n, &error));
    CHECK(n == 2 && ids[0] == 77);
    OK(herald_sequence_truncate(sequence, 0, &error));
}

static void running(HeraldEngine *engine, HeraldEngineSequence *sequence, HeraldEngineSequence *of_another_engine) {
    float logits[512] = {0};
    const uint32_t ids[3] = {5, 6, 7}, unknown = 512;
    size_t len;

    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "no tokens", herald_prefill(engine, sequence, ids, 0, logits, 512, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "ids", herald_prefill(engine, sequence, NULL, 3, logits, 512, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "512", herald_prefill(engine, sequence, &unknown, 1, logits, 512, &error));
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "512 is needed",
          herald_prefill(engine, sequence, ids, 3, logits, 511, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "not aligned",
          herald_prefill(engine, sequence, ids, 3, (float *)(void *)((char *)logits + 1), 512, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "another engine",
          herald_prefill(engine, of_another_engine, ids, 3, logits, 512, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "each is null", herald_logits(engine, sequence, ids, 3, NULL, NULL, &error));

    HeraldEngineSequence *twice[2] = {sequence, sequence};
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "twice", herald_decode(engine, twice, ids, 2, NULL, 0, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "0 sequences", herald_decode(engine, twice, ids, 0, NULL, 0, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "sequences", herald_decode(engine, NULL, ids, 2, NULL, 0, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "tokens", herald_decode(engine, twice, NULL, 2, NULL, 0, &error));
    FAILS(HERALD_STATUS_BUFFER_TOO_SMALL, "1024 is needed",
          herald_decode(engine, twice, ids, 2, logits, 512, &error));

    /* The engine was loaded with a context of 16. */
    uint32_t many[17] = {0};
    FAILS(HERALD_STATUS_CONTEXT_FULL, "17 tokens", herald_prefill(engine, sequence, many, 17, NULL, 0, &error));
    FAILS(HERALD_STATUS_CONTEXT_FULL, "17 tokens",
          herald_generate_ids(engine, sequence, many, 17, NULL, NULL, &error));
    OK(herald_prefill(engine, sequence, many, 16, NULL, 0, &error));
    FAILS(HERALD_STATUS_CONTEXT_FULL, "17 tokens", herald_decode(engine, twice, ids, 1, NULL, 0, &error));
    OK(herald_sequence_len(sequence, &len, &error));
    CHECK(len == 16);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "len is null", herald_sequence_len(sequence, NULL, &error));
    OK(herald_sequence_truncate(sequence, 1000, &error));
    OK(herald_sequence_truncate(sequence, 0, &error));
}

static void generating(HeraldEngine *engine, HeraldEngineSequence *sequence) {
    HeraldGenerated done = {.struct_size = 16};
    HeraldGenerateOptions how = {.struct_size = sizeof how, .max_tokens = 2};
    uint32_t id = 5, unknown = 512;
    size_t len;

    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HeraldGenerated",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    done.struct_size = sizeof done;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "prompt", herald_generate(engine, sequence, NULL, 1, 0, &how, &done, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "no tokens",
          herald_generate(engine, sequence, "", 0, 0, &how, &done, &error));
    how.struct_size = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HeraldGenerateOptions",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.struct_size = sizeof how;
    how.flags = 1u << 20;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "flags",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.flags = 0;
    how.temperature = -1.0f;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "temperature is -1",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.temperature = 0.0f;
    how.top_p = 2.0f;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "top_p is 2",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.top_p = 0.0f;
    how.regex = "a(b";
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "regular expression can't be used",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.json_schema = "{}";
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "json_schema and regex",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.regex = NULL;
    how.json_schema = "nothing";
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "no JSON",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.json_schema = NULL;
    how.n_stops = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "stops",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    const char *stop = NULL;
    how.stops = &stop;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "stops[0] is null",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    stop = "";
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "stop",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.n_stops = 0;
    how.n_stop_tokens = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "stop_tokens",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    how.n_stop_tokens = 0;
    how.n_biases = 1;
    how.bias_tokens = &unknown;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "biases",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    const float bias = 1.0f;
    how.biases = &bias;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "512",
          herald_generate_ids(engine, sequence, &id, 1, &how, &done, &error));
    OK(herald_sequence_len(sequence, &len, &error));
    CHECK(len == 0); /* None of it has run anything. */
}

static void chatting(HeraldEngine *engine) {
    HeraldMessage messages[2] = {{sizeof(HeraldMessage), "user", "Hello"}, {sizeof(HeraldMessage), "assistant", "Hi"}};
    char text[64];
    size_t n;

    FAILS(HERALD_STATUS_UNSUPPORTED, "chat template",
          herald_chat_format(engine, messages, 2, 1, text, sizeof text, &n, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "HeraldMessage",
          herald_chat_format(engine, NULL, 2, 1, text, sizeof text, &n, &error));
    messages[1].struct_size = 64;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "element 1",
          herald_chat_format(engine, messages, 2, 1, text, sizeof text, &n, &error));
    messages[0].struct_size = 1;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "element 0",
          herald_chat_format(engine, messages, 2, 1, text, sizeof text, &n, &error));
    messages[0].struct_size = messages[1].struct_size = sizeof(HeraldMessage);
    messages[1].content = NULL;
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "content of message 1",
          herald_chat_format(engine, messages, 2, 1, text, sizeof text, &n, &error));
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    load(argv[1], argv[0]);

    HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = argv[1], .context = 16};
    HeraldEngine *engine, *other;
    HeraldEngineSequence *sequence, *of_another_engine;
    OK(herald_engine_load(&options, &engine, &error));
    OK(herald_engine_load(&options, &other, &error));
    OK(herald_sequence_new(engine, &sequence, &error));
    OK(herald_sequence_new(other, &of_another_engine, &error));

    handles_that_are_null(engine);
    answers(engine, sequence);
    running(engine, sequence, of_another_engine);
    generating(engine, sequence);
    chatting(engine);
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "the level is 0", herald_log(0, NULL, NULL, &error));
    FAILS(HERALD_STATUS_INVALID_ARGUMENT, "the level is 5", herald_log(5, NULL, NULL, &error));

    /* Either may go first. */
    herald_engine_free(other);
    herald_sequence_free(of_another_engine);
    herald_sequence_free(sequence);
    herald_engine_free(engine);
    return 0;
}
