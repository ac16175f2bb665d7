// HERALD for C++17: owning handles over herald.h, and exceptions with the library's sentences.
//
//     herald::Engine engine("model.gguf");
//     herald::Sequence sequence(engine);
//     auto options = herald::sized<HeraldGenerateOptions>();
//     options.max_tokens = 100;
//     engine.generate(sequence, "Hello", options, [](std::string_view text) { std::cout << text << std::flush; });
//
// herald.h says what each call does, which threads may make it and what fails. Here, handles own what they hold and are move-only
// (one that was moved from may be destroyed or assigned to); a call that fails throws herald::Error; callbacks are anything that
// can be called, return nothing or whether to go on, and may throw: the exception comes out of the call. Names and paths are
// std::string, other texts std::string_view. Nothing is allocated but what a call returns.

#ifndef HERALD_HPP
#define HERALD_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <herald.h>

namespace herald {

// A call that failed: its sentence, and its HERALD_STATUS_*.
class Error : public std::runtime_error {
public:
    Error(std::uint32_t status, const char *message) : std::runtime_error(message), status_(status) {}
    std::uint32_t status() const noexcept { return status_; }
private:
    std::uint32_t status_;
};

// A struct of herald.h: zeros, with its struct_size.
template <typename Struct>
Struct sized() noexcept {
    Struct value{};
    value.struct_size = sizeof value;
    return value;
}

// Calls a function of herald.h whose last argument is the error, and throws if it fails.
template <typename Function, typename... Arguments>
void call(Function function, Arguments... arguments) {
    HeraldError error = sized<HeraldError>();
    const std::uint32_t status = function(arguments..., &error);
    if (status != HERALD_STATUS_OK)
        throw Error(status, error.message);
}

namespace detail {

// A struct that a call fills, which is its last argument but for the error.
template <typename Struct, typename Function, typename... Arguments>
Struct filled(Function function, Arguments... arguments) {
    Struct value = sized<Struct>();
    call(function, arguments..., &value);
    return value;
}

// A handle of herald.h, freed by its function.
template <typename Raw, void (*free)(Raw *)>
class Owned {
public:
    Raw *get() const noexcept { return raw_.get(); }

protected:
    Owned() = default;

    // Takes over what a call writes to its out argument.
    template <typename Make>
    void own(Make make) {
        Raw *raw = nullptr;
        make(&raw);
        raw_.reset(raw);
    }
private:
    struct Free {
        void operator()(Raw *raw) const noexcept { free(raw); }
    };
    std::unique_ptr<Raw, Free> raw_;
};

// Calls back, and keeps an exception, which must not cross the library.
template <typename Callable>
struct Callback {
    Callable &callable;
    std::exception_ptr thrown{};

    template <typename... Arguments>
    std::int32_t operator()(Arguments &&...arguments) noexcept {
        try {
            if constexpr (std::is_void_v<std::invoke_result_t<Callable &, Arguments...>>) {
                callable(std::forward<Arguments>(arguments)...);
                return HERALD_GO_ON;
            } else {
                return callable(std::forward<Arguments>(arguments)...) ? HERALD_GO_ON : HERALD_STOP;
            }
        } catch (...) {
            thrown = std::current_exception();
            return HERALD_STOP;
        }
    }

    // Runs a call that calls back; an exception of the callable comes before the call's own failure.
    template <typename Run>
    void during(Run run) {
        try {
            run();
        } catch (const Error &) {
            if (!thrown)
                throw;
        }
        if (thrown)
            std::rethrow_exception(thrown);
    }
};

// What a call writes to a buffer: first one of the usual size, then one of the needed size. A text's NUL is no part of it.
template <typename Container, typename Write>
Container written(Write write, std::size_t usual) {
    constexpr std::size_t nul = std::is_same_v<Container, std::string> ? 1 : 0;
    Container container(usual + nul, {});
    for (;;) {
        HeraldError error = sized<HeraldError>();
        std::size_t len = 0;
        const std::uint32_t status = write(container.data(), container.size(), &len, &error);
        if (status != HERALD_STATUS_OK && status != HERALD_STATUS_BUFFER_TOO_SMALL)
            throw Error(status, error.message);
        // Some more room for texts that grow meanwhile.
        container.resize(status == HERALD_STATUS_OK ? len : len + nul + nul * len / 8);
        if (status == HERALD_STATUS_OK)
            return container;
    }
}

template <typename Write>
std::string text(Write write, std::size_t usual = 256) {
    return written<std::string>(write, usual);
}

// A callback for pieces may take the text alone, or the whole piece.
template <typename OnPiece>
std::int32_t piece(void *user_data, const HeraldPiece *raw) noexcept {
    auto &callback = *static_cast<Callback<OnPiece> *>(user_data);
    if constexpr (std::is_invocable_v<OnPiece &, std::string_view>)
        return callback(std::string_view(raw->text, raw->text_len));
    else
        return callback(*raw);
}

// Runs a generation with a callback for its pieces.
template <typename OnPiece, typename Run>
HeraldGenerated with_pieces(HeraldGenerateOptions options, OnPiece &on_piece, Run run) {
    Callback<OnPiece> callback{on_piece};
    options.on_piece = piece<OnPiece>;
    options.user_data = &callback;
    auto done = sized<HeraldGenerated>();
    callback.during([&] { run(&options, &done); });
    return done;
}

// Runs a call with a callback for rows of floats.
template <typename Each, typename Run>
void with_rows(Each &each, Run run) {
    Callback<Each> callback{each};
    const auto row = [](void *user_data, std::size_t index, const float *floats, std::size_t n) -> std::int32_t {
        return (*static_cast<Callback<Each> *>(user_data))(index, floats, n);
    };
    callback.during([&] { run(+row, static_cast<void *>(&callback)); });
}

inline std::uint64_t milliseconds(std::chrono::milliseconds time) noexcept {
    // 0 stands for "never": a time that is over is over in a millisecond.
    return time.count() < 1 ? 1 : static_cast<std::uint64_t>(time.count());
}

} // namespace detail

using Ids = std::vector<std::uint32_t>;

// A turn of a conversation.
struct Message {
    std::string role;
    std::string content;
};

namespace detail {

// Messages as herald.h takes them, valid as long as the given ones.
inline std::vector<HeraldMessage> raw_messages(const std::vector<Message> &messages) {
    std::vector<HeraldMessage> raw;
    raw.reserve(messages.size());
    for (const Message &message : messages) {
        raw.push_back(sized<HeraldMessage>());
        raw.back().role = message.role.c_str();
        raw.back().content = message.content.c_str();
    }
    return raw;
}

} // namespace detail

class Engine;
class Scheduler;

// One context of an engine. It may outlive its engine. One call at a time, except cancel and reset_cancel.
class Sequence : public detail::Owned<HeraldEngineSequence, herald_sequence_free> {
public:
    explicit Sequence(const Engine &engine);

    // What save wrote, in this or another process.
    static Sequence load(const Engine &engine, const std::string &path);

    void save(const std::string &path) const { call(herald_sequence_save, get(), path.c_str()); }

    // A copy that goes on by itself.
    Sequence fork() const {
        Sequence copy;
        copy.own([&](HeraldEngineSequence **out) { call(herald_sequence_fork, get(), out); });
        return copy;
    }
    std::size_t size() const {
        std::size_t len = 0;
        call(herald_sequence_len, get(), &len);
        return len;
    }
    Ids tokens() const {
        return detail::written<Ids>([&](auto... out) { return herald_sequence_tokens(get(), out...); }, size());
    }
    void truncate(std::size_t len) { call(herald_sequence_truncate, get(), len); }

    // The adapters that it is computed with, by their indices in the engine's options, each with its scale; the others are off.
    void set_loras(const std::vector<std::uint32_t> &loras, const std::vector<float> &scales) {
        if (loras.size() != scales.size())
            throw Error(HERALD_STATUS_INVALID_ARGUMENT, "there are not as many scales as adapters, where one each was expected");
        call(herald_sequence_set_loras, get(), loras.data(), scales.data(), loras.size());
    }

    HeraldMemoryUsage usage() const { return detail::filled<HeraldMemoryUsage>(herald_sequence_usage, get()); }

    // Moves pages before the latest keep_tokens tokens down a tier; returns the number of moves.
    std::uint64_t compress(std::size_t keep_tokens) {
        std::uint64_t moved = 0;
        call(herald_sequence_compress, get(), keep_tokens, &moved);
        return moved;
    }

    // Ends the call that is running on it, or the next one; from any thread.
    void cancel() const noexcept { herald_sequence_cancel(get()); }

    // Clears a cancel that no call has reported; whether there was one.
    bool reset_cancel() const noexcept { return herald_sequence_reset_cancel(get()) != 0; }

    // When work ends at the latest, from now.
    void set_deadline(std::chrono::milliseconds time) const {
        call(herald_sequence_set_deadline, get(), detail::milliseconds(time));
    }
    void clear_deadline() const { call(herald_sequence_set_deadline, get(), std::uint64_t{0}); }
private:
    Sequence() = default;
};

// A loaded model. Any number of threads may use it at once.
class Engine : public detail::Owned<HeraldEngine, herald_engine_free> {
public:
    explicit Engine(const std::string &model_path) { load(sized<HeraldEngineOptions>(), model_path.c_str()); }

    explicit Engine(const HeraldEngineOptions &options) { load(options, options.model_path); }

    HeraldEngineInfo info() const { return detail::filled<HeraldEngineInfo>(herald_engine_info, get()); }

    std::string backend() const {
        return detail::text([&](auto... out) { return herald_engine_backend(get(), out...); });
    }
    std::size_t vocabulary() const noexcept { return vocabulary_; }
    std::size_t hidden() const noexcept { return hidden_; }
    bool ends(std::uint32_t token) const noexcept { return herald_token_ends(get(), token) != 0; }

    Ids tokenize(std::string_view text, std::uint32_t flags = HERALD_TEXT_PROMPT) const {
        // A text has at most as many tokens as bytes, plus BOS and EOS: the first call usually fits.
        const auto write = [&](auto... out) { return herald_tokenize(get(), text.data(), text.size(), flags, out...); };
        return detail::written<Ids>(write, text.size() + 2);
    }
    std::string detokenize(const Ids &ids, std::uint32_t flags = 0) const {
        return detail::text([&](auto... out) { return herald_detokenize(get(), ids.data(), ids.size(), flags, out...); });
    }

    // The bytes that a token adds to a text; they may be part of a character.
    std::string token_bytes(std::uint32_t id, std::uint32_t flags = 0) const {
        return detail::text([&](auto... out) { return herald_token_bytes(get(), id, flags, out...); }, 32);
    }

    // A conversation as the model's template writes it: pass it to generate with HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT.
    std::string format(const std::vector<Message> &messages, bool add_generation_prompt = true) const {
        const std::vector<HeraldMessage> raw = detail::raw_messages(messages);
        const std::uint32_t add = add_generation_prompt ? 1 : 0;
        return detail::text(
            [&](auto... out) { return herald_chat_format(get(), raw.data(), raw.size(), add, out...); }, 1024);
    }

    // The logits [vocabulary] after the ids.
    std::vector<float> prefill(Sequence &sequence, const Ids &ids) const {
        std::vector<float> logits(vocabulary_);
        call(herald_prefill, get(), sequence.get(), ids.data(), ids.size(), logits.data(), logits.size());
        return logits;
    }

    // The logits [sequences, vocabulary] after one token for each sequence, all in one pass.
    std::vector<float> decode(const std::vector<Sequence *> &sequences, const Ids &tokens) const {
        if (sequences.size() != tokens.size())
            throw std::invalid_argument("decode takes one token for each sequence");
        std::vector<HeraldEngineSequence *> handles;
        handles.reserve(sequences.size());
        for (const Sequence *sequence : sequences)
            handles.push_back(sequence->get());
        std::vector<float> logits(vocabulary_ * tokens.size());
        call(herald_decode, get(), handles.data(), tokens.data(), tokens.size(), logits.data(), logits.size());
        return logits;
    }

    // Each id's logits in turn, to each(index, const float *logits, std::size_t n_logits).
    template <typename Each>
    void logits(Sequence &sequence, const Ids &ids, Each &&each) const {
        detail::with_rows(each, [&](auto row, void *user_data) {
            call(herald_logits, get(), sequence.get(), ids.data(), ids.size(), row, user_data);
        });
    }

    // Runs the prompt and generates; on_piece gets each text (std::string_view) or each piece (const HeraldPiece &).
    template <typename OnPiece>
    HeraldGenerated generate(Sequence &sequence, std::string_view prompt, const HeraldGenerateOptions &options,
                             OnPiece &&on_piece, std::uint32_t flags = HERALD_TEXT_PROMPT) const {
        return detail::with_pieces(options, on_piece, [&](const HeraldGenerateOptions *how, HeraldGenerated *done) {
            call(herald_generate, get(), sequence.get(), prompt.data(), prompt.size(), flags, how, done);
        });
    }

    // The same with ids as the prompt.
    template <typename OnPiece>
    HeraldGenerated generate(Sequence &sequence, const Ids &ids, const HeraldGenerateOptions &options,
                             OnPiece &&on_piece) const {
        return detail::with_pieces(options, on_piece, [&](const HeraldGenerateOptions *how, HeraldGenerated *done) {
            call(herald_generate_ids, get(), sequence.get(), ids.data(), ids.size(), how, done);
        });
    }

    // A text's embedding [hidden]; flags: HERALD_EMBED_*.
    std::vector<float> embed(std::string_view text, std::uint32_t flags = HERALD_EMBED_NORMALIZE,
                             std::uint64_t deadline_ms = 0) const {
        std::vector<float> embedding(hidden_);
        std::size_t n = 0;
        call(herald_embed, get(), text.data(), text.size(), flags, deadline_ms, embedding.data(), embedding.size(), &n);
        return embedding;
    }

    // Each id's hidden state after some blocks, to each(index, const float *state, std::size_t n_state).
    template <typename Each>
    void hidden_states(const Ids &ids, std::uint32_t blocks, Each &&each, std::uint64_t deadline_ms = 0) const {
        detail::with_rows(each, [&](auto row, void *user_data) {
            call(herald_hidden_states, get(), ids.data(), ids.size(), blocks, deadline_ms, row, user_data);
        });
    }
    HeraldMemoryUsage usage() const { return detail::filled<HeraldMemoryUsage>(herald_engine_usage, get()); }

    void forget_prefixes() const { call(herald_engine_forget_prefixes, get()); }

    std::string metrics_json(const Scheduler *scheduler = nullptr) const;
    std::string metrics_prometheus(const Scheduler *scheduler = nullptr) const;
private:
    void load(HeraldEngineOptions options, const char *model_path) {
        options.model_path = model_path;
        own([&](HeraldEngine **out) { call(herald_engine_load, &options, out); });
        const HeraldEngineInfo facts = info();
        vocabulary_ = facts.vocabulary;
        hidden_ = facts.hidden;
    }
    std::size_t vocabulary_ = 0;
    std::size_t hidden_ = 0;
};

inline Sequence::Sequence(const Engine &engine) {
    own([&](HeraldEngineSequence **out) { call(herald_sequence_new, engine.get(), out); });
}

inline Sequence Sequence::load(const Engine &engine, const std::string &path) {
    Sequence sequence;
    sequence.own([&](HeraldEngineSequence **out) { call(herald_sequence_load, engine.get(), path.c_str(), out); });
    return sequence;
}

// What has come of a request.
struct Event {
    // HERALD_EVENT_*.
    std::uint32_t kind;
    // The text that is certain; valid until the next call with the request.
    std::string_view text;
    // The token, with what else there is of it; null unless kind is HERALD_EVENT_PIECE.
    const HeraldPiece *piece;
    // The end; null unless kind is HERALD_EVENT_FINISHED.
    const HeraldGenerated *generated;
};

// A request to a scheduler. Destroying it cancels it.
class Request : public detail::Owned<HeraldRequest, herald_request_free> {
public:
    // Waits for what comes next, up to a time.
    Event next(std::chrono::milliseconds time) {
        const auto count = time.count();
        const std::uint32_t most = HERALD_WAIT_FOREVER - 1;
        return next_within(count < 0 ? 0 : count > most ? most : static_cast<std::uint32_t>(count));
    }

    // Waits for what comes next as long as it takes.
    Event next() { return next_within(HERALD_WAIT_FOREVER); }

    // Waits for the end; on_piece gets each text (std::string_view) or each piece (const HeraldPiece &).
    template <typename OnPiece>
    HeraldGenerated finish(OnPiece &&on_piece) {
        for (;;) {
            const Event event = next();
            if (event.kind == HERALD_EVENT_FINISHED)
                return *event.generated;
            if (event.piece == nullptr)
                continue;
            using Callable = std::remove_reference_t<OnPiece>;
            detail::Callback<Callable> callback{on_piece};
            if (detail::piece<Callable>(&callback, event.piece) != HERALD_GO_ON)
                cancel();
            if (callback.thrown)
                std::rethrow_exception(callback.thrown);
        }
    }
    void cancel() const noexcept { herald_request_cancel(get()); }
private:
    friend class Scheduler;
    Request() = default;

    Event next_within(std::uint32_t timeout_ms) {
        auto event = sized<HeraldEvent>();
        call(herald_request_next, get(), timeout_ms, &event);
        std::string_view text;
        if (event.piece != nullptr)
            text = std::string_view(event.piece->text, event.piece->text_len);
        return Event{event.kind, text, event.piece, event.generated};
    }
};

// Serves many requests over one engine: continuous batching. Any number of threads may use it at once.
class Scheduler : public detail::Owned<HeraldScheduler, herald_scheduler_free> {
public:
    explicit Scheduler(const Engine &engine,
                       const HeraldSchedulerOptions &options = sized<HeraldSchedulerOptions>()) {
        own([&](HeraldScheduler **out) { call(herald_scheduler_new, engine.get(), &options, out); });
    }
    Request submit(std::string_view text, const HeraldGenerateOptions &options,
                   std::uint32_t flags = HERALD_TEXT_PROMPT, const char *client = nullptr) const {
        HeraldPrompt prompt = prompt_of(client);
        prompt.text = text.data() != nullptr ? text.data() : "";
        prompt.text_len = text.size();
        prompt.flags = flags;
        return submit(prompt, options);
    }
    Request submit(const Ids &ids, const HeraldGenerateOptions &options, const char *client = nullptr) const {
        const std::uint32_t none = 0;
        HeraldPrompt prompt = prompt_of(client);
        prompt.ids = ids.empty() ? &none : ids.data();
        prompt.n_ids = ids.size();
        return submit(prompt, options);
    }
    Request submit(const std::vector<Message> &messages, const HeraldGenerateOptions &options,
                   const char *client = nullptr) const {
        const std::vector<HeraldMessage> raw = detail::raw_messages(messages);
        const HeraldMessage none = sized<HeraldMessage>();
        HeraldPrompt prompt = prompt_of(client);
        prompt.messages = raw.empty() ? &none : raw.data();
        prompt.n_messages = raw.size();
        return submit(prompt, options);
    }
    Request submit(const HeraldPrompt &prompt, const HeraldGenerateOptions &options) const {
        Request request;
        request.own([&](HeraldRequest **out) { call(herald_submit, get(), &prompt, &options, out); });
        return request;
    }
private:
    static HeraldPrompt prompt_of(const char *client) noexcept {
        auto prompt = sized<HeraldPrompt>();
        prompt.client = client;
        return prompt;
    }
};

// Named contexts over one engine. Any number of threads may use it at once.
class Memory : public detail::Owned<HeraldMemory, herald_memory_free> {
public:
    explicit Memory(const Engine &engine) {
        own([&](HeraldMemory **out) { call(herald_memory_new, engine.get(), out); });
    }

    // Returns the number of tokens that were added.
    std::size_t add(const std::string &context, std::string_view text) const {
        std::size_t n = 0;
        call(herald_memory_add_to_active, get(), context.c_str(), text.data(), text.size(), &n);
        return n;
    }
    void add(const std::string &context, const Ids &ids) const {
        call(herald_memory_add_ids_to_active, get(), context.c_str(), ids.data(), ids.size());
    }

    // Adds a text and generates; on_piece as for Engine::generate. It must not work on contexts.
    template <typename OnPiece>
    HeraldGenerated generate(const std::string &context, std::string_view text,
                             const HeraldGenerateOptions &options, OnPiece &&on_piece) const {
        return detail::with_pieces(options, on_piece, [&](const HeraldGenerateOptions *how, HeraldGenerated *done) {
            call(herald_memory_generate, get(), context.c_str(), text.data(), text.size(), how, done);
        });
    }

    // Returns the number of moves.
    std::uint64_t compress(const std::string &context, std::size_t keep_tokens) const {
        std::uint64_t moved = 0;
        call(herald_memory_compress, get(), context.c_str(), keep_tokens, &moved);
        return moved;
    }
    HeraldOptimized optimize() const { return detail::filled<HeraldOptimized>(herald_memory_optimize, get()); }

    void clear(const std::string &context) const { call(herald_memory_clear_active, get(), context.c_str()); }
    void clear() const { call(herald_memory_clear_active, get(), static_cast<const char *>(nullptr)); }
    void close(const std::string &context) const { call(herald_memory_close, get(), context.c_str()); }
    void cancel(const std::string &context) const { call(herald_memory_cancel, get(), context.c_str()); }

    HeraldMemoryUsage usage(const std::string &context) const {
        return detail::filled<HeraldMemoryUsage>(herald_memory_usage, get(), context.c_str());
    }
    HeraldMemoryUsage usage() const {
        return detail::filled<HeraldMemoryUsage>(herald_memory_usage, get(), static_cast<const char *>(nullptr));
    }
    HeraldLeakStats leak_stats() const { return detail::filled<HeraldLeakStats>(herald_memory_leak_stats, get()); }

    void mark() const { call(herald_memory_mark, get()); }
};

// Texts that are kept in a folder, or in RAM, and found again. Any number of threads may use it at once.
class Documents : public detail::Owned<HeraldDocuments, herald_documents_free> {
public:
    // In RAM.
    explicit Documents(const Engine &engine) { open(engine, nullptr); }

    // In a folder.
    Documents(const Engine &engine, const std::string &folder) { open(engine, folder.c_str()); }

    // Returns the text's number.
    std::uint64_t add(const std::string &name, std::string_view text) const {
        std::uint64_t id = 0;
        call(herald_documents_add, get(), name.c_str(), text.data(), text.size(), &id);
        return id;
    }

    // The count chunks that match best, best first, to each(const HeraldHit &).
    template <typename Each>
    void search(const std::string &query, std::size_t count, Each &&each) const {
        using Callable = std::remove_reference_t<Each>;
        detail::Callback<Callable> callback{each};
        const auto hit = [](void *user_data, const HeraldHit *found) -> std::int32_t {
            return (*static_cast<detail::Callback<Callable> *>(user_data))(*found);
        };
        callback.during([&] {
            call(herald_documents_search, get(), query.c_str(), count, +hit, static_cast<void *>(&callback));
        });
    }

    // A prompt for a question, with what fits of the count best chunks into budget tokens.
    std::string recall(const std::string &question, std::size_t count, std::size_t budget) const {
        return detail::text(
            [&](auto... out) { return herald_documents_recall(get(), question.c_str(), count, budget, out...); }, 4096);
    }
    void remove(std::uint64_t id) const { call(herald_documents_remove, get(), id); }
    void clear() const { call(herald_documents_clear, get()); }
private:
    void open(const Engine &engine, const char *folder) {
        own([&](HeraldDocuments **out) { call(herald_documents_open, engine.get(), folder, out); });
    }
};

inline std::string Engine::metrics_json(const Scheduler *scheduler) const {
    const HeraldScheduler *raw = scheduler != nullptr ? scheduler->get() : nullptr;
    return detail::text([&](auto... out) { return herald_metrics_json(get(), raw, out...); }, 4096);
}

inline std::string Engine::metrics_prometheus(const Scheduler *scheduler) const {
    const HeraldScheduler *raw = scheduler != nullptr ? scheduler->get() : nullptr;
    return detail::text([&](auto... out) { return herald_metrics_prometheus(get(), raw, out...); }, 16384);
}

} // namespace herald

#endif
