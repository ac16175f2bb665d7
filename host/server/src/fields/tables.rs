//! The tables.

use super::Kind::{Any, Flag, Integer, List, Number, Object, Text, Texts};
use super::{Api, Field, noted, only, served};

/// How tokens are chosen, by everybody's names. What isn't given is as the model's file or its family recommends.
const SAMPLING: &[Field] = &[
    served("temperature", Number, "randomness; 0 always takes the likeliest token"),
    served("top_p", Number, "choose among the likeliest tokens that have this probability together"),
    served("top_k", Integer, "choose among so many of the likeliest tokens; 0 or -1: all"),
    served("min_p", Number, "leave out tokens less likely than this fraction of the likeliest"),
    served("typical_p", Number, "choose among the most typical tokens that have this probability together"),
    served("top_n_sigma", Number, "keep logits within so many standard deviations of the best; -1: off"),
    served("xtc_probability", Number, "how often to leave out the likely tokens but the last of them"),
    served("xtc_threshold", Number, "from which probability on a token is likely for XTC"),
    served("repetition_penalty", Number, "divides the logits of recent tokens"),
    served("repeat_penalty", Number, "the same, by llama.cpp's and Ollama's name"),
    served("repeat_last_n", Integer, "how many recent tokens that sees; -1: all"),
    served("presence_penalty", Number, "taken from the logits of tokens that were generated"),
    served("frequency_penalty", Number, "taken for each time that they were"),
    served("dry_multiplier", Number, "lowers tokens that would go on with a repetition (DRY)"),
    served("dry_base", Number, "how much more for each token of it"),
    served("dry_allowed_length", Integer, "the shortest repetition that DRY sees"),
    served("dry_penalty_last_n", Integer, "how many recent tokens DRY sees; -1: all"),
    served("dry_sequence_breakers", Texts, "texts over which DRY sees no repetition"),
    served("mirostat", Integer, "1 or 2: keep the text's surprise at a target; 0: off"),
    served("mirostat_tau", Number, "the target, in bits"),
    served("mirostat_eta", Number, "how fast it is learned"),
    served("seed", Integer, "seed of the random numbers; -1: any"),
    served("stop", Texts, "texts that end the answer, and are left out"),
];

/// More of the same, where OpenAI's names hold.
const SAMPLING_MORE: &[Field] = &[
    served(
        "logit_bias",
        Any,
        "added to tokens' logits: an object by id, or a list of pairs of id and bias (false bans)",
    ),
    served("stop_token_ids", List, "tokens that end the answer"),
    LORA,
    served("min_tokens", Integer, "tokens that come before any end"),
    served("ignore_eos", Flag, "go on past the model's own end"),
    served("skip_special_tokens", Flag, "false: write special tokens out"),
    only("n_probs", Integer, &["0"], "logprobs is the name here"),
    only("use_beam_search", Flag, &["false"], "no beams"),
    only("length_penalty", Number, &["1"], "no beams"),
    only("early_stopping", Any, &["false"], "no beams"),
    only("prompt_logprobs", Any, &["0", "false"], "echo and logprobs of /v1/completions give these"),
    only("truncate_prompt_tokens", Integer, &["-1"], "prompts are never cut"),
    only("bad_words", List, &["[]"], "logit_bias bans tokens"),
    only("include_stop_str_in_output", Flag, &["false"], "stop texts are left out"),
    only("spaces_between_special_tokens", Flag, &["true"], ""),
];

/// In which form an answer is.
const FORM: &[Field] = &[
    served(
        "response_format",
        Object,
        "text, json_object (with `schema` where there is one), json_schema, grammar or regex",
    ),
    served("json_schema", Object, "a schema, by llama.cpp's name"),
    served("grammar", Text, "a grammar in GBNF or Lark's form"),
    served("regex", Text, "the whole answer matches it"),
    served("guided_json", Any, "a schema, or its text, by vLLM's name"),
    served("guided_regex", Text, "as regex, by vLLM's name"),
    served("guided_choice", List, "the answer is one of these texts"),
    served("guided_grammar", Text, "as grammar, by vLLM's name"),
    served("structured_outputs", Object, "vLLM's: json, regex, choice, grammar or json_object"),
    noted("guided_decoding_backend", Text, "there is one"),
    only("guided_whitespace_pattern", Text, &[], "white space is as Python's json.dumps writes it"),
    only("structural_tag", Any, &[], ""),
];

/// Which model is asked.
const MODEL: Field =
    served("model", Text, "which of the server's models; one that has but one answers to every name");

/// Which adapters are asked.
const LORA: Field = served(
    "lora",
    List,
    "adapters that are loaded: objects with id and scale; those that are left out are off",
);

/// Who shares a prompt's computation.
const CACHE_SALT: Field =
    served("cache_salt", Text, "what the prompt computes is shared only with requests that say the same");

/// What OpenAI's clients send beside.
const CLIENT: &[Field] = &[
    MODEL,
    served("user", Text, "names the client, among whom the scheduler is fair"),
    served("safety_identifier", Text, "as user"),
    noted("metadata", Object, ""),
    noted("store", Flag, "nothing is stored"),
    noted("service_tier", Text, ""),
    CACHE_SALT,
    noted("prompt_cache_key", Text, "prompts are cached anyway"),
    noted("prompt_cache_retention", Text, ""),
    noted("cache_prompt", Flag, "prompts are cached anyway"),
    noted("priority", Integer, "the scheduler is fair to all"),
    noted("request_id", Text, ""),
    served("stream", Flag, "answer by server-sent events"),
    served("stream_options", Object, "include_usage, continuous_usage_stats"),
];

const CHAT_ONLY: &[Field] = &[
    served(
        "messages",
        List,
        "roles and contents (texts, parts of type text, or null), calls of tools and their results",
    ),
    served("max_tokens", Integer, "the most tokens of the answer; -1: no limit, as if not given"),
    served("max_completion_tokens", Integer, "the same"),
    served("n_predict", Integer, "the same, by llama.cpp's name"),
    served("n", Integer, "how many answers"),
    served("logprobs", Flag, "log-probabilities of the answer's tokens"),
    served("top_logprobs", Integer, "with so many of the likeliest others"),
    served("tools", List, "functions that the model may call"),
    served("tool_choice", Any, "none, auto, required, or a function's name in an object"),
    served("functions", List, "tools, by OpenAI's former name"),
    served("function_call", Any, "tool_choice, by OpenAI's former name"),
    served("parallel_tool_calls", Flag, "whether an answer may call several"),
    served("chat_template_kwargs", Object, "variables for the model's chat template"),
    served("add_generation_prompt", Flag, "false: no new turn is begun"),
    served("continue_final_message", Flag, "the last message is gone on with"),
    served("reasoning_effort", Text, "for templates that know it; none turns thinking off"),
    served("thinking_budget", Integer, "the most tokens of thoughts, which are then ended; -1: no limit"),
    served("thinking_token_budget", Integer, "the same, by vLLM's name"),
    served("reasoning_budget", Integer, "the same, by llama.cpp's name"),
    served("reasoning_format", Text, "none: thoughts stay in the text; auto, deepseek: in reasoning_content"),
    served("parse_tool_calls", Flag, "false: calls stay in the text"),
    served("documents", List, "for templates that know them"),
    only("chat_template", Text, &[], "--chat-template names it when the server starts"),
    only("modalities", List, &["[\"text\"]"], "text only"),
    only("audio", Object, &[], "text only"),
    only("prediction", Object, &[], ""),
    only("web_search_options", Object, &[], ""),
    noted("verbosity", Text, "the model decides"),
    only("echo", Flag, &["false"], "continue_final_message goes on with a text"),
    only("best_of", Integer, &["1"], "/v1/completions has it"),
    only("add_special_tokens", Flag, &["false"], "the template writes them"),
];

pub(crate) const CHAT: Api =
    Api { name: "/v1/chat/completions", groups: &[CHAT_ONLY, SAMPLING, SAMPLING_MORE, FORM, CLIENT] };

const COMPLETIONS_ONLY: &[Field] = &[
    served("prompt", Any, "a text, a list of texts, token ids, or a list of lists of ids"),
    served("max_tokens", Integer, "the most tokens of the answer, 16 if not given; -1: no limit"),
    served("n_predict", Integer, "the same, by llama.cpp's name"),
    served("n", Integer, "how many answers to each prompt"),
    served("best_of", Integer, "of so many answers, the n likeliest by token"),
    served("echo", Flag, "the prompt stands before the answer, with logprobs for it too"),
    served("logprobs", Any, "log-probabilities of the tokens, with so many of the likeliest others"),
    served("parse_special", Flag, "false: special tokens that the prompt spells are plain text"),
    served("add_special_tokens", Flag, "false: no BOS before the prompt"),
    served("suffix", Text, "what stands behind the answer, for models that fill in"),
    only("prompt_embeds", Any, &[], ""),
];

pub(crate) const COMPLETIONS: Api =
    Api { name: "/v1/completions", groups: &[COMPLETIONS_ONLY, SAMPLING, SAMPLING_MORE, FORM, CLIENT] };

pub(crate) const EMBEDDINGS: Api = Api {
    name: "/v1/embeddings",
    groups: &[&[
        served("input", Any, "a text, a list of texts, token ids, or a list of lists of ids"),
        MODEL,
        served("encoding_format", Text, "float or base64"),
        served("dimensions", Integer, "the first so many, scaled to length 1 again"),
        noted("user", Text, ""),
        noted("input_type", Text, ""),
        only("truncate_prompt_tokens", Integer, &["-1"], "texts are never cut"),
    ]],
};

pub(crate) const RERANK: Api = Api {
    name: "/v1/rerank",
    groups: &[&[
        served("query", Text, "what is asked"),
        served("documents", List, "texts, or objects with a text, to sort by how well they answer it"),
        served("texts", List, "the same, by another name"),
        served("top_n", Integer, "give so many of the best; all if not given"),
        served("return_documents", Flag, "true: give the documents' texts too"),
        MODEL,
        noted("user", Text, ""),
        only("max_tokens_per_doc", Integer, &[], "documents are never cut"),
        only("max_chunks_per_doc", Integer, &[], "documents are never cut"),
        only("rank_fields", List, &[], "documents are texts"),
        only("truncate_prompt_tokens", Integer, &["-1"], "documents are never cut"),
    ]],
};

pub(crate) const RESPONSES: Api = Api {
    name: "/v1/responses",
    groups: &[
        &[
            served("input", Any, "a text, or a list of messages, function calls and their results"),
            served("instructions", Text, "the system's text"),
            served("max_output_tokens", Integer, "the most tokens of the answer"),
            served("text", Object, "format: text, json_object or json_schema"),
            served("tools", List, "functions that the model may call"),
            served("tool_choice", Any, "none, auto, required, or a function's name in an object"),
            served("parallel_tool_calls", Flag, "whether an answer may call several"),
            served("reasoning", Object, "effort, for templates that know it"),
            served("top_logprobs", Integer, "log-probabilities, with so many of the likeliest others"),
            served("include", List, "message.output_text.logprobs; other parts are never left out"),
            served("stream", Flag, "answer by server-sent events"),
            noted("stream_options", Object, ""),
            served("user", Text, "names the client, among whom the scheduler is fair"),
            served("safety_identifier", Text, "as user"),
            MODEL,
            noted("metadata", Object, "is given back"),
            noted("store", Flag, "nothing is stored"),
            noted("service_tier", Text, ""),
            CACHE_SALT,
            noted("prompt_cache_key", Text, "prompts are cached anyway"),
            noted("prompt_cache_retention", Text, ""),
            only("truncation", Text, &["\"disabled\"", "\"auto\""], "nothing is cut"),
            only("background", Flag, &["false"], ""),
            only("previous_response_id", Text, &[], "nothing is stored: send the conversation"),
            only("conversation", Any, &[], "nothing is stored: send the conversation"),
            only("prompt", Object, &[], "nothing is stored"),
            noted("max_tool_calls", Integer, "is of tools that the server has: none"),
        ],
        SAMPLING,
        SAMPLING_MORE,
    ],
};

const MESSAGES: &[Field] = &[
    served(
        "messages",
        List,
        "turns of user and assistant, with blocks of text, tool_use, tool_result and thinking",
    ),
    served("system", Any, "the system's text, or blocks of it"),
    served("tools", List, "tools that the model may use"),
    served("tool_choice", Object, "auto, any, tool (with its name) or none"),
    served(
        "thinking",
        Object,
        "enabled with budget_tokens, adaptive, or disabled, as if not given, where the template knows that",
    ),
    MODEL,
    noted("cache_control", Object, "prompts are cached anyway"),
    noted("betas", List, ""),
];

pub(crate) const ANTHROPIC_MESSAGES: Api = Api {
    name: "/v1/messages",
    groups: &[
        MESSAGES,
        &[
            served("max_tokens", Integer, "the most tokens of the answer"),
            served("stop_sequences", Texts, "texts that end the answer, and are left out"),
            served("temperature", Number, "randomness; 0 always takes the likeliest token"),
            served("top_p", Number, "choose among the likeliest tokens that have this probability together"),
            served("top_k", Integer, "choose among so many of the likeliest tokens"),
            served("stream", Flag, "answer by server-sent events"),
            served("metadata", Object, "user_id names the client, among whom the scheduler is fair"),
            served("output_format", Object, "json_schema with its schema"),
            served("output_config", Object, "format: json_schema with its schema; effort"),
            noted("service_tier", Text, ""),
            noted("inference_geo", Text, ""),
            only("container", Any, &[], ""),
            only("mcp_servers", List, &["[]"], ""),
            only("context_management", Object, &[], ""),
        ],
    ],
};

pub(crate) const ANTHROPIC_COUNT: Api =
    Api { name: "/v1/messages/count_tokens", groups: &[MESSAGES, &[noted("output_config", Object, "")]] };

const OLLAMA: &[Field] = &[
    MODEL,
    served("stream", Flag, "answer by lines of JSON; true if not given"),
    served("format", Any, "json, or a schema"),
    served("options", Object, "see the next table"),
    served("think", Any, "whether the model thinks, where its template knows that"),
    served("logprobs", Flag, "log-probabilities of the answer's tokens"),
    served("top_logprobs", Integer, "with so many of the likeliest others"),
    served(
        "keep_alive",
        Any,
        "0 in a request without a prompt unloads the model; otherwise it stays as the server keeps it",
    ),
    only("shift", Flag, &["true", "false"], "a full context ends the answer"),
    only("truncate", Flag, &["true", "false"], "a prompt that doesn't fit is refused"),
];

pub(crate) const OLLAMA_CHAT: Api = Api {
    name: "/api/chat",
    groups: &[
        &[
            served("messages", List, "roles and contents, calls of tools and their results"),
            served("tools", List, "functions that the model may call"),
        ],
        OLLAMA,
    ],
};

pub(crate) const OLLAMA_GENERATE: Api = Api {
    name: "/api/generate",
    groups: &[
        &[
            served("prompt", Text, "what the user says, or with raw all of the text"),
            served("system", Text, "the system's text"),
            served("suffix", Text, "what stands behind the answer, for models that fill in"),
            served("raw", Flag, "no chat template"),
            served("context", List, "token ids of what was before"),
            only("images", List, &["[]"], "text only"),
            only("template", Text, &["\"\""], "--chat-template names it when the server starts"),
        ],
        OLLAMA,
    ],
};

pub(crate) const OLLAMA_OPTIONS: Api = Api {
    name: "options of Ollama's API",
    groups: &[
        &[
            served("num_predict", Integer, "the most tokens of the answer; -1: no limit"),
            noted("num_ctx", Integer, "-c sets the context when the server starts"),
            noted("num_keep", Integer, ""),
            noted("num_batch", Integer, ""),
            noted("num_gpu", Integer, ""),
            noted("main_gpu", Integer, ""),
            noted("num_thread", Integer, ""),
            noted("use_mmap", Flag, ""),
            noted("use_mlock", Flag, ""),
            noted("numa", Flag, ""),
            noted("low_vram", Flag, ""),
            noted("penalize_newline", Flag, ""),
            only("tfs_z", Number, &["1"], ""),
        ],
        SAMPLING,
    ],
};

pub(crate) const OLLAMA_EMBED: Api = Api {
    name: "/api/embed",
    groups: &[&[
        served("input", Any, "a text, or a list of texts"),
        served("prompt", Text, "the same, by the name of /api/embeddings"),
        served("dimensions", Integer, "the first so many, scaled to length 1 again"),
        MODEL,
        noted("keep_alive", Any, "the model stays loaded"),
        noted("options", Object, ""),
        only("truncate", Flag, &["true", "false"], "a text that doesn't fit is refused"),
    ]],
};

pub(crate) const OLLAMA_SHOW: Api = Api {
    name: "/api/show",
    groups: &[&[
        MODEL,
        served("name", Text, "the same"),
        noted("verbose", Flag, ""),
        noted("system", Text, ""),
        noted("options", Object, ""),
    ]],
};

const LLAMA_CPP: &[Field] = &[
    served("n_predict", Integer, "the most tokens of the answer; -1: no limit"),
    served("max_tokens", Integer, "the same"),
    served("n_probs", Integer, "log-probabilities, with so many of the likeliest others"),
    served("post_sampling_probs", Flag, "false only"),
    served("stream", Flag, "answer by server-sent events"),
    served(
        "logit_bias",
        Any,
        "added to tokens' logits: an object by id, or a list of pairs of id and bias (false bans)",
    ),
    served("ignore_eos", Flag, "go on past the model's own end"),
    served("json_schema", Object, "the answer is JSON of it"),
    served("grammar", Text, "a grammar in GBNF or Lark's form"),
    served("return_tokens", Flag, "the answer's token ids, too"),
    MODEL,
    noted("cache_prompt", Flag, "prompts are cached anyway"),
    noted("id_slot", Integer, "any slot has every prefix"),
    noted("n_keep", Integer, "a full context ends the answer"),
    noted("n_indent", Integer, ""),
    noted("min_keep", Integer, ""),
    noted("t_max_prompt_ms", Integer, "a prompt is always whole"),
    noted("t_max_predict_ms", Integer, ""),
    noted("timings_per_token", Flag, ""),
    noted("return_progress", Flag, ""),
    noted("samplers", Any, "their order is fixed"),
    noted("dynatemp_exponent", Number, ""),
    only("dynatemp_range", Number, &["0"], ""),
    only("n_discard", Integer, &["0"], ""),
    served(
        "response_fields",
        List,
        "give these fields alone; `timings/prompt_n` is one of an object, and is called so",
    ),
    only("image_data", List, &["[]"], "text only"),
    LORA,
];

pub(crate) const COMPLETION: Api = Api {
    name: "/completion",
    groups: &[&[served("prompt", Any, "a text, token ids, or a list of these")], LLAMA_CPP, SAMPLING],
};

pub(crate) const INFILL: Api = Api {
    name: "/infill",
    groups: &[
        &[
            served("input_prefix", Text, "what stands before the gap"),
            served("input_suffix", Text, "what stands behind it"),
            served("input_extra", List, "other files: objects with filename and text"),
            served("prompt", Text, "what the gap begins with"),
        ],
        LLAMA_CPP,
        SAMPLING,
    ],
};

pub(crate) const TOKENIZE: Api = Api {
    name: "/tokenize",
    groups: &[&[
        served("content", Text, "the text"),
        served("prompt", Text, "the same, by vLLM's name"),
        served("add_special", Flag, "with what the model puts before and after a prompt"),
        served("parse_special", Flag, "false: special tokens that it spells are plain text"),
        served("with_pieces", Flag, "each token's text, too"),
        MODEL,
    ]],
};

pub(crate) const DETOKENIZE: Api =
    Api { name: "/detokenize", groups: &[&[served("tokens", List, "ids"), MODEL]] };

pub(crate) const APPLY_TEMPLATE: Api = Api {
    name: "/apply-template",
    groups: &[&[
        served("messages", List, "as in /v1/chat/completions"),
        served("tools", List, "as there"),
        served("tool_choice", Any, "as there"),
        served("add_generation_prompt", Flag, "as there"),
        served("continue_final_message", Flag, "as there"),
        served("chat_template_kwargs", Object, "as there"),
        served("reasoning_effort", Text, "as there"),
        MODEL,
    ]],
};

/// All of them, in the order of the documentation.
pub(super) const ALL: [&Api; 17] = [
    &CHAT,
    &COMPLETIONS,
    &RESPONSES,
    &EMBEDDINGS,
    &RERANK,
    &ANTHROPIC_MESSAGES,
    &ANTHROPIC_COUNT,
    &OLLAMA_CHAT,
    &OLLAMA_GENERATE,
    &OLLAMA_OPTIONS,
    &OLLAMA_EMBED,
    &OLLAMA_SHOW,
    &COMPLETION,
    &INFILL,
    &TOKENIZE,
    &DETOKENIZE,
    &APPLY_TEMPLATE,
];
