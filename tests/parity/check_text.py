"""WordPiece against `tokenizers`, sentencepiece against `sentencepiece`, and the
clean-up of captions against ALBEF's rule with Python's `re` and `lower`.

WordPiece: first every code point alone, as "a<c>b", which shows whether it is
a letter, a space, punctuation or dropped on either side; those on which the
two disagree are printed, and strings that hold one are left out (and counted)
afterwards. Then names and annotations of emoji in many languages, and random
Unicode.
"""

import hashlib
import json
import pathlib
import re
import unicodedata
import xml.etree.ElementTree as ElementTree

import check_bert
from common import call, workdir
from reference import text

CLDR = pathlib.Path("/usr/share/unicode/cldr/common/annotations")
LANGUAGES = ["en", "de", "fr", "es", "it", "pt", "pl", "cs", "vi", "tr", "ru",
             "uk", "el", "he", "ar", "hi", "ta", "th", "ka", "am", "ja", "zh",
             "ko"]
DUMP = "//tests/golden:text_dump"


def write_strings(strings):
    path = workdir() / "strings.json"
    # ReadJsonStringList wants UTF-8; surrogate escapes would be two strings.
    path.write_text(json.dumps(strings, ensure_ascii=False), encoding="utf-8")
    return path


def ours(kind, model, strings):
    out = workdir() / "ids.txt"
    call(DUMP, kind, model, write_strings(strings), out)
    lines = out.read_text().split("\n")[:-1]
    return [[int(i) for i in line.split()] for line in lines]


def annotations():
    """(names, annotations), of all languages together."""
    names, lines = [], []
    for language in LANGUAGES:
        root = ElementTree.parse(CLDR / f"{language}.xml").getroot()
        for a in root.iter("annotation"):
            (names if a.get("type") == "tts" else lines).append(a.text or "")
    return names, lines


def mismatches(strings, a, b):
    return [s for s, x, y in zip(strings, a, b, strict=True) if x != y]


def compare(report, what, strings, a, b, note=""):
    wrong = mismatches(strings, a, b)
    for s in wrong[:5]:
        print(f"   {what}: {s!r}")
    report.measure(f"{what}: {len(strings)} strings", len(wrong), 0,
                   "strings that differ", note)


def is_old(code_point):
    """Whether Unicode 3.2 had it, and all versions class it alike."""
    return (unicodedata.ucd_3_2_0.category(chr(code_point)) != "Cn"
            and text.settled(code_point))


def check_wordpiece(report, names, lines):
    # bert-base-uncased's, which comes with those weights.
    path = check_bert.model_folder() / "vocab.txt"
    vocabulary = path.read_text(encoding="utf-8").split("\n")
    if not vocabulary[-1]:
        vocabulary.pop()
    peer = lambda strings: text.wordpiece(vocabulary, strings)

    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    probes = [f"a{chr(c)}b" for c in points]
    wrong = mismatches(probes, ours("wordpiece", path, probes), peer(probes))
    classed = {ord(s[1]) for s in wrong}
    print(f"   {len(classed)} code points differ: {text.describe(classed)}")
    # The peer's tables are of Unicode 8 or so, ours are utf8proc's. What
    # Unicode 3.2 knew and nobody changed must be one class on both sides.
    report.measure("WordPiece: old code points classed differently",
                   sum(map(is_old, classed)), 0, "code points",
                   f"{len(classed)} newer ones of {len(points)} are listed "
                   "above and left out")

    for what, strings in (("hand-made", text.NASTY), ("emoji names", names),
                          ("emoji annotations", lines),
                          ("random Unicode", text.random_strings(1, 30000))):
        kept, left_out = text.without(strings, classed)
        compare(report, f"WordPiece, {what}", kept,
                ours("wordpiece", path, kept), peer(kept),
                f"{left_out} left out" if left_out else "")


def check_sentencepiece(report, names, lines):
    captions = text.captions(5) + names[:2000]
    strings = text.NASTY + names + lines + text.random_strings(2, 20000)
    for kind in ("unigram", "bpe"):
        theirs = text.train_sentencepiece(captions, 800, kind)
        model = workdir() / f"{kind}.model"
        call(DUMP, "train", model, write_strings(captions), 800, kind)
        report.require(
            f"sentencepiece, {kind}: models trained on both sides are one",
            hashlib.sha256(theirs).digest()
            == hashlib.sha256(model.read_bytes()).digest())
        compare(report, f"sentencepiece, {kind}", strings,
                ours("sentencepiece", model, strings),
                text.sentencepiece_ids(theirs, strings))


def cleaned(caption):
    """ALBEF's rule. It leaves a single tab or line break where it is, which
    BERT's tokenizer then splits at; here they become spaces before words are
    counted."""
    caption = re.sub(r"[,.'!?\"()*#:;~]", "", caption.lower())
    caption = re.sub("[-/]", " ", caption).replace("<person>", "person")
    return " ".join(caption.split()[:30])


def simply_lowered(string):
    """Whether Python's lower case is one character for each, wherever it is:
    not so of a final sigma and a dotted I."""
    return string.lower() == "".join(
        c.lower() if len(c.lower()) == 1 else "" for c in string)


def check_captions(report, names, lines):
    strings = names + lines + text.captions(6) + [
        " ".join(lines[i:i + 9]) for i in range(0, 9000, 9)] + [
        f"A <person>'s {a}, and {b}-{a}/{b}!" for a, b in zip(names, lines)]
    tried = [s for s in strings if simply_lowered(s)]
    out = workdir() / "cleaned.txt"
    call(DUMP, "clean", write_strings(tried), out)
    compare(report, "captions cleaned", tried,
            out.read_text(encoding="utf-8").split("\n")[:-1],
            [cleaned(s) for s in tried], f"{len(strings) - len(tried)} left out")


def run(report):
    names, lines = annotations()
    check_captions(report, names, lines)
    check_wordpiece(report, names, lines)
    check_sentencepiece(report, names, lines)
