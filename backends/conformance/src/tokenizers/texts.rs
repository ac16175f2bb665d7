//! Texts to encode: all scripts, white space of all kinds, what splits badly.

/// Texts by name.
pub(super) const TEXTS: [(&str, &str); 34] = [
    ("the empty text", ""),
    ("a letter", "a"),
    ("a space", " "),
    (
        "English",
        "The quick brown fox jumps over the lazy dog. It wasn't the first time: they'd SEEN it 1,234 times!",
    ),
    ("German", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, daß es kracht."),
    ("Vietnamese", "Tôi có thể ăn thủy tinh mà không hại gì; đường Nguyễn Huệ."),
    ("Russian", "Съешь же ещё этих мягких французских булок, да выпей чаю."),
    ("Greek", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· ΣΊΣΥΦΟΣ σίσυφος."),
    ("Armenian", "Բել դղյակի ձախ ժամն օֆ ազգությանը ցպահանջ չճշտած վնաս էր."),
    ("Arabic", "نص حكيم له سر قاطع وذو شأن عظيم، مَكْتُوب ١٢٣٤."),
    ("Hebrew", "דג סקרן שט בים מאוכזב ולפתע מצא חברה; שָׁלוֹם."),
    ("Hindi", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश १२३।"),
    ("Tamil", "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம்."),
    ("Thai", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓"),
    ("Chinese", "我能吞下玻璃而不伤身体。天地玄黃,宇宙洪荒;三百六十五。"),
    ("Japanese", "いろはにほへと ちりぬるを。ガラスを食べられます、ｶﾀｶﾅも。"),
    ("Korean", "다람쥐 헌 쳇바퀴에 타고파. 한글 가나다."),
    ("Georgian and Amharic", "მინას ვჭამ და არა მტკივა. ሰማይ አይታረስ ንጉሥ አይከሰስ።"),
    ("emoji", "👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇩🇪 ❤️ 1️⃣ 😀😀😀"),
    (
        "combining marks",
        "e\u{301}a\u{30a}o\u{308}\u{304} n\u{303}\u{323} Z\u{351}\u{36b}\u{343}A\u{31b}\u{300}L",
    ),
    ("decomposed Korean", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"),
    ("ligatures and widths", "ﬁ ﬀ ﷺ Ⅷ ½ ①② Ａｂｃ １２３ ㎏ ™"),
    ("mathematics", "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε; 𝒜𝔅ℂ𝟙𝟚"),
    ("runs of spaces", "a  b   c    d     e\u{20}\u{20}\u{20}\u{20}\u{20}\u{20}\u{20}\u{20}\u{20}f  "),
    ("lines", "first\nsecond\r\nthird\n\n\nfourth\r \n  fifth\n"),
    (
        "white space of all kinds",
        "\t \u{b}\u{c}\u{85}\u{a0}\u{1680}\u{2000}\u{2003}\u{2009}\u{200b}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}x",
    ),
    ("control characters", "\u{0}\u{1}\u{7}\u{8}\u{1b}[31mred\u{1b}[0m\u{7f}\u{80}\u{9f}\u{ad}"),
    ("the ends of Unicode", "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\u{d7ff}\u{e000}\u{fffd}"),
    ("directions", "abc \u{202e}cba\u{202c} \u{200f}שלום\u{200e} \u{2066}x\u{2069}"),
    ("SentencePiece's space", "\u{2581}a\u{2581}\u{2581}b \u{2581}c"),
    ("code", "fn main() {\n\tlet x = [0x1F, 1e-9];\n    println!(\"{x:?}\"); // it's\n}\n"),
    ("numbers", "0 00 000 1234567890 3.14159 1,000,000 -17 2^10 ٣٤ ५६ 七"),
    ("bytes that are spelt", "<0x0A><0xZZ><0x> <0xFF >"),
    (
        "a bit of everything",
        "I'd say: \u{201c}naïve café\u{201d} — 東京タワー🗼, Москва́ 'S 'll \u{1F1E6} x\u{200d}y",
    ),
];

/// A text that spells special tokens, whole, cut, nested and side by side.
pub(super) const SPECIAL: &str =
    "<|start|>user\nHi <tool>x</tool><|end|><|end|> <|end|<|end|> <|END|> <unk><s></s>  <|start|>";

/// What long runs are of, by name.
pub(super) const RUNS: [(&str, &str); 7] = [
    ("the letter a", "a"),
    ("spaces", " "),
    ("line breaks", "\n"),
    ("ab", "ab"),
    ("é", "é"),
    ("the beginning of a special token", "<|e"),
    ("digits", "1"),
];
