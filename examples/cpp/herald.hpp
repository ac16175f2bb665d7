// HERALD for C++17: owning handles, and exceptions with the library's sentences. Copy it and adapt it.

#ifndef HERALD_HPP
#define HERALD_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
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

// Calls a function whose last argument is the error, and throws if it fails.
template <typename Function, typename... Arguments>
void call(Function function, Arguments... arguments) {
    HeraldError error{};
    error.struct_size = sizeof error;
    if (const std::uint32_t status = function(arguments..., &error); status != HERALD_STATUS_OK)
        throw Error(status, error.message);
}

class Engine;

// One context of an engine. It may outlive its engine, but not run without it.
class Sequence {
public:
    explicit Sequence(const Engine &engine);

    std::size_t size() const {
        std::size_t len = 0;
        call(herald_sequence_len, handle_.get(), &len);
        return len;
    }

    void truncate(std::size_t len) { call(herald_sequence_truncate, handle_.get(), len); }

    // Ends the call that is running on it; from any thread.
    void cancel() const noexcept { herald_sequence_cancel(handle_.get()); }

    HeraldEngineSequence *get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(HeraldEngineSequence *sequence) const noexcept { herald_sequence_free(sequence); }
    };
    std::unique_ptr<HeraldEngineSequence, Free> handle_;
};

// A loaded model. Any number of threads may use it at once.
class Engine {
public:
    explicit Engine(const std::string &model_path) {
        HeraldEngineOptions options{};
        options.struct_size = sizeof options;
        options.model_path = model_path.c_str();
        load(options);
    }

    explicit Engine(const HeraldEngineOptions &options) { load(options); }

    HeraldEngineInfo info() const {
        HeraldEngineInfo info{};
        info.struct_size = sizeof info;
        call(herald_engine_info, handle_.get(), &info);
        return info;
    }

    std::string backend() const {
        return text([this](char *buffer, std::size_t capacity, std::size_t *len, HeraldError *error) {
            return herald_engine_backend(handle_.get(), buffer, capacity, len, error);
        });
    }

    std::vector<std::uint32_t> tokenize(std::string_view text, std::uint32_t flags = HERALD_TEXT_PROMPT) const {
        // A text has at most as many tokens as bytes, plus BOS and EOS: the first call usually fits.
        std::vector<std::uint32_t> ids(text.size() + 2);
        std::size_t n = 0;
        for (;;) {
            HeraldError error{};
            error.struct_size = sizeof error;
            const std::uint32_t status = herald_tokenize(handle_.get(), text.data(), text.size(), flags, ids.data(),
                                                         ids.size(), &n, &error);
            if (status != HERALD_STATUS_OK && status != HERALD_STATUS_BUFFER_TOO_SMALL)
                throw Error(status, error.message);
            ids.resize(n);
            if (status == HERALD_STATUS_OK)
                return ids;
        }
    }

    std::string detokenize(const std::vector<std::uint32_t> &ids, std::uint32_t flags = 0) const {
        return text([&](char *buffer, std::size_t capacity, std::size_t *len, HeraldError *error) {
            return herald_detokenize(handle_.get(), ids.data(), ids.size(), flags, buffer, capacity, len, error);
        });
    }

    // The logits [vocabulary] after the ids.
    std::vector<float> prefill(Sequence &sequence, const std::vector<std::uint32_t> &ids) const {
        std::vector<float> logits(vocabulary_);
        call(herald_prefill, handle_.get(), sequence.get(), ids.data(), ids.size(), logits.data(), logits.size());
        return logits;
    }

    // The logits [sequences, vocabulary] after one token for each sequence, all in one pass.
    std::vector<float> decode(const std::vector<Sequence *> &sequences, const std::vector<std::uint32_t> &tokens) const {
        if (sequences.size() != tokens.size())
            throw std::invalid_argument("decode takes one token for each sequence");
        std::vector<HeraldEngineSequence *> handles;
        for (const Sequence *sequence : sequences)
            handles.push_back(sequence->get());
        std::vector<float> logits(vocabulary_ * tokens.size());
        call(herald_decode, handle_.get(), handles.data(), tokens.data(), tokens.size(), logits.data(), logits.size());
        return logits;
    }

    // Runs the prompt and generates; on_text gets each piece of text (a string_view), and may throw.
    template <typename OnText>
    HeraldGenerated generate(Sequence &sequence, std::string_view prompt, HeraldGenerateOptions options,
                             OnText on_text) const {
        struct State {
            OnText &on_text;
            std::exception_ptr thrown;
        } state{on_text, nullptr};
        options.struct_size = sizeof options;
        options.user_data = &state;
        options.on_piece = [](void *user_data, const HeraldPiece *piece) -> std::int32_t {
            // No exception may cross the library: keep it, and throw it again after the call.
            auto &state = *static_cast<State *>(user_data);
            try {
                state.on_text(std::string_view(piece->text, piece->text_len));
                return HERALD_GO_ON;
            } catch (...) {
                state.thrown = std::current_exception();
                return HERALD_STOP;
            }
        };
        HeraldGenerated done{};
        done.struct_size = sizeof done;
        call(herald_generate, handle_.get(), sequence.get(), prompt.data(), prompt.size(),
             std::uint32_t{HERALD_TEXT_PROMPT}, &options, &done);
        if (state.thrown)
            std::rethrow_exception(state.thrown);
        return done;
    }

    bool ends(std::uint32_t token) const noexcept { return herald_token_ends(handle_.get(), token) != 0; }
    std::size_t vocabulary() const noexcept { return vocabulary_; }
    HeraldEngine *get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(HeraldEngine *engine) const noexcept { herald_engine_free(engine); }
    };

    void load(const HeraldEngineOptions &options) {
        HeraldEngine *engine = nullptr;
        call(herald_engine_load, &options, &engine);
        handle_.reset(engine);
        vocabulary_ = info().vocabulary;
    }

    // A text from a call that writes one: first with a buffer that is usually large enough, then with one of the needed size.
    template <typename Call>
    static std::string text(Call write) {
        std::string text(256, '\0');
        for (;;) {
            HeraldError error{};
            error.struct_size = sizeof error;
            std::size_t len = 0;
            const std::uint32_t status = write(text.data(), text.size(), &len, &error);
            if (status != HERALD_STATUS_OK && status != HERALD_STATUS_BUFFER_TOO_SMALL)
                throw Error(status, error.message);
            // One more byte for the NUL, which is not part of the string.
            text.resize(status == HERALD_STATUS_OK ? len : len + 1);
            if (status == HERALD_STATUS_OK)
                return text;
        }
    }

    std::unique_ptr<HeraldEngine, Free> handle_;
    std::size_t vocabulary_ = 0;
};

inline Sequence::Sequence(const Engine &engine) {
    HeraldEngineSequence *sequence = nullptr;
    call(herald_sequence_new, static_cast<const HeraldEngine *>(engine.get()), &sequence);
    handle_.reset(sequence);
}

} // namespace herald

#endif
