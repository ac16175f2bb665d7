/*
 * Embed HERALD: load a language model, run it on the CPU, generate text. Link with -lherald (pkg-config herald).
 *
 *     static int32_t show(void *user_data, const HeraldPiece *piece) {
 *         (void)user_data;
 *         fwrite(piece->text, 1, piece->text_len, stdout);
 *         return HERALD_GO_ON;
 *     }
 *
 *     HeraldError error = {.struct_size = sizeof error};
 *     HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = "model.gguf"};
 *     HeraldEngine *engine = NULL;
 *     HeraldEngineSequence *sequence = NULL;
 *     HeraldGenerateOptions how = {.struct_size = sizeof how, .on_piece = show, .max_tokens = 100};
 *
 *     if (herald_engine_load(&options, &engine, &error) != HERALD_STATUS_OK ||
 *         herald_sequence_new(engine, &sequence, &error) != HERALD_STATUS_OK ||
 *         herald_generate(engine, sequence, "Hello", 5, HERALD_TEXT_PROMPT, &how, NULL, &error) != HERALD_STATUS_OK)
 *         fprintf(stderr, "%s\n", error.message);
 *     herald_sequence_free(sequence);
 *     herald_engine_free(engine);
 *
 * The rules of this interface:
 *  - An engine is a loaded model; a sequence is one context of it. herald_generate does all from prompt to text;
 *    herald_tokenize, herald_prefill, herald_decode and herald_detokenize are its steps, for a sampler of your own.
 *  - Every struct begins with struct_size: set it to sizeof. Make all else zero, which is each field's default, and set
 *    what you need. Fields are only ever appended, so what you build today runs with every later 1.x library.
 *  - A call that can fail returns a HERALD_STATUS_* and fills your HeraldError with one sentence that says what failed,
 *    where, and what was expected. error may be null. A status that you don't know is a failure.
 *  - What is made by herald_X_new or _load, herald_X_free frees. Buffers are yours; the library keeps none of your
 *    pointers after a call. Texts are UTF-8; a call that is given a length needs no NUL.
 *  - A buffer that is too small gets HERALD_STATUS_BUFFER_TOO_SMALL and its needed length: ask with capacity 0 first.
 *  - Each function says which threads may call it. In short: an engine is for any number of threads at once, a
 *    sequence for one call at a time.
 *  - Pointers must be valid for as long as the call runs, and handles must not have been freed: nothing can check that.
 *    No exception, panic or longjmp crosses, in either direction.
 *
 * examples/c and examples/cpp are programs to start from. Generated from host/src/capi; not to be edited.
 */

#ifndef HERALD_H
#define HERALD_H

#include <stddef.h>
#include <stdint.h>

// The call succeeded.
#define HERALD_STATUS_OK 0

// An argument contradicts the call's contract: a shape, a range, a missing pointer.
#define HERALD_STATUS_INVALID_ARGUMENT 1

// The request is well formed, and this plugin doesn't offer it: the host asks the next one.
#define HERALD_STATUS_UNSUPPORTED 2

// Memory for the request could not be had.
#define HERALD_STATUS_OUT_OF_MEMORY 3

// The operating system refused a read or a write.
#define HERALD_STATUS_IO 4

// Data failed a check: it is damaged, or was never what it claims to be.
#define HERALD_STATUS_CORRUPT 5

// The caller's buffer is too small; the needed size was reported.
#define HERALD_STATUS_BUFFER_TOO_SMALL 6

// What the request names isn't there.
#define HERALD_STATUS_NOT_FOUND 7

// The caller asked for the work to stop.
#define HERALD_STATUS_CANCELLED 8

// A fault of the callee itself: a panic, a broken invariant.
#define HERALD_STATUS_INTERNAL 9

// Something failed and the user should know.
#define HERALD_LOG_ERROR 1

// Something is not as it should be, and work goes on.
#define HERALD_LOG_WARN 2

// Worth a line to an interested user.
#define HERALD_LOG_INFO 3

// Worth a line to a developer.
#define HERALD_LOG_DEBUG 4

// Encoding recognises special tokens that the text spells out, and decoding spells them out; without it they are read as
// plain text, and left out.
#define HERALD_TEXT_SPECIAL (1 << 0)

// The text goes on from an earlier one: encoding puts no space before it, and decoding takes none away.
#define HERALD_TEXT_CONTINUES (1 << 1)

// The id that stands for "no such token".
#define HERALD_NO_TOKEN 4294967295

// The sequence has no room for the tokens in its context. (Statuses from 100 on are the engine's, not of plugins.)
#define HERALD_STATUS_CONTEXT_FULL 100

// Load plugins also from files and folders that other users may write to.
#define HERALD_LOAD_ALLOW_INSECURE_PLUGINS (1 << 0)

// Load no plugins but the files that HeraldEngineOptions.plugins names.
#define HERALD_LOAD_ONLY_NAMED_PLUGINS (1 << 1)

// The text begins a sequence: the BOS and EOS that the model asks for are added, a BOS that it spells out not twice.
#define HERALD_TEXT_PROMPT (1 << 16)

// HeraldGenerateOptions.seed is the seed, and not one from the operating system.
#define HERALD_GENERATE_SEEDED (1 << 0)

// Go on past the model's own end-of-generation tokens.
#define HERALD_GENERATE_IGNORE_EOS (1 << 1)

// Write special tokens out as text.
#define HERALD_GENERATE_SPECIAL (1 << 2)

// The repetition penalty sees all tokens, whatever repeat_last_n says.
#define HERALD_GENERATE_REPEAT_ALL (1 << 3)

// The model ended it, or one of stop_tokens came: HeraldGenerated.end_token.
#define HERALD_FINISH_END_TOKEN 1

// One of the stop texts came: HeraldGenerated.stop.
#define HERALD_FINISH_STOP_TEXT 2

// max_tokens were generated.
#define HERALD_FINISH_LENGTH 3

// The context is full.
#define HERALD_FINISH_CONTEXT_FULL 4

// The callback or herald_sequence_cancel asked for it.
#define HERALD_FINISH_CANCELLED 5

// The answer has the form that json_schema or regex asks for, and nothing more may (or can) come.
#define HERALD_FINISH_COMPLETE 6

// A callback's answer: go on.
#define HERALD_GO_ON 0

// A callback's answer: stop. Any other than HERALD_GO_ON does the same.
#define HERALD_STOP 1

// A loaded model, the plugins that compute it, and the threads that they run on.
typedef struct HeraldEngine HeraldEngine;

// One context: the tokens that it has seen, and what the layers keep of them.
typedef struct HeraldEngineSequence HeraldEngineSequence;

// Contexts by name over one engine. All calls on it but herald_memory_free may come from any thread, many at once: work on
// one context waits for other work on it. Callbacks must not call functions that work on contexts, which refuse.
typedef struct HeraldMemory HeraldMemory;

// Texts in chunks of 1,024 tokens that share 128 with the next, found by meaning and by words. All calls on it but
// herald_documents_free may come from any thread, many at once.
typedef struct HeraldDocuments HeraldDocuments;

// How to load a model. A zero is each field's default; only model_path has none.
typedef struct HeraldEngineOptions {
  // sizeof(HeraldEngineOptions).
  size_t struct_size;
  // The model: a GGUF file, or the first of a split one. NUL-terminated.
  const char *model_path;
  // The backend to ask first, NUL-terminated UTF-8; null or "auto": the fastest.
  const char *backend;
  // Threads to compute with; 0: as many as this process may use.
  uint32_t threads;
  // The most tokens that a sequence may have; 0: what the model was trained for.
  uint32_t context;
  // The most tokens of a pass, and the most sequences of herald_decode; longer prompts go in pieces. 0: 512.
  uint32_t max_batch;
  // HERALD_LOAD_* bits.
  uint32_t flags;
  // Plugin files to load beside those that are found in the usual places (see docs/PLUGINS.md), n_plugins paths, each
  // NUL-terminated; null for none.
  const char *const *plugins;
  // How many plugins.
  size_t n_plugins;
} HeraldEngineOptions;

#ifndef HERALD_ERROR_DEFINED
#define HERALD_ERROR_DEFINED
// The caller's own buffer for one sentence that says what failed, where, and what was expected.
//
// The caller sets struct_size and message[0] = 0; a callee that fails fills message with NUL-terminated UTF-8, cut at
// a character where it is too long. A null pointer in its place means that the caller doesn't want the sentence.
typedef struct HeraldError {
  // sizeof(HeraldError).
  size_t struct_size;
  // The sentence, NUL-terminated UTF-8.
  char message[504];
} HeraldError;
#endif

// What there is to know about a loaded model.
typedef struct HeraldEngineInfo {
  // sizeof(HeraldEngineInfo).
  size_t struct_size;
  // Logits of a token; ids are below it.
  uint32_t vocabulary;
  // The most tokens that a sequence may have.
  uint32_t context;
  // Elements of a token's activations.
  uint32_t hidden;
  // Blocks of layers.
  uint32_t blocks;
  // The token that begins a text, or HERALD_NO_TOKEN.
  uint32_t bos;
  // The token that ends a text, or HERALD_NO_TOKEN.
  uint32_t eos;
  // Threads that it computes with.
  uint32_t threads;
  // Not used; 0.
  uint32_t reserved;
  // How long loading took, in seconds.
  double load_seconds;
} HeraldEngineInfo;

// One turn of a conversation.
typedef struct HeraldMessage {
  // sizeof(HeraldMessage), the same in all messages of an array.
  size_t struct_size;
  // Who speaks: "system", "user", "assistant", or what else the model's template knows. NUL-terminated UTF-8.
  const char *role;
  // What was said, NUL-terminated UTF-8.
  const char *content;
} HeraldMessage;

// What a generation's callback is given: a token, and the text that is certain with it. Valid during the call.
typedef struct HeraldPiece {
  // sizeof(HeraldPiece) of the library.
  size_t struct_size;
  // Whole UTF-8 characters that can't be part of a stop text any more, NUL-terminated; may be empty.
  const char *text;
  // Bytes of text, without the NUL.
  size_t text_len;
  // The token; HERALD_NO_TOKEN where this is text that was held back until the end.
  uint32_t token;
  // The token's natural log-probability under the model's own distribution, before bias, penalties, filters and
  // temperature.
  float logprob;
  // The most probable tokens under that distribution, best first: n_top ids.
  const uint32_t *top_tokens;
  // Their log-probabilities.
  const float *top_logprobs;
  // How many; at most HeraldGenerateOptions.top_logprobs.
  size_t n_top;
} HeraldPiece;

// How to generate. A zero is each field's default, so a struct of zeros (but for struct_size) takes the most probable
// token each time until the model ends.
typedef struct HeraldGenerateOptions {
  // sizeof(HeraldGenerateOptions).
  size_t struct_size;
  // Is handed every token as it comes, and returns HERALD_GO_ON, or HERALD_STOP to end the generation. Runs on the
  // calling thread; must not throw or longjmp; may call anything but what uses the sequence. Null: no callback.
  int32_t (*on_piece)(void *user_data, const struct HeraldPiece *piece);
  // The caller's own; handed to on_piece.
  void *user_data;
  // HERALD_GENERATE_* bits.
  uint32_t flags;
  // The most tokens to generate; 0: until the model ends or the context is full.
  uint32_t max_tokens;
  // With HERALD_GENERATE_SEEDED: the same seed, settings and logits give the same tokens on every platform.
  uint64_t seed;
  // Divides the logits before the draw; 0: greedy, the best logit after bias and penalties.
  float temperature;
  // Keep the best top_k logits; 0: no limit.
  uint32_t top_k;
  // Keep the best tokens until they have this much probability together, up to 1; 0 or 1: off.
  float top_p;
  // Keep the tokens at least this probable relative to the best, up to 1; 0: off.
  float min_p;
  // Locally typical sampling: keep the tokens whose surprise is nearest to the entropy, up to this much probability;
  // 0 or 1: off.
  float typical_p;
  // A token among the last repeat_last_n, prompt included, has its logit divided by this if positive, multiplied if
  // not; 0 or 1: off.
  float repetition_penalty;
  // How many tokens the repetition penalty sees; 0: 64.
  uint32_t repeat_last_n;
  // Subtracted from the logit of each token that was generated already; 0: off.
  float presence_penalty;
  // Subtracted from a token's logit once for each time that it was generated; 0: off.
  float frequency_penalty;
  // How many of the most probable tokens to report with each; 0: none.
  uint32_t top_logprobs;
  // Texts that end the generation and are not part of it: n_stops, each NUL-terminated UTF-8; null for none.
  const char *const *stops;
  // How many stops.
  size_t n_stops;
  // Tokens that end the generation beside the model's own: n_stop_tokens; null for none.
  const uint32_t *stop_tokens;
  // How many stop_tokens.
  size_t n_stop_tokens;
  // Tokens whose logits are changed: n_biases; null for none.
  const uint32_t *bias_tokens;
  // What is added to the logit of each; -INFINITY bans it.
  const float *biases;
  // How many biases.
  size_t n_biases;
  // The answer must be JSON of this JSON schema (NUL-terminated UTF-8); null: it may be anything.
  const char *json_schema;
  // The whole of this regular expression must match the answer (NUL-terminated UTF-8); null: it may be anything. Not
  // together with json_schema.
  const char *regex;
} HeraldGenerateOptions;

// A generation that has ended.
typedef struct HeraldGenerated {
  // sizeof(HeraldGenerated).
  size_t struct_size;
  // Tokens that were generated, the ending one included where there was one.
  size_t n_tokens;
  // Tokens of the prompt.
  size_t n_prompt_tokens;
  // HERALD_FINISH_*.
  uint32_t finish;
  // The token that ended it, or HERALD_NO_TOKEN.
  uint32_t end_token;
  // Which of the stops ended it, counted from 0.
  size_t stop;
  // The seed that was used.
  uint64_t seed;
  // Seconds that the prompt took.
  double prompt_seconds;
  // Seconds that the tokens after it took.
  double decode_seconds;
} HeraldGenerated;

// What herald_memory_optimize did.
typedef struct HeraldOptimized {
  // sizeof(HeraldOptimized).
  size_t struct_size;
  // Moves of pages from a tier to the one below.
  uint64_t moved_pages;
  // Pages of earlier prompts that no context held, and were dropped.
  uint64_t unreferenced_pages;
  // Pages that were dropped because another context had the same, which both now share.
  uint64_t merged_pages;
  // Pages of room that was reserved and not used.
  uint64_t spare_pages;
  // Bytes of RAM that the tiers take less than before.
  uint64_t bytes_freed;
  // Bytes of RAM that freed memory's return to the system took off the process.
  uint64_t returned_bytes;
  // Contexts that were left as they were, since somebody worked on them.
  uint64_t busy_contexts;
  // The part of the tiers' room for tokens that held none, before.
  double fragmentation_before;
  // The same afterwards.
  double fragmentation_after;
} HeraldOptimized;

// What the memory tiers hold. In tiers each layer counts its own tokens.
typedef struct HeraldMemoryUsage {
  // sizeof(HeraldMemoryUsage).
  size_t struct_size;
  // Pages of the active tier: as attention writes them, in RAM.
  uint64_t active_pages;
  // Tokens in them.
  uint64_t active_tokens;
  // Their bytes.
  uint64_t active_bytes;
  // Pages of the compressed tier: 4 bits an element, in RAM.
  uint64_t compressed_pages;
  // Tokens in them.
  uint64_t compressed_tokens;
  // Their bytes.
  uint64_t compressed_bytes;
  // Pages of the archived tier, in a file.
  uint64_t archived_pages;
  // Tokens in them.
  uint64_t archived_tokens;
  // Their bytes in the file.
  uint64_t archived_bytes;
  // Bytes of RAM that the tiers take together.
  uint64_t memory_bytes;
  // Far pages that layers wanted and that were in RAM; 0 in the usage of one context.
  uint64_t hits;
  // Far pages that layers wanted and that came from the file; 0 in the usage of one context.
  uint64_t misses;
  // Bytes of active pages that are kept for prompts that begin alike; 0 in the usage of one context.
  uint64_t prefix_bytes;
  // Bytes of recurrent states, which are in no tier.
  uint64_t state_bytes;
  // Bytes that all pages would take in the active tier.
  uint64_t exact_bytes;
  // How many times smaller they are; 1 where there are none.
  double ratio;
} HeraldMemoryUsage;

// Pages that tiers hold, beside those that can be reached.
typedef struct HeraldLeakStats {
  // sizeof(HeraldLeakStats).
  size_t struct_size;
  // Pages that the tiers hold.
  uint64_t held_pages;
  // Their bytes.
  uint64_t held_bytes;
  // Pages that contexts, or the earlier prompts that the engine keeps, hold; each once.
  uint64_t reachable_pages;
  // Their bytes.
  uint64_t reachable_bytes;
  // Sequences of the engine beside the contexts: which pages they hold can't be seen.
  uint64_t other_sequences;
  // Pages whose owner is gone, or is one of the other sequences.
  uint64_t orphaned_pages;
  // Their bytes.
  uint64_t orphaned_bytes;
  // Pages that the tiers hold more (or fewer) than at the mark.
  int64_t grown_pages;
  // Their bytes.
  int64_t grown_bytes;
  // RSS of the process beside that at the mark. A heap keeps some of what was freed, so this alone proves nothing.
  int64_t grown_rss_bytes;
} HeraldLeakStats;

// A chunk that a search found. Valid during the callback.
typedef struct HeraldHit {
  // sizeof(HeraldHit) of the library.
  size_t struct_size;
  // The number of its text.
  uint64_t document;
  // The name of its text: name_len bytes of UTF-8, not NUL-terminated.
  const char *name;
  // Bytes of name.
  size_t name_len;
  // Its place in the text, from 0.
  size_t chunk;
  // The chunk: text_len bytes of UTF-8, not NUL-terminated.
  const char *text;
  // Bytes of text.
  size_t text_len;
  // The sum of its inverse ranks by meaning and by words.
  double score;
  // Its rank by meaning, from 1.
  size_t meaning_rank;
  // Its rank by words, from 1; 0 where it has too few of the query's.
  size_t word_rank;
} HeraldHit;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "1.2.0", NUL-terminated; the library's own, valid for ever. Any thread.
const char *herald_version(void);

// Loads a model and puts the engine in *out, for the caller to give to herald_engine_free; on failure *out becomes null.
// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; NOT_FOUND (no such file, backend, or no plugin at all);
// IO; CORRUPT (a damaged file); UNSUPPORTED (a model that no plugin can run); OUT_OF_MEMORY; INTERNAL.
uint32_t herald_engine_load(const struct HeraldEngineOptions *options,
                            struct HeraldEngine **out,
                            struct HeraldError *error);

// Frees an engine. Its sequences stay good to be freed, before or after it, and keep the model in memory until they
// are. Any thread, while no call runs on the engine. Null is allowed.
void herald_engine_free(struct HeraldEngine *engine);

// Fills info, whose struct_size the caller has set. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_engine_info(const struct HeraldEngine *engine,
                            struct HeraldEngineInfo *info,
                            struct HeraldError *error);

// Writes the name of the backend that computes most of the layers to name, NUL-terminated, and its length without the
// NUL to *len. capacity: bytes that name has room for, which must be more than *len. Any thread, many at once.
// Statuses: OK; BUFFER_TOO_SMALL, with *len the length; INVALID_ARGUMENT.
uint32_t herald_engine_backend(const struct HeraldEngine *engine,
                               char *name,
                               size_t capacity,
                               size_t *len,
                               struct HeraldError *error);

// Opens an empty sequence on an engine and puts it in *out, for the caller to give to herald_sequence_free; on failure
// *out becomes null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_sequence_new(const struct HeraldEngine *engine,
                             struct HeraldEngineSequence **out,
                             struct HeraldError *error);

// Frees a sequence that no call is running on. Any thread. Null is allowed.
void herald_sequence_free(struct HeraldEngineSequence *sequence);

// Writes the tokens that the sequence has seen to ids, which has room for capacity, and their number to *n_ids.
// Any thread, one call at a time on a sequence. Statuses: OK; BUFFER_TOO_SMALL, with *n_ids the number;
// INVALID_ARGUMENT.
uint32_t herald_sequence_tokens(const struct HeraldEngineSequence *sequence,
                                uint32_t *ids,
                                size_t capacity,
                                size_t *n_ids,
                                struct HeraldError *error);

// Puts the number of tokens that the sequence has seen in *len. Any thread, one call at a time on a sequence.
// Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_sequence_len(const struct HeraldEngineSequence *sequence,
                             size_t *len,
                             struct HeraldError *error);

// Forgets the tokens from the len-th on; a len past the end changes nothing. Any thread, one call at a time on a
// sequence. Statuses: OK; UNSUPPORTED, with nothing forgotten, where the model keeps recurrent states, which can go back
// to nothing but 0; INVALID_ARGUMENT.
uint32_t herald_sequence_truncate(struct HeraldEngineSequence *sequence,
                                  size_t len,
                                  struct HeraldError *error);

// Ends the call that is running on the sequence soon: herald_generate* with HERALD_FINISH_CANCELLED, herald_prefill and
// herald_logits with the status CANCELLED. Does nothing where none is running. Any thread, at any time until the
// sequence is freed; also from a signal handler. Null is allowed.
void herald_sequence_cancel(const struct HeraldEngineSequence *sequence);

// Writes the ids of text (UTF-8, text_len bytes) to ids, which has room for capacity, and their number to *n_ids.
// flags: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *n_ids
// the number needed; INVALID_ARGUMENT (not UTF-8); UNSUPPORTED (text that the vocabulary can't express).
uint32_t herald_tokenize(const struct HeraldEngine *engine,
                         const char *text,
                         size_t text_len,
                         uint32_t flags,
                         uint32_t *ids,
                         size_t capacity,
                         size_t *n_ids,
                         struct HeraldError *error);

// Writes the text of n_ids ids to text, NUL-terminated, and its length without the NUL to *len; bytes that are no UTF-8
// become U+FFFD. capacity: bytes that text has room for, which must be more than *len. flags: HERALD_TEXT_SPECIAL,
// HERALD_TEXT_CONTINUES. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length;
// INVALID_ARGUMENT (an id outside the vocabulary).
uint32_t herald_detokenize(const struct HeraldEngine *engine,
                           const uint32_t *ids,
                           size_t n_ids,
                           uint32_t flags,
                           char *text,
                           size_t capacity,
                           size_t *len,
                           struct HeraldError *error);

// Writes the bytes that one token adds to a text that it goes on, which may be part of a UTF-8 character, to bytes, with
// a NUL after them, and their number without the NUL to *len. capacity: bytes that there is room for, which must be more
// than *len. flags: HERALD_TEXT_SPECIAL. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the number;
// INVALID_ARGUMENT (an id outside the vocabulary).
uint32_t herald_token_bytes(const struct HeraldEngine *engine,
                            uint32_t id,
                            uint32_t flags,
                            char *bytes,
                            size_t capacity,
                            size_t *len,
                            struct HeraldError *error);

// 1 where this token ends a generation: the end of the text or of a turn; otherwise 0. Any thread, many at once.
uint32_t herald_token_ends(const struct HeraldEngine *engine,
                           uint32_t id);

// Writes the text for n_messages messages by the model's chat template to text, NUL-terminated, and its length without
// the NUL to *len; where add_generation_prompt is not 0, up to where the model's next turn begins. To be given to
// herald_generate with HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT. capacity: bytes that text has room for, which must be
// more than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length; UNSUPPORTED (the model
// has no chat template, or none that can be compiled); INVALID_ARGUMENT (also where the template refuses the messages).
uint32_t herald_chat_format(const struct HeraldEngine *engine,
                            const struct HeraldMessage *messages,
                            size_t n_messages,
                            uint32_t add_generation_prompt,
                            char *text,
                            size_t capacity,
                            size_t *len,
                            struct HeraldError *error);

// Runs a prompt (UTF-8, prompt_len bytes) after what the sequence has seen, then generates: each token goes to
// options->on_piece as it comes. flags: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT, for the prompt. options: null for the
// defaults. generated: filled at the end, where its struct_size is set; null where it isn't wanted. Afterwards the
// sequence holds the prompt and the generated tokens but the last, which has not been run; after a stop during the
// prompt, the pieces that were run.
// Any thread, many at once on one engine, one at a time on a sequence. Statuses: OK (also where it was stopped: see
// HERALD_FINISH_CANCELLED); INVALID_ARGUMENT (an empty prompt, an option outside its range); CONTEXT_FULL (the prompt is
// too long); UNSUPPORTED; OUT_OF_MEMORY; CORRUPT (logits that are not numbers); IO (no random seed); INTERNAL.
uint32_t herald_generate(const struct HeraldEngine *engine,
                         struct HeraldEngineSequence *sequence,
                         const char *prompt,
                         size_t prompt_len,
                         uint32_t flags,
                         const struct HeraldGenerateOptions *options,
                         struct HeraldGenerated *generated,
                         struct HeraldError *error);

// As herald_generate, with n_ids ids for a prompt.
uint32_t herald_generate_ids(const struct HeraldEngine *engine,
                             struct HeraldEngineSequence *sequence,
                             const uint32_t *ids,
                             size_t n_ids,
                             const struct HeraldGenerateOptions *options,
                             struct HeraldGenerated *generated,
                             struct HeraldError *error);

// Runs n_ids ids after what the sequence has seen, and writes the last one's logits (vocabulary floats) to logits,
// which has room for capacity; null where they are not wanted. On failure the sequence holds the pieces (of
// HeraldEngineOptions.max_batch ids) that were run. Any thread, many at once on one engine, one at a time on a sequence.
// Statuses: OK; INVALID_ARGUMENT (no ids, an unknown id); CONTEXT_FULL and BUFFER_TOO_SMALL, with nothing run;
// CANCELLED; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_prefill(const struct HeraldEngine *engine,
                        struct HeraldEngineSequence *sequence,
                        const uint32_t *ids,
                        size_t n_ids,
                        float *logits,
                        size_t capacity,
                        struct HeraldError *error);

// Runs one token after each sequence's others, all in one pass: n tokens for n sequences. Writes the
// logits [n, vocabulary] to logits, which has room for capacity floats; null where they are not wanted. No sequence
// twice. On failure no sequence has its token. Any thread, many at once on one engine, one at a time on a sequence.
// Statuses: OK; INVALID_ARGUMENT (an unknown id, more sequences than max_batch); CONTEXT_FULL; BUFFER_TOO_SMALL;
// OUT_OF_MEMORY; INTERNAL.
uint32_t herald_decode(const struct HeraldEngine *engine,
                       struct HeraldEngineSequence *const *sequences,
                       const uint32_t *tokens,
                       size_t n,
                       float *logits,
                       size_t capacity,
                       struct HeraldError *error);

// Runs n_ids ids after what the sequence has seen, and hands each one's logits to each, in order: index counts from 0,
// and the n_logits (vocabulary) floats at logits are valid during that call. each returns HERALD_GO_ON, or HERALD_STOP
// to end the work; it runs on the calling thread, must not throw or longjmp, and may call anything but what uses the
// sequence. user_data is handed to it. Any thread, many at once on one engine, one at a time on a sequence.
// Statuses: OK; as herald_prefill's; CANCELLED also where each stopped the work: the sequence then holds the pieces
// that were run.
uint32_t herald_logits(const struct HeraldEngine *engine,
                       struct HeraldEngineSequence *sequence,
                       const uint32_t *ids,
                       size_t n_ids,
                       int32_t (*each)(void *user_data,
                                       size_t index,
                                       const float *logits,
                                       size_t n_logits),
                       void *user_data,
                       struct HeraldError *error);

// Makes a manager without contexts on an engine, and puts it in *out, for the caller to give to herald_memory_free; on
// failure *out becomes null. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
uint32_t herald_memory_new(const struct HeraldEngine *engine,
                           struct HeraldMemory **out,
                           struct HeraldError *error);

// Frees a manager and its contexts, while no call runs on it. Any thread. Null is allowed.
void herald_memory_free(struct HeraldMemory *memory);

// Runs a text (UTF-8, text_len bytes) through the model's layers after what the context (NUL-terminated UTF-8) has seen;
// one that isn't there is opened. The BOS that the model asks for goes before it where the context is empty. Puts the number
// of tokens that were added in *n_tokens, unless it is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT;
// CONTEXT_FULL; UNSUPPORTED; OUT_OF_MEMORY; IO (the archive's disk is full); INTERNAL.
uint32_t herald_memory_add_to_active(const struct HeraldMemory *memory,
                                     const char *context,
                                     const char *text,
                                     size_t text_len,
                                     size_t *n_tokens,
                                     struct HeraldError *error);

// As herald_memory_add_to_active, with n_ids ids.
uint32_t herald_memory_add_ids_to_active(const struct HeraldMemory *memory,
                                         const char *context,
                                         const uint32_t *ids,
                                         size_t n_ids,
                                         struct HeraldError *error);

// Adds a text to a context, as herald_memory_add_to_active does, and generates after it, as herald_generate does: with the
// same options, callback and answer. The last token, which was not run, is run before whatever comes next. Any thread, many
// at once. Statuses: as herald_memory_add_to_active and herald_generate.
uint32_t herald_memory_generate(const struct HeraldMemory *memory,
                                const char *context,
                                const char *text,
                                size_t text_len,
                                const struct HeraldGenerateOptions *options,
                                struct HeraldGenerated *generated,
                                struct HeraldError *error);

// Moves a context's pages that are older than its latest keep_tokens tokens to the compressed tier now, but for the first.
// Puts the number of moves in *moved_pages, unless it is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no
// such context); OUT_OF_MEMORY; IO; INTERNAL.
uint32_t herald_memory_compress(const struct HeraldMemory *memory,
                                const char *context,
                                size_t keep_tokens,
                                uint64_t *moved_pages,
                                struct HeraldError *error);

// Tidies up: gives back room that was reserved and not used, moves pages down that have no place in the active tier, makes
// equal pages of several contexts one, drops pages that nobody holds, and gives freed memory back to the system. Fills
// optimized, whose struct_size the caller has set; null where it isn't wanted. Any thread, many at once. Statuses: OK;
// INVALID_ARGUMENT; OUT_OF_MEMORY; IO; INTERNAL.
uint32_t herald_memory_optimize(const struct HeraldMemory *memory,
                                struct HeraldOptimized *optimized,
                                struct HeraldError *error);

// Forgets all that a context has seen, in all tiers; it stays open, empty. Null: every context. Any thread, many at once.
// Statuses: OK; INVALID_ARGUMENT (no such context); INTERNAL.
uint32_t herald_memory_clear_active(const struct HeraldMemory *memory,
                                    const char *context,
                                    struct HeraldError *error);

// Closes a context, once work on it has ended; nothing where there is none. Any thread, many at once. Statuses: OK;
// INVALID_ARGUMENT; INTERNAL.
uint32_t herald_memory_close(const struct HeraldMemory *memory,
                             const char *context,
                             struct HeraldError *error);

// Fills usage, whose struct_size the caller has set, with what the tiers hold of a context, as it was when work on it last
// ended; for null, of all sequences of the engine, pages that several share counted once. Doesn't wait, and may be called
// from callbacks. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such context).
uint32_t herald_memory_usage(const struct HeraldMemory *memory,
                             const char *context,
                             struct HeraldMemoryUsage *usage,
                             struct HeraldError *error);

// Fills stats, whose struct_size the caller has set. Waits for work on contexts that is under way, and holds up what would
// begin meanwhile. Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
uint32_t herald_memory_leak_stats(const struct HeraldMemory *memory,
                                  struct HeraldLeakStats *stats,
                                  struct HeraldError *error);

// Has herald_memory_leak_stats count growth from now on. Any thread. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_memory_mark(const struct HeraldMemory *memory,
                            struct HeraldError *error);

// Opens the text memory of a folder (NUL-terminated path), which is made where it isn't there, and puts it in *out, for the
// caller to give to herald_documents_free; on failure *out becomes null. Null for folder: one in RAM alone. Damaged files
// are left out, with a warning in the log. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT (also
// where the texts were added with another model); IO; NOT_FOUND; INTERNAL.
uint32_t herald_documents_open(const struct HeraldEngine *engine,
                                 const char *folder,
                                 struct HeraldDocuments **out,
                                 struct HeraldError *error);

// Frees a text memory, while no call runs on it. Its files stay. Any thread. Null is allowed.
void herald_documents_free(struct HeraldDocuments *memory);

// Adds a text (UTF-8, text_len bytes) under a name (NUL-terminated UTF-8), and puts its number in *id, unless it is null.
// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (an empty text); UNSUPPORTED; IO; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_documents_add(const struct HeraldDocuments *memory,
                                const char *name,
                                const char *text,
                                size_t text_len,
                                uint64_t *id,
                                struct HeraldError *error);

// Hands the count chunks that fit a query (NUL-terminated UTF-8) best to each, best first. each returns HERALD_GO_ON, or
// HERALD_STOP for no more; it runs on the calling thread and must not throw or longjmp. user_data is handed to it. Any
// thread, many at once. Statuses: OK; INVALID_ARGUMENT (an empty query); OUT_OF_MEMORY; INTERNAL.
uint32_t herald_documents_search(const struct HeraldDocuments *memory,
                                   const char *query,
                                   size_t count,
                                   int32_t (*each)(void *user_data, const struct HeraldHit *hit),
                                   void *user_data,
                                   struct HeraldError *error);

// Writes a prompt for a question (NUL-terminated UTF-8), with as much of the count best chunks as leaves it with no more
// than budget tokens, to text, NUL-terminated, and its length without the NUL to *len. capacity: bytes that text has room
// for, which must be more than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length;
// INVALID_ARGUMENT (also where the question alone takes more tokens); OUT_OF_MEMORY; INTERNAL.
uint32_t herald_documents_recall(const struct HeraldDocuments *memory,
                                   const char *question,
                                   size_t count,
                                   size_t budget,
                                   char *text,
                                   size_t capacity,
                                   size_t *len,
                                   struct HeraldError *error);

// Removes a text by its number. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such text); IO; INTERNAL.
uint32_t herald_documents_remove(const struct HeraldDocuments *memory,
                                   uint64_t id,
                                   struct HeraldError *error);

// Removes all texts. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; IO; INTERNAL.
uint32_t herald_documents_clear(const struct HeraldDocuments *memory, struct HeraldError *error);

// Sets the function that the engine's log goes to, for the whole process; null for none, as at the start. It is handed
// lines of this level (HERALD_LOG_*) and graver ones: UTF-8 without a newline at its end, NUL-terminated, text_len bytes
// without the NUL, valid during the call. It may be called from any thread, many at once, with user_data; it must not
// throw, longjmp, or call herald_log. When herald_log returns, the function that was set before is called no more.
// Any thread. Statuses: OK; INVALID_ARGUMENT (no such level); UNSUPPORTED (a Rust program that has a log of its own).
uint32_t herald_log(uint32_t level,
                    void (*log)(void *user_data, uint32_t level, const char *text, size_t text_len),
                    void *user_data,
                    struct HeraldError *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HERALD_H */
