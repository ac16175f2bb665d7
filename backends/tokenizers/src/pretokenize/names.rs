//! Every name that GGUF files have for pre-tokenizers (`tokenizer.ggml.pre`), and what it stands for.

use super::Splitter;
use super::gpt2::Digits;
use super::stages::{self, Stage};
use super::{cased, llama3};

/// Names that stand for the same.
pub(super) struct Known {
    pub(super) names: &'static [&'static str],
    pub(super) splitter: Splitter,
    /// A word that is in the vocabulary becomes that token, whatever the merges would make of it.
    pub(super) whole_words: bool,
}

const fn known(names: &'static [&'static str], splitter: Splitter) -> Known {
    Known { names, splitter, whole_words: false }
}

const fn whole(names: &'static [&'static str], splitter: Splitter) -> Known {
    Known { names, splitter, whole_words: true }
}

const fn steps(names: &'static [&'static str], stages: &'static [Stage]) -> Known {
    known(names, Splitter::Stages(stages))
}

/// All of them.
pub(super) const KNOWN: [Known; 32] = [
    known(&["default"], Splitter::Punctuated { backtick: false, numbers_alone: true }),
    known(
        &[
            "gpt-2",
            "phi-2",
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "jina-de",
            "jina-es",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-de",
            "jina-v2-es",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "roberta-bpe",
            "trillion",
        ],
        Splitter::Gpt2(Digits::Together),
    ),
    known(
        &["smollm", "codeshell", "command-r", "exaone", "mellum2", "minerva-7b", "refact", "starcoder"],
        Splitter::Gpt2(Digits::Alone),
    ),
    whole(
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "jina-v5-nano",
            "lfm2",
            "midm-2.0",
            "pixtral",
        ],
        Splitter::Llama3(llama3::LLAMA3),
    ),
    known(&["chatglm-bpe", "dbrx", "smaug-bpe"], Splitter::Llama3(llama3::LLAMA3)),
    whole(&["glm4", "glm5"], Splitter::Llama3(llama3::LLAMA3)),
    known(
        &[
            "qwen2",
            "bailingmoe",
            "bailingmoe2",
            "deepseek-r1-qwen",
            "f2llmv2",
            "grok-2",
            "hunyuan",
            "kormo",
            "llada-moe",
            "megrez",
            "solar-open",
            "stablelm2",
        ],
        Splitter::Llama3(llama3::QWEN2),
    ),
    known(&["qwen35"], Splitter::Llama3(llama3::Rules { marks: true, ..llama3::QWEN2 })),
    known(&["seed-coder"], Splitter::Llama3(llama3::Rules { line_breaks: false, ..llama3::QWEN2 })),
    known(&["ufakzeka"], Splitter::Llama3(llama3::Rules { contractions: false, ..llama3::QWEN2 })),
    steps(&["laguna"], &[stages::lines, stages::qwen2_words]),
    whole(&["minicpm5"], Splitter::Stages(&[stages::threes, stages::llama3_words])),
    steps(&["jais-2"], &[stages::jais2_words]),
    steps(&["exaone-moe"], &[stages::exaone_moe_words]),
    known(&["gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"], Splitter::Cased(cased::O200K)),
    whole(&["granite-embed-multi-97m"], Splitter::Cased(cased::O200K)),
    whole(&["tekken"], Splitter::Cased(cased::Rules { most_digits: 1, contractions: false, ..cased::O200K })),
    known(&["kimi-k2"], Splitter::Cased(cased::Rules { han: true, ..cased::O200K })),
    steps(&["tiny_aya", "cohere2moe"], &[stages::thousands_of_words, stages::o200k_words]),
    whole(&["youtu"], Splitter::Stages(&[stages::youtu_scripts, stages::youtu_words])),
    known(&["falcon"], Splitter::Punctuated { backtick: true, numbers_alone: false }),
    steps(
        &["deepseek-llm"],
        &[
            stages::each_line_break,
            stages::spaced_alphabets,
            stages::spaced_marks,
            stages::last_space,
            stages::asian,
            stages::each_number,
        ],
    ),
    steps(
        &["deepseek-coder"],
        &[
            stages::each_line_break,
            stages::spaced_letters,
            stages::spaced_punctuation,
            stages::asian,
            stages::each_number,
        ],
    ),
    steps(
        &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        &[stages::threes, stages::chinese_and_kana, stages::deepseek_words],
    ),
    steps(
        &["spark2_5"],
        &[stages::threes, stages::chinese_and_kana, stages::spark_words, stages::each_number],
    ),
    steps(&["afmoe"], &[stages::afmoe_numbers, stages::afmoe_scripts, stages::deepseek_words]),
    steps(&["poro-chat", "bloom", "gpt3-finnish"], &[stages::bloom_words]),
    steps(&["viking"], &[stages::bloom_words, stages::each_number]),
    steps(
        &["chameleon"],
        &[
            stages::sentinels,
            stages::images,
            stages::indents,
            stages::each_number,
            stages::each_mark,
            stages::gpt2_words,
        ],
    ),
    steps(&["superbpe"], &[stages::numbers_in_threes]),
    known(&["gemma4", "granite-embed-multi-311m", "sarvam-moe"], Splitter::Lines),
    known(&["whitespace"], Splitter::Spaces),
];
