// Everything of herald.hpp, in C++17 and C++20.

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <type_traits>

#include <herald.hpp>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::cerr << __FILE__ << ':' << __LINE__ << ": " << #condition << '\n';                                    \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

namespace {

template <typename Handle>
constexpr bool move_only = !std::is_copy_constructible_v<Handle> && !std::is_copy_assignable_v<Handle> &&
                           std::is_nothrow_move_constructible_v<Handle> && std::is_nothrow_move_assignable_v<Handle> &&
                           sizeof(Handle) == sizeof(void *);

static_assert(move_only<herald::Sequence> && move_only<herald::Scheduler> && move_only<herald::Request>);
static_assert(move_only<herald::Memory> && move_only<herald::Documents>);
static_assert(!std::is_copy_constructible_v<herald::Engine> && std::is_nothrow_move_constructible_v<herald::Engine>);

template <typename Call>
std::uint32_t status_of(Call call) {
    try {
        call();
    } catch (const herald::Error &error) {
        CHECK(std::string_view(error.what()).size() > 10);
        return error.status();
    }
    return HERALD_STATUS_OK;
}

HeraldGenerateOptions greedy(std::uint32_t max_tokens) {
    auto options = herald::sized<HeraldGenerateOptions>();
    options.max_tokens = max_tokens;
    options.flags = HERALD_GENERATE_IGNORE_EOS;
    return options;
}

void texts(const herald::Engine &engine) {
    CHECK(engine.info().vocabulary == engine.vocabulary() && engine.hidden() == 64 && engine.backend() == "cpu");
    const herald::Ids ids = engine.tokenize("Hello");
    CHECK(engine.detokenize(ids) == "Hello" && !engine.token_bytes(ids.back()).empty() && engine.ends(engine.info().eos));
    CHECK(engine.format({{"user", "Hi"}}) == "<user>Hi<assistant>");
    CHECK(engine.format({{"user", std::string(5000, 'x')}}, false).size() == 5006);
    CHECK(engine.embed("bees").size() == 64);
    std::size_t rows = 0;
    engine.hidden_states(ids, HERALD_ALL_BLOCKS, [&](std::size_t index, const float *, std::size_t n) {
        CHECK(index == rows++ && n == 64);
    });
    CHECK(rows == ids.size());
}

struct Thrown {};

void sequences(const herald::Engine &engine, const std::string &file) {
    herald::Sequence sequence(engine);
    std::string text, pieces;
    const HeraldGenerated done = engine.generate(sequence, "The capital", greedy(8), [&](std::string_view piece) { text += piece; });
    CHECK(done.finish == HERALD_FINISH_LENGTH && done.n_tokens == 8 && !text.empty());
    sequence.truncate(0);
    engine.generate(sequence, engine.tokenize("The capital"), greedy(8), [&](const HeraldPiece &piece) {
        pieces.append(piece.text, piece.text_len);
        return true;
    });
    CHECK(pieces == text);

    // A callback stops by its answer, and by an exception, which comes out.
    CHECK(engine.generate(sequence, "x", greedy(8), [](std::string_view) { return false; }).finish == HERALD_FINISH_CANCELLED);
    bool caught = false;
    try {
        engine.generate(sequence, "x", greedy(8), [](std::string_view) -> void { throw Thrown(); });
    } catch (const Thrown &) {
        caught = true;
    }
    CHECK(caught);
    caught = false;
    try {
        engine.logits(sequence, {5, 6}, [](std::size_t, const float *, std::size_t) -> bool { throw Thrown(); });
    } catch (const Thrown &) {
        caught = true;
    }
    CHECK(caught);

    sequence.save(file);
    herald::Sequence loaded = herald::Sequence::load(engine, file), fork = sequence.fork();
    CHECK(loaded.tokens() == sequence.tokens() && fork.size() == sequence.size());
    CHECK(engine.decode({&loaded, &fork}, {7, 7}).size() == 2 * engine.vocabulary());
    CHECK(engine.prefill(loaded, {1, 2, 3}).size() == engine.vocabulary());
    CHECK(loaded.usage().active_pages > 0 && engine.usage().active_pages > 0 && loaded.compress(0) == 0);
    engine.forget_prefixes();

    sequence.cancel();
    CHECK(status_of([&] { engine.prefill(sequence, {1}); }) == HERALD_STATUS_CANCELLED);
    sequence.cancel();
    CHECK(sequence.reset_cancel() && !sequence.reset_cancel());
    sequence.set_deadline(std::chrono::milliseconds(-1));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK(status_of([&] { engine.prefill(sequence, {1}); }) == HERALD_STATUS_DEADLINE);
    sequence.clear_deadline();
    CHECK(status_of([&] { engine.prefill(sequence, {1}); }) == HERALD_STATUS_OK);
    CHECK(status_of([&] { herald::Sequence::load(engine, "/nowhere/file"); }) == HERALD_STATUS_NOT_FOUND);

    // What was moved from is empty, and can be used no more than destroyed and assigned to.
    herald::Sequence moved = std::move(fork);
    CHECK(fork.get() == nullptr && moved.size() > 0);
    CHECK(status_of([&] { (void)fork.size(); }) == HERALD_STATUS_INVALID_ARGUMENT);
    fork = std::move(moved);
    CHECK(fork.size() > 0);
}

void requests(const herald::Engine &engine) {
    auto options = herald::sized<HeraldSchedulerOptions>();
    options.max_running = 3;
    const herald::Scheduler scheduler(engine, options);
    herald::Sequence alone(engine);
    std::string expected;
    engine.generate(alone, "The capital", greedy(8), [&](std::string_view piece) { expected += piece; });
    std::atomic<int> right{0};
    std::vector<std::thread> clients;
    for (int i = 0; i < 6; i++)
        clients.emplace_back([&] {
            herald::Request request = scheduler.submit("The capital", greedy(8));
            std::string text;
            const HeraldGenerated done = request.finish([&](std::string_view piece) { text += piece; });
            right += text == expected && done.n_tokens == 8 ? 1 : 0;
        });
    for (std::thread &client : clients)
        client.join();
    CHECK(right == 6);

    herald::Request chat = scheduler.submit(std::vector<herald::Message>{{"user", "Hi"}}, greedy(2));
    CHECK(chat.finish([](const HeraldPiece &) {}).n_tokens == 2);
    herald::Request ids = scheduler.submit(herald::Ids{5, 6}, greedy(0), "someone");
    while (ids.next(std::chrono::milliseconds(1)).kind == HERALD_EVENT_NONE) {
    }
    ids.cancel();
    const std::uint32_t finish = ids.finish([](std::string_view) {}).finish;
    CHECK(finish == HERALD_FINISH_CANCELLED || finish == HERALD_FINISH_CONTEXT_FULL);
    CHECK(status_of([&] { scheduler.submit("", greedy(1), 0); }) == HERALD_STATUS_INVALID_ARGUMENT);
    CHECK(status_of([&] { scheduler.submit(herald::Ids{}, greedy(1)); }) == HERALD_STATUS_INVALID_ARGUMENT);
    CHECK(engine.metrics_json(&scheduler).find("\"serving\"") != std::string::npos);
    CHECK(engine.metrics_prometheus().find("# EOF") != std::string::npos);
}

void contexts(const herald::Engine &engine) {
    const herald::Memory memory(engine);
    memory.mark();
    CHECK(memory.add("story", "Once upon a time") > 0);
    memory.add("story", herald::Ids{5, 6});
    std::size_t pieces = 0;
    CHECK(memory.generate("story", " there", greedy(3), [&](std::string_view) { pieces++; }).n_tokens == 3 && pieces >= 3);
    memory.cancel("story");
    CHECK(status_of([&] { memory.add("story", "more"); }) == HERALD_STATUS_CANCELLED);
    CHECK(memory.compress("story", 0) == 0 && memory.usage("story").active_pages > 0 && memory.usage().active_pages > 0);
    memory.optimize();
    memory.clear("story");
    memory.clear();
    memory.close("story");
    CHECK(memory.leak_stats().orphaned_pages == 0);
}

void documents(const herald::Engine &engine) {
    const herald::Documents documents(engine);
    const std::uint64_t id = documents.add("bees", "Bees make honey.");
    std::size_t hits = 0;
    documents.search("honey", 3, [&](const HeraldHit &) { hits++; });
    CHECK(hits == 1 && documents.recall("What do bees make?", 1, 200).find("honey") != std::string::npos);
    documents.remove(id);
    documents.clear();
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 3);
    auto options = herald::sized<HeraldEngineOptions>();
    options.model_path = argv[1];
    options.backend = "cpu";
    options.threads = 2;
    options.context = 256;
    try {
        const herald::Engine engine(options);
        texts(engine);
        sequences(engine, argv[2]);
        requests(engine);
        contexts(engine);
        documents(engine);
        CHECK(status_of([] { herald::Engine nowhere("/nowhere/model.gguf"); }) == HERALD_STATUS_NOT_FOUND);
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
