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
 *  - An engine is a loaded model; a sequence is one context of it. herald_generate does everything from prompt to text;
 *    herald_tokenize, herald_prefill, herald_decode and herald_detokenize are its steps, for your own sampler. A scheduler
 *    serves many requests at once: herald_submit, herald_request_next.
 *  - Every struct begins with struct_size: set it to sizeof. Set all other fields to zero, which is their default, then
 *    those that you need. Fields are only ever appended, so what you build today runs with every later 1.x library.
 *  - A call that can fail returns a HERALD_STATUS_* and fills your HeraldError with one sentence that says what failed,
 *    where, and what was expected. error may be null. A status that you don't know is a failure.
 *  - herald_X_free frees what herald_X_new, _load or _open created. Buffers are yours; the library keeps none of your
 *    pointers after a call. Texts are UTF-8; a text with a length needs no NUL.
 *  - A call with a buffer that is too small returns HERALD_STATUS_BUFFER_TOO_SMALL and the needed length: call it with
 *    capacity 0 first.
 *  - Each function says which threads may call it. In short: any number of threads may use an engine, a scheduler, contexts
 *    and documents at once, and one call at a time may use a sequence or a request. herald_*_cancel may come at any time.
 *  - Long contexts are lossy unless you say otherwise: of each sequence, only the latest 3,072 tokens (and the first page) keep
 *    their keys and values at 16 bits. Older ones are compressed to 4 bits, each pass attends to the best 64 of their pages,
 *    and from 32,768 of them on the oldest go to a file. HERALD_LOAD_EXACT turns all of this off; the other fields of
 *    HeraldEngineOptions set it.
 *  - Nothing is computed twice: a prompt of an empty sequence that begins as an earlier prompt and its answer did takes over what
 *    these computed, to the same result. HeraldGenerated.n_cached_tokens says how many tokens that saved; cache_key keeps
 *    users apart, cache_dir keeps it all for the next process, HERALD_LOAD_NO_PREFIX_CACHE turns it off, and
 *    herald_engine_forget_prefixes empties its RAM.
 *  - After fork() a child has none of the engine's threads. There, calls with handles that were made before return UNSUPPORTED at
 *    once, and freeing such handles does nothing, safely. A child may load its own engine, if no call was running when it
 *    was forked. exec() is not affected.
 *  - Where memory for a model, a context, a batch or a buffer of their size can't be had, a call returns OUT_OF_MEMORY and nothing
 *    is lost. What is small beside these (a vocabulary, texts, lists) ends the process where even that can't be had, as in any
 *    Rust program; on Linux the system is more likely to end it itself, so set memory_budget well below what there is.
 *  - Pointers must be valid for as long as the call runs, and handles must not be freed: the library can't check that.
 *    No exception, panic or longjmp may cross it, in either direction.
 *
 * docs/EMBEDDING.md goes through all of it, herald.hpp wraps it for C++, and examples/c and examples/cpp are programs to start
 * from. Generated from host/capi/src; do not edit.
 */

#ifndef HERALD_H
#define HERALD_H

#include <stddef.h>
#include <stdint.h>

// The version of this header; herald_version() is the library's.
#define HERALD_VERSION "0.1.0"
#define HERALD_VERSION_MAJOR 0
#define HERALD_VERSION_MINOR 1
#define HERALD_VERSION_PATCH 0
// One number that grows with the version: MAJOR * 1000000 + MINOR * 1000 + PATCH.
#define HERALD_VERSION_NUMBER 1000

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

// The sequence's context has no room for the tokens. (Statuses from 100 are the engine's, not plugins'.)
#define HERALD_STATUS_CONTEXT_FULL 100

// The scheduler's queue has no room for the request: try again later.
#define HERALD_STATUS_QUEUE_FULL 101

// The deadline has passed.
#define HERALD_STATUS_DEADLINE 102

// Load plugins even from files and folders that other users may write to.
#define HERALD_LOAD_ALLOW_INSECURE_PLUGINS (1 << 0)

// Load only the plugins that HeraldEngineOptions.plugins names.
#define HERALD_LOAD_ONLY_NAMED_PLUGINS (1 << 1)

// Nothing lossy: activations have 16 bits, and all keys and values stay at 16 bits in RAM, whatever the length of a sequence and the memory_budget (where that is
// used up, calls fail with OUT_OF_MEMORY). Not together with active_tokens, compressed_tokens, archive or selected_pages.
#define HERALD_LOAD_EXACT (1 << 2)

// Compress archived pages with LZ4.
#define HERALD_LOAD_ARCHIVE_LZ4 (1 << 3)

// Keep nothing of earlier prompts and answers for later prompts that begin alike.
#define HERALD_LOAD_NO_PREFIX_CACHE (1 << 4)

// Activations may be 8 bits where they are multiplied with quantised weights, though HERALD_LOAD_EXACT is set or the model embeds or
// ranks. For other models that is the default.
#define HERALD_LOAD_INT8_ACTIVATIONS (1 << 5)

// Pack weights in memory of this process alone, in place of once in a file in the user's cache folder, which processes share.
#define HERALD_LOAD_NO_PACK_CACHE (1 << 6)

// Activations are 16 bits where they are multiplied with quantised weights: slower than 8, and as good as exact. HERALD_LOAD_EXACT means
// this too, and it is the default for models that embed or rank. Not together with HERALD_LOAD_INT8_ACTIVATIONS.
#define HERALD_LOAD_INT16_ACTIVATIONS (1 << 7)

// HeraldEngineOptions.selected_pages: all of them.
#define HERALD_ALL_PAGES 4294967295

// HeraldEngineOptions.max_draft_tokens: none.
#define HERALD_NO_DRAFTS 4294967295

// The text begins a sequence: the model's BOS and EOS tokens are added if it wants them; a BOS in the text is not repeated.
#define HERALD_TEXT_PROMPT (1 << 16)

// Use HeraldGenerateOptions.seed, not a seed from the operating system.
#define HERALD_GENERATE_SEEDED (1 << 0)

// Continue past the model's end-of-generation tokens.
#define HERALD_GENERATE_IGNORE_EOS (1 << 1)

// Write special tokens out as text.
#define HERALD_GENERATE_SPECIAL (1 << 2)

// The repetition penalty applies to all tokens, whatever repeat_last_n says.
#define HERALD_GENERATE_REPEAT_ALL (1 << 3)

// The model ended it, or one of stop_tokens was generated: HeraldGenerated.end_token.
#define HERALD_FINISH_END_TOKEN 1

// One of the stop texts was generated: HeraldGenerated.stop.
#define HERALD_FINISH_STOP_TEXT 2

// max_tokens were generated.
#define HERALD_FINISH_LENGTH 3

// The context is full.
#define HERALD_FINISH_CONTEXT_FULL 4

// The callback, herald_sequence_cancel, herald_memory_cancel or herald_request_cancel stopped it.
#define HERALD_FINISH_CANCELLED 5

// The answer matches json_schema, regex or grammar, and nothing may (or can) follow.
#define HERALD_FINISH_COMPLETE 6

// Its deadline has passed.
#define HERALD_FINISH_DEADLINE 7

// A callback's answer: continue.
#define HERALD_GO_ON 0

// A callback's answer: stop. Any value but HERALD_GO_ON means the same.
#define HERALD_STOP 1

// Scale an embedding to length 1.
#define HERALD_EMBED_NORMALIZE (1 << 0)

// The hidden state of the last token, not the mean over all tokens.
#define HERALD_EMBED_LAST (1 << 1)

// The hidden state of the first token, as BERT's are pooled.
#define HERALD_EMBED_FIRST (1 << 2)

// The mean over all tokens, whatever the model says.
#define HERALD_EMBED_MEAN (1 << 3)

// Hidden states are between blocks; this many blocks are all of any model.
#define HERALD_ALL_BLOCKS 4294967295

// HeraldEvent.kind: nothing has come in time.
#define HERALD_EVENT_NONE 0

// HeraldEvent.kind: a token, in HeraldEvent.piece.
#define HERALD_EVENT_PIECE 1

// HeraldEvent.kind: the generation has ended; HeraldEvent.generated says how.
#define HERALD_EVENT_FINISHED 2

// herald_request_next: wait for as long as it takes.
#define HERALD_WAIT_FOREVER 4294967295

// Texts in chunks of 1,024 tokens that overlap by 128, found by meaning and by words. All calls on it except
// herald_documents_free may come from any thread, many at once.
typedef struct HeraldDocuments HeraldDocuments;

// A loaded model, the plugins that run it, and their threads.
typedef struct HeraldEngine HeraldEngine;

// One context: its tokens, and the layers' state for them (KV cache and recurrent states).
typedef struct HeraldEngineSequence HeraldEngineSequence;

// Named contexts over one engine. All calls on it except herald_memory_free may come from any thread, many at once: work on
// a context waits for other work on it. Callbacks must not call functions that work on contexts: these return an error.
typedef struct HeraldMemory HeraldMemory;

// A request to a scheduler.
typedef struct HeraldRequest HeraldRequest;

// Serves many requests over one engine, on a thread of its own: continuous batching. Each step is one pass over a token of every
// request that decodes and pieces of the prompts of the others, so the model's weights are read once for all. Requests get
// the same answers as alone. Any thread may use it, many at once.
typedef struct HeraldScheduler HeraldScheduler;

// How to load a model. Zero is every field's default, except for model_path, which has none.
typedef struct HeraldEngineOptions {
  // sizeof(HeraldEngineOptions).
  size_t struct_size;
  // The model: a GGUF file, or a split model's first file. NUL-terminated.
  const char *model_path;
  // The preferred backend, NUL-terminated UTF-8; null or "auto": the fastest.
  const char *backend;
  // Threads to compute with; 0: as many as this process may use.
  uint32_t threads;
  // Maximum number of tokens of a sequence; 0: what the model was trained for.
  uint32_t context;
  // Maximum number of tokens of a pass, and of sequences of herald_decode; longer prompts are split. 0: 512.
  uint32_t max_batch;
  // HERALD_LOAD_* bits.
  uint32_t flags;
  // Plugin files to load in addition to those in the usual folders (see docs/PLUGINS.md): n_plugins paths, each
  // NUL-terminated; null for none.
  const char *const *plugins;
  // Number of plugins.
  size_t n_plugins;
  // How many of a sequence's latest tokens keep their keys and values at 16 bits (the active tier); older ones, except those
  // of the first page, are compressed to 4 bits, which is lossy. 0: 3,072. HERALD_LOAD_EXACT turns this off.
  uint64_t active_tokens;
  // How many of the compressed tokens stay in RAM (the compressed tier); the oldest go to a file. 0: 32,768.
  uint64_t compressed_tokens;
  // The file for the oldest tokens' keys and values (the archived tier), or a folder for a nameless one that goes with the
  // engine. NUL-terminated; null: the latter, in the user's cache folder. Nothing is written before the first page is
  // archived.
  const char *archive;
  // Bytes of RAM for keys, values and recurrent states of all sequences, and for the prefix cache. At the limit tokens are
  // compressed and archived earlier, and where that doesn't suffice a call fails with OUT_OF_MEMORY. 0: no limit.
  uint64_t memory_budget;
  // Bytes of RAM of the prefix cache: what earlier prompts and answers computed, for prompts that begin alike. 0: 512 MiB.
  uint64_t prefix_bytes;
  // How many pages (of 64 tokens) of compressed and archived tokens each layer selects to attend to, by score.
  // HERALD_ALL_PAGES: all; 0: 64.
  uint32_t selected_pages;
  // Maximum number of tokens to draft for a pass (speculative decoding), which leaves every text as it is, to the bit; drafts have
  // as many as pay. HERALD_NO_DRAFTS: none; 0: 31, which is the most.
  uint32_t max_draft_tokens;
  // A folder in which the prefix cache outlives the engine, for this and other processes with the same model. NUL-terminated;
  // null: it doesn't.
  const char *cache_dir;
  // Bytes of files there; 0: 8 GiB.
  uint64_t cache_dir_bytes;
  // Adapters (LoRA) to load beside the model: n_loras GGUF files, each NUL-terminated; null for none. Sequences begin with all of them,
  // at these scales; herald_sequence_set_loras and HeraldGenerateOptions.loras choose others, by their indices here.
  const char *const *loras;
  // What each one's updates are multiplied by: n_loras numbers, 0 to begin without it; null: 1 for all.
  const float *lora_scales;
  // Number of loras.
  size_t n_loras;
  // A smaller model of the same vocabulary that drafts too, where that pays: a GGUF file. NUL-terminated; null: drafts come from the text
  // and the answer's form alone.
  const char *draft_model;
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

// Facts about a loaded model.
typedef struct HeraldEngineInfo {
  // sizeof(HeraldEngineInfo).
  size_t struct_size;
  // Number of tokens in the vocabulary, and of a token's logits; ids are below it.
  uint32_t vocabulary;
  // Maximum number of tokens of a sequence.
  uint32_t context;
  // Size of a token's activations.
  uint32_t hidden;
  // Number of blocks.
  uint32_t blocks;
  // The token that begins a text, or HERALD_NO_TOKEN.
  uint32_t bos;
  // The token that ends a text, or HERALD_NO_TOKEN.
  uint32_t eos;
  // Number of threads.
  uint32_t threads;
  // Unused; 0.
  uint32_t reserved;
  // Seconds that loading took.
  double load_seconds;
} HeraldEngineInfo;

// What the memory tiers hold. Each layer counts its tokens separately.
typedef struct HeraldMemoryUsage {
  // sizeof(HeraldMemoryUsage).
  size_t struct_size;
  // Pages of the active tier: in RAM, as attention writes them.
  uint64_t active_pages;
  // Tokens in them.
  uint64_t active_tokens;
  // Their bytes.
  uint64_t active_bytes;
  // Pages of the compressed tier: in RAM, 4 bits per element.
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
  // RAM of all tiers, in bytes.
  uint64_t memory_bytes;
  // Selected pages that were in RAM; 0 in the usage of one context.
  uint64_t hits;
  // Selected pages that were read from the file; 0 in the usage of one context.
  uint64_t misses;
  // Bytes of the prefix cache's active pages; 0 in the usage of one context.
  uint64_t prefix_bytes;
  // Bytes of recurrent states, which are in no tier.
  uint64_t state_bytes;
  // Bytes that all pages would need in the active tier.
  uint64_t exact_bytes;
  // How many times smaller they are than that; 1 without pages.
  double ratio;
  // Pages that have moved between tiers since the engine was loaded; 0 in the usage of one context or sequence.
  uint64_t moved_pages;
} HeraldMemoryUsage;

// One turn of a conversation.
typedef struct HeraldMessage {
  // sizeof(HeraldMessage), the same in all messages of an array.
  size_t struct_size;
  // The speaker: "system", "user", "assistant", or another role that the model's template knows. NUL-terminated UTF-8.
  const char *role;
  // The message, NUL-terminated UTF-8.
  const char *content;
} HeraldMessage;

// What a generation's callback gets: a token, and the text that is certain with it. Valid during the call.
typedef struct HeraldPiece {
  // sizeof(HeraldPiece) of the library.
  size_t struct_size;
  // Whole UTF-8 characters that can't be part of a stop text, NUL-terminated; may be empty.
  const char *text;
  // Bytes of text, without the NUL.
  size_t text_len;
  // The token; HERALD_NO_TOKEN if this is text that was held back until the end.
  uint32_t token;
  // The token's natural log-probability under the model's own distribution, before bias, penalties, filters and
  // temperature.
  float logprob;
  // The most probable tokens under that distribution, best first: n_top ids.
  const uint32_t *top_tokens;
  // Their log-probabilities.
  const float *top_logprobs;
  // Their number; at most HeraldGenerateOptions.top_logprobs.
  size_t n_top;
} HeraldPiece;

// How to generate. Zero is every field's default: a struct of zeros (but for struct_size) takes the most probable token
// each time until the model ends.
typedef struct HeraldGenerateOptions {
  // sizeof(HeraldGenerateOptions).
  size_t struct_size;
  // Gets every token as soon as it is generated, and returns HERALD_GO_ON, or HERALD_STOP to end the generation. Runs on
  // the calling thread; must not throw or longjmp; may call anything that doesn't use the sequence. Null: no callback.
  int32_t (*on_piece)(void *user_data, const struct HeraldPiece *piece);
  // The caller's data; passed to on_piece.
  void *user_data;
  // HERALD_GENERATE_* bits.
  uint32_t flags;
  // Maximum number of tokens to generate; 0: until the model ends or the context is full.
  uint32_t max_tokens;
  // With HERALD_GENERATE_SEEDED: the same seed, settings and logits give the same tokens on every platform.
  uint64_t seed;
  // Divides the logits before sampling; 0: greedy, the best logit after bias and penalties.
  float temperature;
  // Keep the best top_k logits; 0: no limit.
  uint32_t top_k;
  // Keep the best tokens that together have this probability, up to 1; 0 or 1: off.
  float top_p;
  // Keep the tokens at least this probable relative to the best, up to 1; 0: off.
  float min_p;
  // Locally typical sampling: keep the tokens whose surprise is closest to the entropy, up to this total probability;
  // 0 or 1: off.
  float typical_p;
  // The logit of each of the last repeat_last_n tokens, prompt included, is divided by this if positive, otherwise
  // multiplied; 0 or 1: off.
  float repetition_penalty;
  // Number of tokens that the repetition penalty applies to; 0: 64.
  uint32_t repeat_last_n;
  // Subtracted from the logit of each token that was already generated; 0: off.
  float presence_penalty;
  // Subtracted from a token's logit for each time that it was generated; 0: off.
  float frequency_penalty;
  // How many of the most probable tokens to report with each token; 0: none.
  uint32_t top_logprobs;
  // Texts that end the generation and are not part of it: n_stops, each NUL-terminated UTF-8; null for none.
  const char *const *stops;
  // Number of stops.
  size_t n_stops;
  // Tokens that end the generation in addition to the model's own: n_stop_tokens; null for none.
  const uint32_t *stop_tokens;
  // Number of stop_tokens.
  size_t n_stop_tokens;
  // Tokens whose logits are changed: n_biases; null for none.
  const uint32_t *bias_tokens;
  // Added to their logits; -INFINITY bans a token.
  const float *biases;
  // Number of biases.
  size_t n_biases;
  // A JSON schema that the answer must match (NUL-terminated UTF-8); null: none.
  const char *json_schema;
  // A regular expression that the whole answer must match (NUL-terminated UTF-8); null: none. At most one of json_schema,
  // regex and grammar may be set.
  const char *regex;
  // When it ends at the latest, in milliseconds from the call's beginning, with HERALD_FINISH_DEADLINE; 0: never.
  uint64_t deadline_ms;
  // Who shares what this computes in the prefix cache, such as a user's name (NUL-terminated UTF-8): only generations with the
  // same key take it over. Null: those with none.
  const char *cache_key;
  // A grammar that the answer must match, in GBNF (llama.cpp's form, where a rule is defined by `::=`) or Lark's form
  // (NUL-terminated UTF-8); null: none.
  const char *grammar;
  // The adapters that this is computed with: n_loras indices into HeraldEngineOptions.loras. Those that aren't among them are off, and
  // so is one whose scale is 0. Null: as the sequence has them. Tokens that the sequence has must have been computed with the same.
  const uint32_t *loras;
  // What each one's updates are multiplied by: n_loras numbers.
  const float *lora_scales;
  // Number of loras.
  size_t n_loras;
} HeraldGenerateOptions;

// A finished generation.
typedef struct HeraldGenerated {
  // sizeof(HeraldGenerated).
  size_t struct_size;
  // Number of generated tokens, including the one that ended it, if any.
  size_t n_tokens;
  // Number of the prompt's tokens.
  size_t n_prompt_tokens;
  // HERALD_FINISH_*.
  uint32_t finish;
  // The token that ended it, or HERALD_NO_TOKEN.
  uint32_t end_token;
  // The index of the stop that ended it.
  size_t stop;
  // The seed that was used.
  uint64_t seed;
  // Seconds that the prompt took.
  double prompt_seconds;
  // Seconds that the tokens after it took.
  double decode_seconds;
  // How many of the prompt's tokens were taken from the prefix cache, and not run.
  size_t n_cached_tokens;
} HeraldGenerated;

// How a scheduler shares an engine out. Zero is every field's default.
typedef struct HeraldSchedulerOptions {
  // sizeof(HeraldSchedulerOptions).
  size_t struct_size;
  // Requests that run together at most, up to HeraldEngineOptions.max_batch; 0: 32.
  uint32_t max_running;
  // Requests that wait at most; one more gets the status QUEUE_FULL. 0: 256.
  uint32_t max_waiting;
  // The most prompt tokens of a step while other requests decode, which wait for them; 0: 512.
  uint32_t prompt_piece;
  // About how many milliseconds a step with prompts may take: so long others wait at most. 0: 200.
  uint32_t step_ms;
} HeraldSchedulerOptions;

// What a request asks to be continued: exactly one of text, ids and messages.
typedef struct HeraldPrompt {
  // sizeof(HeraldPrompt).
  size_t struct_size;
  // A text: text_len bytes of UTF-8; or null.
  const char *text;
  // Bytes of text.
  size_t text_len;
  // Tokens: n_ids ids; or null.
  const uint32_t *ids;
  // Number of ids.
  size_t n_ids;
  // A conversation that the model's chat template formats: n_messages messages; or null.
  const struct HeraldMessage *messages;
  // Number of messages.
  size_t n_messages;
  // Whose request it is, NUL-terminated UTF-8: where places are short, all clients are served equally. Null: nobody's in
  // particular.
  const char *client;
  // For a text: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT.
  uint32_t flags;
  // Unused; 0.
  uint32_t reserved;
} HeraldPrompt;

// What herald_request_next fills.
typedef struct HeraldEvent {
  // sizeof(HeraldEvent).
  size_t struct_size;
  // HERALD_EVENT_*.
  uint32_t kind;
  // Unused; 0.
  uint32_t reserved;
  // The token; null unless kind is HERALD_EVENT_PIECE. Valid until the next call with this request.
  const struct HeraldPiece *piece;
  // The end; null unless kind is HERALD_EVENT_FINISHED. Valid until the request is freed.
  const struct HeraldGenerated *generated;
} HeraldEvent;

// What herald_memory_optimize done.
typedef struct HeraldOptimized {
  // sizeof(HeraldOptimized).
  size_t struct_size;
  // Moves of pages from a tier to the one below.
  uint64_t moved_pages;
  // Dropped pages of the prefix cache that no context held.
  uint64_t unreferenced_pages;
  // Pages that were dropped because another context has the same, which both now share.
  uint64_t merged_pages;
  // Freed pages of unused reserved room.
  uint64_t spare_pages;
  // Decrease of the tiers' RAM, in bytes.
  uint64_t bytes_freed;
  // Decrease of the process's RAM from returning freed memory to the system, in bytes.
  uint64_t returned_bytes;
  // Contexts that were skipped because they were in use.
  uint64_t busy_contexts;
  // The unused share of the tiers' room for tokens, before.
  double fragmentation_before;
  // The same, afterwards.
  double fragmentation_after;
} HeraldOptimized;

// Pages that the tiers hold, compared with those that can be reached.
typedef struct HeraldLeakStats {
  // sizeof(HeraldLeakStats).
  size_t struct_size;
  // Pages that the tiers hold.
  uint64_t held_pages;
  // Their bytes.
  uint64_t held_bytes;
  // Pages that contexts or the prefix cache hold, each counted once.
  uint64_t reachable_pages;
  // Their bytes.
  uint64_t reachable_bytes;
  // The engine's other sequences, whose pages are unknown.
  uint64_t other_sequences;
  // Pages without a known owner: it is gone, or one of the other sequences.
  uint64_t orphaned_pages;
  // Their bytes.
  uint64_t orphaned_bytes;
  // Growth of held_pages since the mark; may be negative.
  int64_t grown_pages;
  // Growth of held_bytes since the mark.
  int64_t grown_bytes;
  // Growth of the process's RSS since the mark. A heap keeps some freed memory, so this alone proves nothing.
  int64_t grown_rss_bytes;
} HeraldLeakStats;

// A chunk that a search found. Valid during the callback.
typedef struct HeraldHit {
  // sizeof(HeraldHit) of the library.
  size_t struct_size;
  // Its text's number.
  uint64_t document;
  // Its text's name: name_len bytes of UTF-8, not NUL-terminated.
  const char *name;
  // Bytes of name.
  size_t name_len;
  // Its index in the text.
  size_t chunk;
  // The chunk: text_len bytes of UTF-8, not NUL-terminated.
  const char *text;
  // Bytes of text.
  size_t text_len;
  // The sum of its reciprocal ranks by meaning and by words.
  double score;
  // Its rank by meaning, from 1.
  size_t meaning_rank;
  // Its rank by words, from 1; 0 if it has too few of the query's words.
  size_t word_rank;
} HeraldHit;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "1.2.0", NUL-terminated, valid forever. Any thread.
const char *herald_version(void);

// Loads a model and writes the engine to *out; the caller frees it with herald_engine_free. On failure *out is null.
// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; NOT_FOUND (no such file or backend, or no plugin at all);
// IO; CORRUPT (a damaged file); UNSUPPORTED (a model that no plugin can run); OUT_OF_MEMORY; INTERNAL.
uint32_t herald_engine_load(const struct HeraldEngineOptions *options,
                            struct HeraldEngine **out,
                            struct HeraldError *error);

// Frees an engine. Its sequences may be freed before or after it, and keep the model in memory until then. No call may be
// running on the engine. Any thread. Null is allowed.
void herald_engine_free(struct HeraldEngine *engine);

// Fills info, whose struct_size the caller must set. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_engine_info(const struct HeraldEngine *engine,
                            struct HeraldEngineInfo *info,
                            struct HeraldError *error);

// Writes the name of the backend that computes most layers, NUL-terminated, to name, and its length without the NUL to
// *len. capacity: size of name in bytes, which must be greater than *len. Any thread, many at once. Statuses: OK;
// BUFFER_TOO_SMALL, with *len the length; INVALID_ARGUMENT.
uint32_t herald_engine_backend(const struct HeraldEngine *engine,
                               char *name,
                               size_t capacity,
                               size_t *len,
                               struct HeraldError *error);

// Empties the prefix cache's RAM: what earlier prompts and answers computed, which later prompts that begin alike take over (see
// HeraldGenerated.n_cached_tokens). Sequences keep theirs, and the files of cache_dir stay. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_engine_forget_prefixes(const struct HeraldEngine *engine,
                                       struct HeraldError *error);

// Creates an empty sequence on an engine and writes it to *out; the caller frees it with herald_sequence_free. On failure
// *out is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_sequence_new(const struct HeraldEngine *engine,
                             struct HeraldEngineSequence **out,
                             struct HeraldError *error);

// Frees a sequence. No call may be running on it. Any thread. Null is allowed.
void herald_sequence_free(struct HeraldEngineSequence *sequence);

// Writes the sequence's tokens to ids, which has room for capacity, and their number to *n_ids. Any thread, one call at a
// time on a sequence. Statuses: OK; BUFFER_TOO_SMALL, with *n_ids the number; INVALID_ARGUMENT.
uint32_t herald_sequence_tokens(const struct HeraldEngineSequence *sequence,
                                uint32_t *ids,
                                size_t capacity,
                                size_t *n_ids,
                                struct HeraldError *error);

// Writes the sequence's number of tokens to *len. Any thread, one call at a time on a sequence. Statuses: OK;
// INVALID_ARGUMENT.
uint32_t herald_sequence_len(const struct HeraldEngineSequence *sequence,
                             size_t *len,
                             struct HeraldError *error);

// Removes the tokens from index len; a len past the end changes nothing. Any thread, one call at a time on a sequence.
// Statuses: OK; UNSUPPORTED, with nothing removed, if the model has recurrent states, which can only go back to 0;
// INVALID_ARGUMENT.
uint32_t herald_sequence_truncate(struct HeraldEngineSequence *sequence,
                                  size_t len,
                                  struct HeraldError *error);

// Creates a copy of a sequence, which goes on by itself, and writes it to *out; the caller frees it with herald_sequence_free.
// On failure *out is null. The two share pages until one of them writes, so a copy costs little; recurrent states are copied.
// It begins without a cancel and a deadline. Any thread, one call at a time on a sequence. Statuses: OK; INVALID_ARGUMENT;
// OUT_OF_MEMORY; INTERNAL.
uint32_t herald_sequence_fork(const struct HeraldEngineSequence *sequence,
                              struct HeraldEngineSequence **out,
                              struct HeraldError *error);

// Has a sequence computed with these adapters, and with no others: n_loras indices into HeraldEngineOptions.loras, each with what its
// updates are multiplied by; a scale of 0 turns one off. A sequence begins with all, at the scales of the options. Once it has tokens,
// which were computed with some, only the same are accepted: truncate it to 0 first. Any thread, one call at a time on a sequence.
// Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_sequence_set_loras(struct HeraldEngineSequence *sequence,
                                   const uint32_t *loras,
                                   const float *scales,
                                   size_t n_loras,
                                   struct HeraldError *error);

// Saves a sequence to a file (NUL-terminated path), for herald_sequence_load in this or another process. An earlier file of
// that name is replaced as a whole, or stays where this fails. Any thread, one call at a time on a sequence. Statuses: OK;
// INVALID_ARGUMENT; NOT_FOUND (the path's folder); IO; OUT_OF_MEMORY; CORRUPT (an archived page is damaged); INTERNAL.
uint32_t herald_sequence_save(const struct HeraldEngineSequence *sequence,
                              const char *path,
                              struct HeraldError *error);

// Loads a sequence that herald_sequence_save or the program host saved (NUL-terminated path), and writes it to *out; the
// caller frees it with herald_sequence_free. On failure *out is null. Its pages go to the tiers that they were in. A token
// that the program had chosen and not run is run. Any thread, many at once. Statuses: OK; NOT_FOUND; IO; CORRUPT (a damaged
// file, or one of something else); INVALID_ARGUMENT (also a file of another model or of an earlier version, or recurrent states
// of another backend); CONTEXT_FULL; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_sequence_load(const struct HeraldEngine *engine,
                              const char *path,
                              struct HeraldEngineSequence **out,
                              struct HeraldError *error);

// Fills usage, whose struct_size the caller must set, with what the tiers hold of a sequence; pages that it shares with others
// count whole. Any thread, one call at a time on a sequence. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_sequence_usage(const struct HeraldEngineSequence *sequence,
                               struct HeraldMemoryUsage *usage,
                               struct HeraldError *error);

// Moves a sequence's pages that are older than its latest keep_tokens tokens, except the first, to the compressed tier now, and
// what has no room there to the archived one. Writes the number of moves to *moved_pages, unless moved_pages is null. Any
// thread, one call at a time on a sequence. Statuses: OK; INVALID_ARGUMENT; OUT_OF_MEMORY; IO; INTERNAL.
uint32_t herald_sequence_compress(struct HeraldEngineSequence *sequence,
                                  size_t keep_tokens,
                                  uint64_t *moved_pages,
                                  struct HeraldError *error);

// Ends work on the sequence: the call that runs now, or else the next one, which then does nothing. A cancel stays set until a
// call has reported it (herald_generate* with HERALD_FINISH_CANCELLED; herald_prefill, herald_decode and herald_logits with
// the status CANCELLED) or herald_sequence_reset_cancel has cleared it. So none is lost that comes a moment too early; one
// that comes a moment too late ends the next call, unless you reset it first.
//
// A prompt ends after the layer that is running, a tenth of a second even for models of billions of parameters. The
// sequence then holds the pieces (of HeraldEngineOptions.max_batch ids) that were run to their end, and the next call goes
// on from there: nothing of the unfinished piece is left, neither keys and values nor recurrent states.
//
// Any thread, at any time until the sequence is freed; also from a signal handler. Null is allowed.
void herald_sequence_cancel(const struct HeraldEngineSequence *sequence);

// Clears a cancel that no call has reported. Returns 1 if there was one, otherwise 0. Any thread, at any time until the
// sequence is freed; also from a signal handler. Null is allowed.
uint32_t herald_sequence_reset_cancel(const struct HeraldEngineSequence *sequence);

// Sets when work on the sequence ends at the latest: milliseconds from now, for all calls that begin afterwards; 0: never. They
// end as if cancelled, herald_generate* with HERALD_FINISH_DEADLINE, the others with the status DEADLINE. Any thread, at any
// time. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_sequence_set_deadline(const struct HeraldEngineSequence *sequence,
                                      uint64_t milliseconds,
                                      struct HeraldError *error);

// Writes the token ids of text (UTF-8, text_len bytes) to ids, which has room for capacity, and their number to *n_ids.
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

// Writes the text of n_ids ids, NUL-terminated, to text, and its length without the NUL to *len; invalid UTF-8 becomes
// U+FFFD. capacity: size of text in bytes, which must be greater than *len. flags: HERALD_TEXT_SPECIAL,
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

// Writes the bytes that one token adds to a text that it continues, followed by a NUL, to bytes, and their number without
// the NUL to *len. They may be part of a UTF-8 character. capacity: size of bytes, which must be greater than *len. flags:
// HERALD_TEXT_SPECIAL. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the number; INVALID_ARGUMENT
// (an id outside the vocabulary).
uint32_t herald_token_bytes(const struct HeraldEngine *engine,
                            uint32_t id,
                            uint32_t flags,
                            char *bytes,
                            size_t capacity,
                            size_t *len,
                            struct HeraldError *error);

// 1 if this token ends a generation (the end of the text or of a turn), otherwise 0. Any thread, many at once.
uint32_t herald_token_ends(const struct HeraldEngine *engine,
                           uint32_t id);

// Formats n_messages messages by the model's chat template, and writes the text, NUL-terminated, to text, and its length
// without the NUL to *len. If add_generation_prompt is not 0, the text ends where the model's next turn begins. Pass it to
// herald_generate with HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT. capacity: size of text in bytes, which must be greater
// than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length; UNSUPPORTED (the model has no
// chat template, or it can't be compiled); INVALID_ARGUMENT (also if the template refuses the messages).
uint32_t herald_chat_format(const struct HeraldEngine *engine,
                            const struct HeraldMessage *messages,
                            size_t n_messages,
                            uint32_t add_generation_prompt,
                            char *text,
                            size_t capacity,
                            size_t *len,
                            struct HeraldError *error);

// Appends a prompt (UTF-8, prompt_len bytes) to the sequence and runs it, then generates: options->on_piece gets each token
// as soon as it is generated. flags: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT, for the prompt. options: null for the
// defaults. generated: filled at the end, its struct_size must be set; null if it isn't wanted. Afterwards the sequence
// holds the prompt and the generated tokens except the last, which has not been run; after a stop during the prompt, the
// pieces that were run.
// Any thread, many at once on one engine, one at a time on a sequence. Statuses: OK (also if it was stopped: see
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

// Like herald_generate, with n_ids ids as the prompt.
uint32_t herald_generate_ids(const struct HeraldEngine *engine,
                             struct HeraldEngineSequence *sequence,
                             const uint32_t *ids,
                             size_t n_ids,
                             const struct HeraldGenerateOptions *options,
                             struct HeraldGenerated *generated,
                             struct HeraldError *error);

// Appends n_ids ids to the sequence and runs them, and writes the last one's logits (vocabulary floats) to logits, which
// has room for capacity; null if they are not wanted. On failure the sequence holds the pieces (of
// HeraldEngineOptions.max_batch ids) that were run. Any thread, many at once on one engine, one at a time on a sequence.
// Statuses: OK; INVALID_ARGUMENT (no ids, an unknown id); CONTEXT_FULL and BUFFER_TOO_SMALL, with nothing run;
// CANCELLED and DEADLINE (see herald_sequence_cancel); OUT_OF_MEMORY; IO (the archive's disk is full); INTERNAL.
uint32_t herald_prefill(const struct HeraldEngine *engine,
                        struct HeraldEngineSequence *sequence,
                        const uint32_t *ids,
                        size_t n_ids,
                        float *logits,
                        size_t capacity,
                        struct HeraldError *error);

// Appends one token to each of n sequences, and runs them all in one pass. Writes the logits [n, vocabulary] to logits,
// which has room for capacity floats; null if they are not wanted. The sequences must differ. On failure no sequence has
// its token; if it was a plugin's while it computed, sequences of a model with recurrent states can only be truncated to 0. Any thread, many at once on one engine, one at a time on a sequence.
// Statuses: OK; INVALID_ARGUMENT (an unknown id, more sequences than max_batch); CONTEXT_FULL; BUFFER_TOO_SMALL;
// CANCELLED and DEADLINE (of any of the sequences); OUT_OF_MEMORY; IO; INTERNAL.
uint32_t herald_decode(const struct HeraldEngine *engine,
                       struct HeraldEngineSequence *const *sequences,
                       const uint32_t *tokens,
                       size_t n,
                       float *logits,
                       size_t capacity,
                       struct HeraldError *error);

// Appends n_ids ids to the sequence and runs them, and passes each one's logits to each, in order: index counts from 0, and
// the n_logits (vocabulary) floats at logits are valid during that call. each returns HERALD_GO_ON, or HERALD_STOP to end
// the work; it gets user_data, runs on the calling thread, must not throw or longjmp, and may call anything that doesn't
// use the sequence. Any thread, many at once on one engine, one at a time on a sequence. Statuses: those of herald_prefill;
// CANCELLED also if each stopped the work: the sequence then holds the pieces that were run.
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

// Writes a text's embedding to embedding, which has room for capacity floats, and their number to *n: hidden of them (see
// HeraldEngineInfo), or of EmbeddingGemma as many as its last matrix has rows. A model that is made for it (MiniLM, EmbeddingGemma)
// says how embeddings are pooled. Others give the mean of the text's tokens after the last block, before the final norm; a token
// that the model puts before every text (BOS) is run and left out. flags: HERALD_EMBED_*, at most one of them a pooling. A language
// model that was not trained to embed gives vectors that differ less than its texts do: compare them after you have subtracted the
// mean of many. deadline_ms: milliseconds from now; 0: none. The prefix cache plays no part. Any thread, many at once. Statuses: OK;
// INVALID_ARGUMENT (an empty text, not UTF-8); BUFFER_TOO_SMALL, with *n the number; UNSUPPORTED; CONTEXT_FULL; DEADLINE;
// OUT_OF_MEMORY; INTERNAL.
uint32_t herald_embed(const struct HeraldEngine *engine,
                      const char *text,
                      size_t text_len,
                      uint32_t flags,
                      uint64_t deadline_ms,
                      float *embedding,
                      size_t capacity,
                      size_t *n,
                      struct HeraldError *error);

// Runs n_ids ids as a text of their own through the embedding and the first blocks blocks (HERALD_ALL_BLOCKS: all of them), and
// passes each token's hidden state to each, in order: index counts from 0, and the n_state (hidden) floats at state, as the
// next block would read them, are valid during that call. each returns HERALD_GO_ON, or HERALD_STOP to end the work; it gets
// user_data, runs on the calling thread and must not throw or longjmp. deadline_ms: milliseconds from now; 0: none. Any
// thread, many at once. Statuses: OK; INVALID_ARGUMENT (no ids, an unknown id); CONTEXT_FULL; CANCELLED (each stopped it);
// DEADLINE; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_hidden_states(const struct HeraldEngine *engine,
                              const uint32_t *ids,
                              size_t n_ids,
                              uint32_t blocks,
                              uint64_t deadline_ms,
                              int32_t (*each)(void *user_data,
                                              size_t index,
                                              const float *state,
                                              size_t n_state),
                              void *user_data,
                              struct HeraldError *error);

// Starts a scheduler on an engine and writes it to *out; the caller frees it with herald_scheduler_free. On failure *out is null.
// options: null for the defaults. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT;
// OUT_OF_MEMORY; INTERNAL.
uint32_t herald_scheduler_new(const struct HeraldEngine *engine,
                              const struct HeraldSchedulerOptions *options,
                              struct HeraldScheduler **out,
                              struct HeraldError *error);

// Frees a scheduler: cancels its requests and waits for the running layer. Its requests may be freed before or after it. No call
// may be running on it, except on its requests. Any thread. Null is allowed.
void herald_scheduler_free(struct HeraldScheduler *scheduler);

// Submits a request and writes it to *out; the caller frees it with herald_request_free. On failure *out is null. options: null
// for the defaults; on_piece must be null, since pieces come from herald_request_next. A deadline counts from here, and so
// includes the time in the queue. Returns at once, after tokenizing the prompt and compiling a form of the answer. Any
// thread, many at once. Statuses: OK; QUEUE_FULL; INVALID_ARGUMENT (also a prompt without tokens); CONTEXT_FULL (the prompt is
// too long); UNSUPPORTED (no chat template); DEADLINE; OUT_OF_MEMORY; IO (no random seed); INTERNAL.
uint32_t herald_submit(const struct HeraldScheduler *scheduler,
                       const struct HeraldPrompt *prompt,
                       const struct HeraldGenerateOptions *options,
                       struct HeraldRequest **out,
                       struct HeraldError *error);

// Waits up to timeout_ms milliseconds (0: not at all; HERALD_WAIT_FOREVER) for what comes next of a request, and fills event, whose
// struct_size the caller must set: HERALD_EVENT_PIECE for each token, in order, at last HERALD_EVENT_FINISHED, then and from
// then on; HERALD_EVENT_NONE if nothing came in time. A request that failed gets its failure's status and sentence, also from
// then on. Any thread, one call at a time on a request. Statuses: OK; INVALID_ARGUMENT; those of herald_generate.
uint32_t herald_request_next(struct HeraldRequest *request,
                             uint32_t timeout_ms,
                             struct HeraldEvent *event,
                             struct HeraldError *error);

// Ends a request: herald_request_next gives the pieces that have come, then HERALD_EVENT_FINISHED with HERALD_FINISH_CANCELLED,
// within a fifth of a second. Its memory is freed after the running layer or, where other requests share the pass, after
// the pass. Does nothing if it has ended. Any thread, at any time until the request is freed. Null is allowed.
void herald_request_cancel(const struct HeraldRequest *request);

// Cancels a request that has not ended, and frees it. No call may be running on it. Any thread. Null is allowed.
void herald_request_free(struct HeraldRequest *request);

// Creates a manager without contexts on an engine and writes it to *out; the caller frees it with herald_memory_free. On
// failure *out is null. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
uint32_t herald_memory_new(const struct HeraldEngine *engine,
                           struct HeraldMemory **out,
                           struct HeraldError *error);

// Frees a manager and its contexts. No call may be running on it. Any thread. Null is allowed.
void herald_memory_free(struct HeraldMemory *memory);

// Appends a text (UTF-8, text_len bytes) to a context (NUL-terminated UTF-8 name) and runs it through the model's layers. A
// context that doesn't exist is created. An empty one begins with the model's BOS token, if it wants one. Writes the number
// of added tokens to *n_tokens, unless n_tokens is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT;
// CONTEXT_FULL; UNSUPPORTED; OUT_OF_MEMORY; IO (the archive's disk is full); INTERNAL.
uint32_t herald_memory_add_to_active(const struct HeraldMemory *memory,
                                     const char *context,
                                     const char *text,
                                     size_t text_len,
                                     size_t *n_tokens,
                                     struct HeraldError *error);

// Like herald_memory_add_to_active, with n_ids ids.
uint32_t herald_memory_add_ids_to_active(const struct HeraldMemory *memory,
                                         const char *context,
                                         const uint32_t *ids,
                                         size_t n_ids,
                                         struct HeraldError *error);

// Appends a text to a context like herald_memory_add_to_active, then generates like herald_generate, with the same options,
// callback and answer. The last token, which was not run, runs before whatever comes next. Any thread, many at once.
// Statuses: those of herald_memory_add_to_active and herald_generate.
uint32_t herald_memory_generate(const struct HeraldMemory *memory,
                                const char *context,
                                const char *text,
                                size_t text_len,
                                const struct HeraldGenerateOptions *options,
                                struct HeraldGenerated *generated,
                                struct HeraldError *error);

// Ends work on a context: what runs now, or else what begins next, which then does nothing. Stays set until a call has reported
// it, herald_memory_generate with HERALD_FINISH_CANCELLED, herald_memory_add_* with the status CANCELLED; see
// herald_sequence_cancel. Doesn't wait, and may be called from callbacks. Any thread, many at once. Statuses: OK;
// INVALID_ARGUMENT (no such context).
uint32_t herald_memory_cancel(const struct HeraldMemory *memory,
                              const char *context,
                              struct HeraldError *error);

// Moves a context's pages that are older than its latest keep_tokens tokens, except the first, to the compressed tier now.
// Writes the number of moves to *moved_pages, unless moved_pages is null. Any thread, many at once. Statuses: OK;
// INVALID_ARGUMENT (no such context); OUT_OF_MEMORY; IO; INTERNAL.
uint32_t herald_memory_compress(const struct HeraldMemory *memory,
                                const char *context,
                                size_t keep_tokens,
                                uint64_t *moved_pages,
                                struct HeraldError *error);

// Optimises memory: frees unused reserved room, moves pages that exceed the active tier's capacity down, merges equal pages
// of several contexts, drops pages that nobody holds, and returns freed memory to the system. Fills optimized, whose
// struct_size the caller must set; null if it isn't wanted. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT;
// OUT_OF_MEMORY; IO; INTERNAL.
uint32_t herald_memory_optimize(const struct HeraldMemory *memory,
                                struct HeraldOptimized *optimized,
                                struct HeraldError *error);

// Removes all tokens of a context from all tiers; it stays open. Null: every context. Any thread, many at once. Statuses:
// OK; INVALID_ARGUMENT (no such context); INTERNAL.
uint32_t herald_memory_clear_active(const struct HeraldMemory *memory,
                                    const char *context,
                                    struct HeraldError *error);

// Closes a context after waiting for work on it; does nothing if there is none. Any thread, many at once. Statuses: OK;
// INVALID_ARGUMENT; INTERNAL.
uint32_t herald_memory_close(const struct HeraldMemory *memory,
                             const char *context,
                             struct HeraldError *error);

// Fills usage, whose struct_size the caller must set, with what the tiers held of a context when work on it last ended; for
// null, with what they hold of all sequences of the engine, counting shared pages once. Doesn't wait, and may be called from
// callbacks. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such context).
uint32_t herald_memory_usage(const struct HeraldMemory *memory,
                             const char *context,
                             struct HeraldMemoryUsage *usage,
                             struct HeraldError *error);

// Fills stats, whose struct_size the caller must set. Waits for running work on contexts, and delays new work meanwhile.
// Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
uint32_t herald_memory_leak_stats(const struct HeraldMemory *memory,
                                  struct HeraldLeakStats *stats,
                                  struct HeraldError *error);

// Sets the mark from which herald_memory_leak_stats counts growth. Any thread. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_memory_mark(const struct HeraldMemory *memory,
                            struct HeraldError *error);

// Opens a folder's documents (NUL-terminated path), creating the folder if it doesn't exist, and writes them to *out; the
// caller frees them with herald_documents_free. On failure *out is null. If folder is null, the documents are only in RAM.
// Damaged files are left out, with a warning in the log. The engine may be freed before them. Any thread. Statuses: OK;
// INVALID_ARGUMENT (also if the texts were added with another model); IO; NOT_FOUND; INTERNAL.
uint32_t herald_documents_open(const struct HeraldEngine *engine,
                               const char *folder,
                               struct HeraldDocuments **out,
                               struct HeraldError *error);

// Frees the handle. No call may be running on it. The files stay. Any thread. Null is allowed.
void herald_documents_free(struct HeraldDocuments *documents);

// Adds a text (UTF-8, text_len bytes) under a name (NUL-terminated UTF-8), and writes its number to *id, unless id is null.
// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (an empty text); UNSUPPORTED; IO; OUT_OF_MEMORY; INTERNAL.
uint32_t herald_documents_add(const struct HeraldDocuments *documents,
                              const char *name,
                              const char *text,
                              size_t text_len,
                              uint64_t *id,
                              struct HeraldError *error);

// Passes the count chunks that match a query (NUL-terminated UTF-8) best to each, best first. each returns HERALD_GO_ON, or
// HERALD_STOP for no more; it gets user_data, runs on the calling thread and must not throw or longjmp. Any thread, many at
// once. Statuses: OK; INVALID_ARGUMENT (an empty query); OUT_OF_MEMORY; INTERNAL.
uint32_t herald_documents_search(const struct HeraldDocuments *documents,
                                 const char *query,
                                 size_t count,
                                 int32_t (*each)(void *user_data, const struct HeraldHit *hit),
                                 void *user_data,
                                 struct HeraldError *error);

// Writes a prompt for a question (NUL-terminated UTF-8), with as much of the count best chunks as fits into budget tokens,
// NUL-terminated, to text, and its length without the NUL to *len. capacity: size of text in bytes, which must be greater
// than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length; INVALID_ARGUMENT (also if the
// question alone exceeds the budget); OUT_OF_MEMORY; INTERNAL.
uint32_t herald_documents_recall(const struct HeraldDocuments *documents,
                                 const char *question,
                                 size_t count,
                                 size_t budget,
                                 char *text,
                                 size_t capacity,
                                 size_t *len,
                                 struct HeraldError *error);

// Removes a text by its number. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such text); IO; INTERNAL.
uint32_t herald_documents_remove(const struct HeraldDocuments *documents,
                                 uint64_t id,
                                 struct HeraldError *error);

// Removes all texts. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; IO; INTERNAL.
uint32_t herald_documents_clear(const struct HeraldDocuments *documents, struct HeraldError *error);

// Fills usage, whose struct_size the caller must set, with what the tiers hold of all sequences of an engine; pages that several
// share count once. Doesn't wait. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
uint32_t herald_engine_usage(const struct HeraldEngine *engine,
                             struct HeraldMemoryUsage *usage,
                             struct HeraldError *error);

// Writes metrics as JSON, NUL-terminated UTF-8, to text, and its length without the NUL to *len: an object with the memory of the
// process, what each memory tier holds, what has moved between them and, unless scheduler is null, what its requests took
// (counts, tokens, quantiles of times in seconds). capacity: size of text in bytes, which must be greater than *len; the text
// may be longer the next time, so leave some room. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the
// length; INVALID_ARGUMENT.
uint32_t herald_metrics_json(const struct HeraldEngine *engine,
                             const struct HeraldScheduler *scheduler,
                             char *text,
                             size_t capacity,
                             size_t *len,
                             struct HeraldError *error);

// Like herald_metrics_json, in Prometheus's text format (OpenMetrics 1.0): serve it as
// application/openmetrics-text; version=1.0.0; charset=utf-8.
uint32_t herald_metrics_prometheus(const struct HeraldEngine *engine,
                                   const struct HeraldScheduler *scheduler,
                                   char *text,
                                   size_t capacity,
                                   size_t *len,
                                   struct HeraldError *error);

// Sets the function that gets the engine's log, for the whole process; null for none, the default. It gets lines of this
// level (HERALD_LOG_*) and of more severe ones: UTF-8 without a newline at the end, NUL-terminated, text_len bytes without
// the NUL, valid during the call. It is called with user_data, from any thread, many at once; it must not throw, longjmp,
// or call herald_log. When herald_log returns, the previous function is not called any more.
// Any thread. Statuses: OK; INVALID_ARGUMENT (no such level); UNSUPPORTED (a Rust program with its own log).
uint32_t herald_log(uint32_t level,
                    void (*log)(void *user_data, uint32_t level, const char *text, size_t text_len),
                    void *user_data,
                    struct HeraldError *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HERALD_H */
