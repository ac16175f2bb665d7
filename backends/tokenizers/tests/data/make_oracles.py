"""Makes the oracles in this folder: what other implementations make of the same texts.

  pip install tokenizers regex sentencepiece protobuf
  python make_oracles.py

splits.json         the words of each text under each published pre-tokenizer expression, as lengths in characters;
                    Hugging Face's tokenizers (Oniguruma) and Python's regex module must agree on them
bpe.json            a small byte-level BPE vocabulary with Hugging Face's encodings under several pre-tokenizers
sentencepiece.json  small SentencePiece vocabularies with SentencePiece's own encodings
unigram.json        the same of its unigram models
wordpiece.json      small WordPiece vocabularies with Hugging Face's encodings
characters.json     a small BPE vocabulary of characters, as Gemma 4 has it, with Hugging Face's encodings
"""
import base64, io, json, pathlib, random, sysconfig

import regex
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
TEXTS = [
    "", " ", "a", "Hello, how are you today?", "Hello  world", "   leading", "trailing   ", "\n\n\n", " \n \n  x\n",
    "\t\tindented\n\tcode", "tab\tbetween \t mixed  \t\tspaces", "\r\nwindows\r\nlines\r\r\n ", "a\u00a0b\u00a0\u00a0c \u00a0d",
    "ideographic\u3000space\u3000\u3000twice", "line\u2028sep\u2029para\u0085nel\u000bvt\u000cff", "\u2003em\u2009thin\u202fnarrow\u205fm",
    "zero\u200bwidth\ufeffbom\u180emongolian", "\x00\x01\x1c\x1f\x7f\u0080\u009f", "I'm, you're, we've, he'll, they'd, it's, don't",
    "I'M YOU'RE WE'VE HE'LL THEY'D IT'S DON'T", "'s 't 're've 'LL'Re 'sfoo 'Tbar x'dy rock'n'roll ''' 'll'", "it\u2019s \u2018quoted\u2019 'quoted'",
    "long s: '\u017f it'\u017fx 'K'\u212a", "1234567890 12 1 123 1234 12345.6789 1,000,000", "a1b22c333d4444 x1 1x 3.14e-10 0x1F 2024-11-23T14:35:00Z",
    "\u0967\u0968\u0969\u096a 12\u0969\u096a5 \u0661\u0662\u0663\u0664\u0665 \uff11\uff12\uff13 \u2167 \u2460\u2461 \u00bd\u00b2\u00b3 \u3007 \u216b\u216c",
    "for(int i=0;i<n;++i){a[i]+=b[i];} // done\n", "def f(x):\n    return x**2  # comment\n\n\nclass A:\n\tpass\n",
    "<tag attr=\"v\">text</tag> http://example.com/p/q?x=1&y=%20#z", "...!!!??? --- === +++ ~~~ ^^^ ||| ``` $$$ <<< >>>", "!\n?\r\n/\n//\n/ a/\n.b",
    "$5 +3 <x> =y ^z |w ~v `u $ + < = > ^ | ~ `", "\u201cquotes\u201d \u2014 dash \u2026 \u00bfqu\u00e9? \u00a1s\u00ed! \u00a7 \u00a9 \u20ac5 \u00a35 \u00b15 \u00d7",
    "CamelCaseIdentifier HTTPServer iPhone XMLHttpRequest ABCdefGHI snake_case_x __init__", "na\u00efve caf\u00e9 r\u00e9sum\u00e9 na\u0308\u0131ve cafe\u0301 E\u0301COLE e\u0301 \u0301x \u0301\u0301",
    "\u01c5ivo \u01c8 \u01f2x \u02b0\u02b1 \u00aa\u00ba \u02c6hat A\u02b0B", "\u041f\u0440\u0438\u0432\u0435\u0442, \u041c\u0418\u0420! \u041e\u0441\u044c-\u0432\u043e\u0442", "\u03b1\u03b2\u03b3 \u0391\u0392\u0393\u03b4 \u03a3\u0391\u03a3",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929\u662f2024\u5e74", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u30ab\u30bf\u30ab\u30ca\u30fc\uff08\uff76\uff85\uff09", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064e\u064a\u0652\u0641\u064e\u061f", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e\u0964 \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e44\u0e17\u0e22", "\u0bb5\u0ba3\u0b95\u0bcd\u0b95\u0bae\u0bcd \u0c28\u0c2e\u0c38\u0c4d\u0c15\u0c3e\u0c30\u0c02", "\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 x\U0001f600y \u2764\ufe0f",
    "\U0001d400\U0001d401 \U0001d7ce\U0001d7cf \U00010400\U00010428 \U0001f1e9\U0001f1ea", "\ue000\ue001 \U000e0001\U000f0000 \u0378 \ufffd", "emoji\U0001f600\n\n\U0001f600 \U0001f600\n",
    "a\nb\n\nc \n d\n  e  \n", "x \ny  \r\n z\t\n", "word\n   \n\tword \u3000\n\u00a0", "\ufb01 ligature \u00df stra\u00dfe \u1e9e \u0130\u0131 \u01c4", "\u2581 lower one eighth block \u2581\u2581x",
    "<|special|>user\nhi<|special|> <|end|><|user|>x <|user|>", "a<|special|>b<|user|>c  <|user|> <|end|", "unreachable unreachable zebra zebra",
    "1234567 12345678x 1234_ 123\u00bd 12\u2167 \u0661\u0662\u0663\u0664 \u00bd123\u00bd4567 x12 1234\u0301", "a" + " " * 700 + "b" + " " * 21 + "\n" + " " * 13,
    "<sentinel:12><sentinel:><sentinel:1 IMGIMGABCDZ IMGIMGABCDEZ IMGIMGZ xIMGIMGAZ", "\u4f60\u597dworld\u4e16\u754c \u3007\u3005x \u4f60's \uff76\u304b\u4f60A\u4f60a",
    "don't stop re-use e\u0301 a\u0301 b c  d \ne.\n\n/x./", "\u0410\u0431 \u00df\u1e9e \u0587 \u10d0\u10d1 \u13a0\uab70 \ufb01 \u3000\u3000\u3002\u3001 \uff01\uff5e \u2018x\u201f",
    "\u3131\u3132\ud55c \u3105\u3106 \uff01\u2026\u201c\u4f60\u201d\u2014\u2014 \ufe30", "\u0e44\u0e17\u0e22 \u1780\u17d2 \u1000\u103b \u1100\u1161 \u0e811",
]
POOL = "aZeE\u00e9\u00c9s'tTlLrRvVdDmM\u017f  \t\n\r\u00a0\u3000\u2028\u008512\u0969\u2167\u00bd.,!/-_$+`^(\u2014\u4f60\u3042\u0301\u094d\u0915\u02b0\u01c5\u0130\U0001f600\u200d\ue000\u00ad"


def random_texts(seed, count, longest):
    chance = random.Random(seed)
    return ["".join(chance.choice(POOL) for _ in range(chance.randint(1, longest))) for _ in range(count)]


GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
U, W = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
C = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
P = r"[^\r\n\p{L}\p{N}]?"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
HAN = r"(?!\p{Han})"
O200K = f"{P}{U}*{W}+{C}|{P}{U}+{W}*{C}|" + r"\p{N}{1,3}" + TAIL
DEEPSEEK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
# The letters of DeepSeek LLM's expression: alphabets with upper and lower case.
CASED = "\u0041-\u005a\u0061-\u007a\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376-\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183-\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2-\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
# The expressions of each family's tokenizer.json (Kimi's of its tokenization_kimi.py), one after another.
EXPRESSIONS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [LLAMA3],
    "chatglm-bpe": [LLAMA3],
    "glm4": [LLAMA3],
    "qwen2": [QWEN2],
    "qwen35": [QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")],
    "seed-coder": [QWEN2.replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+")],
    "ufakzeka": [QWEN2.split("|", 7)[7]],
    "laguna": [r"[^\n]+|[\n]+", QWEN2],
    "minicpm5": [r"\p{N}{1,3}", LLAMA3.replace("{1,3}", "+")],
    "jais-2": [LLAMA3.replace(r"\s+(?!\S)|\s+", "".join(r"\s{%d}(?!\S)|" % n for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"\s{1,2}(?!\S)|\s{1}")],
    "exaone-moe": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],
    "gpt-4o": [O200K],
    "granite-embed-multi-97m": [O200K],
    "tekken": [f"{P}{U}*{W}+|{P}{U}+{W}*|" + r"\p{N}" + TAIL],
    "kimi-k2": [r"[\p{Han}]+|" + f"{P}(?:{HAN}{U})*(?:{HAN}{W})+{C}|{P}(?:{HAN}{U})+(?:{HAN}{W})*{C}|" + r"\p{N}{1,3}" + TAIL.replace("/", "")],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", O200K],
    "youtu": ["[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|" + KANA,
              O200K.replace("{1,3}", "")],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "deepseek-llm": ["[\r\n]", rf"\s?[{CASED}]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", ASIAN, r"\p{N}"],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", KANA, DEEPSEEK + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "spark2_5": [r"\p{N}{1,3}", KANA, DEEPSEEK + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"],
    "afmoe": [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
              "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e00-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
              DEEPSEEK + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "poro-chat": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
    "chameleon": ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\t\n]|    |  )", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", GPT2],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "gemma4": [r"[^\n]+|[\n]+"],
}


def pre_tokenizer(name):
    return [pre_tokenizers.Split(Regex(e), "isolated") for e in EXPRESSIONS[name]]


def split_by_regex(expressions, text):
    """Each expression in turn cuts its matches out of the pieces of the one before."""
    pieces = [text]
    for expression in expressions:
        # After a digit; Oniguruma's word characters hold all numbers.
        expression = expression.replace(r"\b", r"(?![\p{L}\p{M}\p{N}\p{Pc}])")
        cut = []
        for piece in pieces:
            done = 0
            for m in regex.finditer(expression, piece):
                cut += [piece[done:m.start()], m.group()]
                done = m.end()
            cut.append(piece[done:])
        pieces = [p for p in cut if p]
    return pieces


def make_splits():
    texts = [t for t in TEXTS if t] + random_texts(1, 150, 40)
    splits = {}
    for name, expressions in EXPRESSIONS.items():
        hf = pre_tokenizers.Sequence(pre_tokenizer(name))
        splits[name] = []
        for t in texts:
            words = [w for w, _ in hf.pre_tokenize_str(t)]
            other = split_by_regex(expressions, t)
            assert words == other, (name, t, words, other)
            splits[name].append([len(w) for w in words])
    return {"texts": texts, "splits": splits}


def corpus():
    """Something to train on: the standard library's own sources, and the texts here."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    sources = [(library / f).read_text() for f in ("argparse.py", "statistics.py", "textwrap.py")]
    return sources + TEXTS[:57] * 20


def make_bpe():
    special, user = ["<|special|>", "<|end|>"], ["<|user|>"]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=1400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(t.to_str())["model"]
    # Tokens that no merges make: whole words alone can become them.
    for extra in ("\u0120unreachable", "zebra"):
        assert extra not in model["vocab"]
        model["vocab"][extra] = len(model["vocab"])
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    encodings, texts = {}, TEXTS + random_texts(2, 60, 40)
    for name in ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default"):
        t = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, ignore_merges=name in ("llama-bpe", "tekken")))
        t.pre_tokenizer = pre_tokenizers.Sequence(
            pre_tokenizer(name) + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
        t.add_tokens([AddedToken(s, special=False, normalized=False) for s in user])
        encodings[name] = {}
        for key, as_text in (("ids", True), ("ids_special", False)):
            t.encode_special_tokens = as_text
            encodings[name][key] = [t.encode(x).ids for x in texts]
    types = [3 if x in special else 1 for x in tokens] + [4] * len(user)
    return {"tokens": tokens + user, "types": types, "merges": [" ".join(m) for m in merges], "texts": texts, "encodings": encodings}


def make_sentencepiece(user=(), **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in corpus() for line in text.split("\n") if line), model_writer=out,
        model_type="bpe", vocab_size=900, normalization_rule_name="identity", control_symbols=["<|special|>"], character_coverage=0.98,
        user_defined_symbols=list(user), hard_vocab_limit=False, minloglevel=2, **options)
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    proto = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    # GGUF files hold user-defined tokens as they stand in the text, with plain spaces.
    tokens = [p.piece.replace("\u2581", " ") if p.type == 4 else p.piece for p in proto.pieces]
    # SentencePiece finds control symbols in any text, and takes U+2581 for a space of a user-defined run.
    texts = [t for t in TEXTS if "<|special|>" not in t and not (user and "\u2581" in t)] + random_texts(3, 80, 40)
    return {
        "tokens": tokens, "types": [p.type for p in proto.pieces], "scores": [p.score for p in proto.pieces],
        "unknown": sp.unk_id(), "add_space_prefix": options["add_dummy_prefix"],
        "remove_extra_whitespace": options["remove_extra_whitespaces"],
        "texts": texts, "ids": [sp.encode(t) for t in texts], "decoded": [sp.decode(sp.encode(t)) for t in texts],
    }


def make_unigram(normal, **options):
    """UGM: SentencePiece's unigram model, as T5 and XLM-R have it; `normal` names its rules of normalising."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in corpus() for line in text.split("\n") if line), model_writer=out,
        model_type="unigram", vocab_size=900, normalization_rule_name=normal, control_symbols=["<|special|>"],
        character_coverage=0.98, hard_vocab_limit=False, minloglevel=2, **options)
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    proto = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    encode = unigram_of_words(sp, proto)
    # SentencePiece finds control symbols in any text.
    texts = [t for t in TEXTS if "<|special|>" not in t and "<|user|>" not in t] + random_texts(4, 150, 60) + [
        "\ufb01\ufb02 \u2460\u3000\uff21\uff42\uff43 \ufdfa \u3392 \u00bd e\u0301 \u212b \u1100\u1161\u11a8 \u0958 \u2126", "a\u00adb\u200bc\ufeff", "  a   b  ", "\u3000\u3000a",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the the the " * 40]
    return {
        "tokens": [p.piece for p in proto.pieces], "types": [p.type for p in proto.pieces], "scores": [p.score for p in proto.pieces],
        "charsmap": base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode(), "unknown": sp.unk_id(),
        "add_space_prefix": proto.normalizer_spec.add_dummy_prefix, "remove_extra_whitespace": proto.normalizer_spec.remove_extra_whitespaces,
        "texts": texts, "ids": [encode(t) for t in texts],
    }


def unigram_of_words(sp, proto):
    """Hugging Face's, which takes each word on its own and adds in float64, over what SentencePiece normalised."""
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=sp.unk_id(), byte_fallback=proto.trainer_spec.byte_fallback))
    t.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    ties = []

    def encode(text):
        """Where two ways are equally good, SentencePiece's float32 decides otherwise, and Hugging Face's counts."""
        ids, other = t.encode(sp.normalize(text)).ids, sp.encode(text)
        if ids != other:
            ties.append(text)
            score = lambda ids: sum(proto.pieces[i].score for i in ids)
            assert len(ties) < 20 and len(ids) == len(other) and abs(score(ids) - score(other)) < 1e-3, (text, ids, other)
        return ids

    return encode


def make_wordpiece(lowercase, strip_accents):
    """WPM: BERT's, spelt as GGUF has it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=1200, special_tokens=special, limit_alphabet=400, show_progress=False))
    vocab = t.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    spelt = [x if x in special else x[2:] if x.startswith("##") else "\u2581" + x for x in tokens]
    texts = [x for x in TEXTS if "\u2581" not in x] + random_texts(5, 150, 60) + [
        "x" * 100 + " " + "x" * 101, "[CLS] a[MASK]b [SEP]", "na\u00efve \u0130stanbul \u1e9e \u03a3\u0391\u03a3 \u01c5 A\u0301 \u4e2d\u0301", "\u4f60\u597d\U00020000\ufa0e\u3042", "a\u00adb\u200bc\x85d\x0be\x1bf \ue000g"]
    return {"tokens": spelt, "types": [3 if x in special else 1 for x in tokens], "unknown": vocab["[UNK]"], "lowercase": lowercase,
            "strip_accents": strip_accents, "texts": texts, "ids": [t.encode(x, add_special_tokens=False).ids for x in texts]}


def make_characters():
    """Gemma 4's: ranked merges of characters, spaces as SentencePiece spells them, bytes for what is left."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\n+"), "isolated"), pre_tokenizers.Split(Regex("\u2581+"), "merged_with_next")])
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, limit_alphabet=300, show_progress=False)
    t.train_from_iterator(corpus() + ["\n" * n for n in range(1, 9)] * 50 + [" " * n for n in range(1, 9)] * 50, trainer)
    model = json.loads(t.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    # Line breaks merge with each other only.
    assert all(set(m[0] + m[1]) == {"\n"} for m in merges if "\n" in m[0] + m[1])
    t = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Replace(" ", "\u2581")
    texts = [x for x in TEXTS if "\u2581" not in x] + random_texts(6, 150, 60) + ["\n" * n + "a" for n in range(1, 40, 5)]
    types = [2 if x == "<unk>" else 3 if x in special[:4] else 6 if x in special else 1 for x in tokens]
    return {"tokens": tokens, "types": types, "merges": [" ".join(m) for m in merges], "unknown": model["vocab"]["<unk>"],
            "texts": texts, "ids": [t.encode(x).ids for x in texts]}


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


write("splits.json", make_splits())
write("bpe.json", make_bpe())
runs = ["\n" * n for n in range(1, 6)] + ["\u2581" * n for n in range(2, 6)] + ["\t\t", "\t", "<|user|>"]
write("sentencepiece.json", {
    "llama": make_sentencepiece(byte_fallback=True, add_dummy_prefix=True, remove_extra_whitespaces=False),
    "gemma": make_sentencepiece(runs, byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False, split_digits=True),
    "unknown": make_sentencepiece(byte_fallback=False, add_dummy_prefix=True, remove_extra_whitespaces=True),
})
write("unigram.json", {
    "t5": make_unigram("nmt_nfkc"),
    "identity": make_unigram("identity", add_dummy_prefix=False, remove_extra_whitespaces=False),
    "bytes": make_unigram("nfkc_cf", byte_fallback=True, remove_extra_whitespaces=False),
})
write("wordpiece.json", {"uncased": make_wordpiece(True, True), "accents": make_wordpiece(True, False), "cased": make_wordpiece(False, False)})
write("characters.json", make_characters())
