"""Makes the oracles in this folder: what other implementations make of the same texts.

  pip install tokenizers regex sentencepiece protobuf
  python make_oracles.py

splits.json         the words of each text under each published pre-tokenizer expression, as lengths in characters;
                    Hugging Face's tokenizers (Oniguruma) and Python's regex module must agree on them
bpe.json            a small byte-level BPE vocabulary with Hugging Face's encodings under several pre-tokenizers
sentencepiece.json  small SentencePiece vocabularies with SentencePiece's own encodings
"""
import io, json, pathlib, random, sysconfig

import regex
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

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
EXPRESSIONS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [LLAMA3.replace("{1,3}", "")],
    "qwen35": [LLAMA3.replace("{1,3}", "").replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")],
    "gpt-4o": [f"{P}{U}*{W}+{C}|{P}{U}+{W}*{C}|" + r"\p{N}{1,3}" + TAIL],
    "tekken": [f"{P}{U}*{W}+|{P}{U}+{W}*|" + r"\p{N}" + TAIL],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
}


def pre_tokenizer(name):
    return [pre_tokenizers.Split(Regex(e), "isolated") for e in EXPRESSIONS[name]]


def split_by_regex(expressions, text):
    """Each expression in turn cuts its matches out of the pieces of the one before."""
    pieces = [text]
    for expression in expressions:
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
    return sources + TEXTS[:-1] * 20


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
