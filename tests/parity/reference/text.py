"""Tokenizers of Hugging Face and Google, and strings to try them on."""

import io
import random
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# What goes wrong first: case and accents, spaces and controls of every kind,
# ideographs, scripts that decompose, emoji sequences, words too long, text
# that looks like a special token.
NASTY = [
    "", " ", "\t\r\n", "a", "A dog playing, unaffable", "don't", "dog's-ear",
    "CAFÉ café cafe\u0301 CAFE\u0301", "naïve Ångström Œuvre", "İstanbul ıI",
    "Straße ẞ", "ǅ ǆ Ǆ ĳ Ĳ", "ΑΣ Σίσυφος ᾈ ᾳ ῼ ͅ", "Ω Ω Å K", "Ёж ЙОД й",
    "ＦＵＬＬ ｗｉｄｔｈ！？", "½ ² ㎏ ﬁ ﬃ № ℃", "x²+y³=z", "$5.00 £3 €1 ¥2 +1-2=3",
    "`~!@#$%^&*()-_=+[]{}\\|;:'\",.<>/?", "¡¿«»‹›“”‘’—–…·•§¶†‡", "a\u00a0b\u3000c",
    "a\u2028b\u2029c", "a\u0085b\u000bc\u000cd", "a\u200bb\u200cc\u200dd\ufeffe",
    "a\x00b\x01c\x1fd\x7fe", "\ufffd a\ufffdb", "a\ue000b\U000f0000c",
    "a\u0378b \U0003fffd", "\u1680 a\u180eb \u202fc\u205fd", "\u00ad soft\u00adhyphen",
    "日本語 ひらがな カタカナ ｶﾀｶﾅ", "漢字かな混じり文", "中文，测试。", "\u3400\u9fff\U00020000",
    "\uf900\ufa0e\U0002f800", "\U0002b820 a\U0002b91fb", "한국어 각 \u1100\u1161\u11a8", "\u3131\uac00",
    "हिन्दी किताब", "বাংলা কী", "தமிழ் கொ", "ไทย ก็ น้ำ", "ລາວ", "မြန်မာ", "ខ្មែរ",
    "עברית שָׁלוֹם", "العربية مُحَمَّد ـــ", "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "አማርኛ፣ ሰላም፡", "Ꭰ ꭰ",
    "Tiếng Việt ồ ộ ở Ữ", "Đà Nẵng đ", "Łódź żółć", "Čeština ř", "a\u0300\u0301\u0302\u0303b",
    "\u0300start", "e\u20dd o\u0336", "🐶 🦊🐶", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "❤️ ❤", "1️⃣ #️⃣",
    "\U0001f9ff\U0001faa9", "a" * 100, "a" * 101, "é" * 100, "e\u0301" * 60, "漢" * 120,
    "[MASK] [CLS] [UNK]", "##ing [unused1] ##", "http://a.b/c?d=e&f#g", "a@b.c",
    "line one\nline two\r\nline three", "tab\tseparated", " lead and trail ",
    "MiXeD CaSe", "ﷺ", "\U00010400\U00010428 \U0001e900", "꙳ ꙾ ⁂ ⸮ ⳹", "٪ ٫ ١٢٣ १२३",
    "𝕳𝖊𝖑𝖑𝖔 𝟙𝟚", "Å\u0301 ǟ ṩ ẛ̣", "\u1e9b\u0323 \u212b", "ʼn ŉ", "\u0345 \u1fb3",
]


def backend(vocabulary):
    """tokenizers' BERT WordPiece: its normaliser, splitter and model, no
    template and no special tokens in the text."""
    out = tokenizers.Tokenizer(models.WordPiece(
        {piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]",
        max_input_chars_per_word=100))
    out.normalizer = normalizers.BertNormalizer(lowercase=True)
    out.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return out


def wordpiece(vocabulary, strings):
    return [e.ids for e in backend(vocabulary).encode_batch(
        strings, add_special_tokens=False)]


RANGES = [(0x20, 0x7f, 30), (0xa0, 0x250, 12), (0x250, 0x370, 4),
          (0x370, 0x530, 8), (0x530, 0x700, 5), (0x900, 0x1200, 8),
          (0x1200, 0x2000, 6), (0x2000, 0x2c00, 8), (0x2c00, 0x3400, 5),
          (0x3400, 0xa000, 6), (0xa000, 0xd800, 5), (0xe000, 0x10000, 3),
          (0x1f000, 0x1fb00, 6), (0, 0x20, 1), (0x10000, 0x110000, 3)]


def random_strings(seed, count):
    """Code points of all planes, with spaces and marks between them."""
    rng = random.Random(seed)
    low, high, weights = zip(*RANGES)
    spans = list(zip(low, high))
    out = []
    for _ in range(count):
        # Mostly of one or two scripts, as text is.
        mine = rng.choices(spans, weights, k=rng.randint(1, 3))
        text = ""
        for _ in range(rng.randint(1, 24)):
            text += chr(rng.randrange(*rng.choice(mine)))
            if rng.random() < 0.15:
                text += rng.choice([" ", " ", "-", "\u0301", "\u200d", "a"])
        out.append(text)
    return out


def settled(code_point):
    """Whether all versions of Unicode class it alike: as Unicode 3.2 did, or
    as a symbol or unassigned, which are letters to BERT."""
    old = unicodedata.ucd_3_2_0.category(chr(code_point))
    new = unicodedata.category(chr(code_point))
    return new in ("So", "Cn") if old == "Cn" else old == new


def without(strings, code_points):
    """(strings with none of the code points, how many were left out)"""
    kept = [s for s in strings if not code_points & set(map(ord, s))]
    return kept, len(strings) - len(kept)


def small_vocabulary(strings, seed):
    """Specials, most characters as starts and continuations, some words."""
    rng = random.Random(seed)
    split = backend(SPECIALS)
    words = {}
    for s in strings:
        for word, _ in split.pre_tokenizer.pre_tokenize_str(
                split.normalizer.normalize_str(s)):
            words[word] = words.get(word, 0) + 1
    pieces = set()
    for word in sorted(words):
        for i, c in enumerate(word):
            if rng.random() < 0.7:
                pieces.add(c if i == 0 else "##" + c)
        if rng.random() < 0.25 and len(word) < 20:
            pieces.add(word)
        if rng.random() < 0.25 and len(word) > 3:
            cut = rng.randint(1, len(word) - 1)
            pieces.add(word[:cut])
            pieces.add("##" + word[cut:])
    return SPECIALS + sorted(p for p in pieces
                             if p not in SPECIALS and len(p) < 24 and p.strip()
                             and not any(c in p for c in "\r\n\x85\u2028"))


def captions(seed, count=400):
    """Made-up captions with some accents and other scripts."""
    rng = random.Random(seed)
    things = ["dog", "cat", "red ball", "café", "tree", "犬", "train", "boat",
              "Straße", "кот", "bird", "two horses", "naïve painter", "🐶"]
    places = ["on the grass", "in a street", "at the beach", "under a bridge",
              "near the mountain", "in Łódź", "on a sofa", "by the window"]
    acts = ["runs", "is sitting", "sleeps", "eats fish", "stands", "jumps",
            "looks at a clock", "plays"]
    return [f"{rng.choice(['a', 'the', 'A', 'one'])} {rng.choice(things)} "
            f"{rng.choice(acts)} {rng.choice(places)}" for _ in range(count)]


def train_sentencepiece(texts, size, kind):
    """A model trained with the options of SemVQ's TrainSentencePiece."""
    out = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    longest = max([4192, *(len(t.encode()) for t in texts)])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, minloglevel=2,
        model_type=kind, vocab_size=size, hard_vocab_limit=False,
        character_coverage=0.9995, normalization_rule_name="nmt_nfkc_cf",
        max_sentence_length=longest + 1, pad_id=0, unk_id=1, bos_id=2, eos_id=3,
        pad_piece="[PAD]", unk_piece="[UNK]", bos_piece="[CLS]",
        eos_piece="[SEP]", unk_surface=" [UNK] ", control_symbols=["[MASK]"],
        num_threads=1, shuffle_input_sentence=False, input_sentence_size=0)
    return out.getvalue()


def sentencepiece_ids(model, strings):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.encode(s) for s in strings]


def describe(code_points):
    """Ranges of code points with their categories, for a report."""
    runs = []
    for c in sorted(code_points):
        if runs and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return ", ".join(
        f"U+{a:04X}" + (f"-{b:04X}" if b > a else "")
        + f" {unicodedata.category(chr(a))}" for a, b in runs)
