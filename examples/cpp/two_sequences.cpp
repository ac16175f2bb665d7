// Continues two texts at once with HERALD, in C++17: each step decodes one token of both in one batch, which reads the
// model's weights only once.
//
//     two_sequences MODEL.gguf PROMPT PROMPT [MAX_TOKENS]
//
// The two texts go to stdout, everything else to stderr.

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <herald.hpp>

namespace {

// A growing text: its context and its generated tokens; the last one has not been run.
struct Story {
    herald::Sequence sequence;
    std::vector<std::uint32_t> tokens;
    bool ended = false;
};

// Greedy: the most probable token. Replace it with your own sampler.
std::uint32_t best(const float *logits, std::size_t vocabulary) {
    return static_cast<std::uint32_t>(std::max_element(logits, logits + vocabulary) - logits);
}

void run(const std::string &model, const std::vector<std::string> &prompts, std::size_t max_tokens) {
    const herald::Engine engine(model);
    std::cerr << "HERALD " << herald_version() << ", backend " << engine.backend() << '\n';

    std::vector<Story> stories;
    const auto take = [&](Story &story, const float *logits) {
        story.tokens.push_back(best(logits, engine.vocabulary()));
        story.ended = engine.ends(story.tokens.back()) || story.tokens.size() >= max_tokens;
    };
    for (const std::string &prompt : prompts) {
        Story story{herald::Sequence(engine), {}};
        take(story, engine.prefill(story.sequence, engine.tokenize(prompt)).data());
        stories.push_back(std::move(story));
    }

    const auto start = std::chrono::steady_clock::now();
    std::size_t decoded = 0;
    for (;;) {
        // The unfinished texts: a finished one makes the batch smaller.
        std::vector<Story *> going;
        for (Story &story : stories)
            if (!story.ended)
                going.push_back(&story);
        if (going.empty())
            break;
        std::vector<herald::Sequence *> sequences;
        std::vector<std::uint32_t> tokens;
        for (Story *story : going) {
            sequences.push_back(&story->sequence);
            tokens.push_back(story->tokens.back());
        }
        const std::vector<float> logits = engine.decode(sequences, tokens);
        for (std::size_t i = 0; i < going.size(); i++)
            take(*going[i], logits.data() + i * engine.vocabulary());
        decoded += going.size();
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (decoded > 0)
        std::cerr << "decoded " << decoded << " tokens at " << static_cast<double>(decoded) / seconds.count()
                  << " tokens/s\n";

    for (std::size_t i = 0; i < stories.size(); i++) {
        std::cerr << "ids " << i << ':';
        for (const std::uint32_t token : stories[i].tokens)
            std::cerr << ' ' << token;
        std::cerr << '\n';
        std::cout << prompts[i] << engine.detokenize(stories[i].tokens, HERALD_TEXT_CONTINUES) << '\n';
    }

    // The same for one text, streamed by the engine.
    herald::Sequence sequence(engine);
    auto options = herald::sized<HeraldGenerateOptions>();
    options.max_tokens = static_cast<std::uint32_t>(max_tokens);
    std::cout << prompts[0];
    engine.generate(sequence, prompts[0], options, [](std::string_view text) { std::cout << text << std::flush; });
    std::cout << '\n';
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 4 || argc > 5) {
        std::cerr << "usage: " << argv[0] << " MODEL.gguf PROMPT PROMPT [MAX_TOKENS]\n";
        return 2;
    }
    std::uint32_t max_tokens = 32;
    if (argc == 5) {
        const char *end = argv[4] + std::strlen(argv[4]);
        const auto [rest, failed] = std::from_chars(argv[4], end, max_tokens);
        if (failed != std::errc() || rest != end || max_tokens == 0) {
            std::cerr << argv[0] << ": MAX_TOKENS is \"" << argv[4] << "\", where a number from 1 was expected\n";
            return 2;
        }
    }
    try {
        run(argv[1], {argv[2], argv[3]}, max_tokens);
        return 0;
    } catch (const std::exception &error) {
        std::cerr << argv[0] << ": " << error.what() << '\n';
        return 1;
    }
}
