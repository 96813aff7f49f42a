"""VQA accuracy as the official evaluation script computes it, re-derived.

Written from what that script does to its input, without its code, for
comparison with core/eval/vqa_official. Needs the standard library alone.
"""

import re

PUNCTUATION = list(';/[]"{}()=+\\_-><@`,?!')
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3",
           "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
           "nine": "9", "ten": "10"}
# The words with their apostrophes. Where one apostrophe of a word is missing
# (or all are, where it has one), the script puts it in. What does not follow
# this pattern is in EXTRA and ABSENT.
WHOLE = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd
it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've
somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've wasn't we'd've
we've weren't what'll what're what's what've when's where'd where's where've
who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll you'd you'd've you'll you're you've
""".split()
EXTRA = {"somebody'd": "somebodyd", "'twas": "'twas", "twas": "'twas",
         "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at",
         "yall'd've": "y'all'd've", "y'alld've": "y'all'd've",
         "y'all'dve": "y'all'd've"}


def contractions():
    table = dict(EXTRA)
    for word in WHOLE:
        for at, character in enumerate(word):
            if character == "'":
                table[word[:at] + word[at + 1:]] = word
    return table


CONTRACTIONS = contractions()


def punctuation(text):
    comma = re.search(r"\d,\d", text) is not None
    out = text
    for mark in PUNCTUATION:
        beside = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if comma or beside else " ")
    # A flag stands where the script's call takes the number of replacements.
    return re.sub(r"\.(?!\d)", "", out, count=int(re.UNICODE))


def words(text):
    mapped = [NUMBERS.get(word, word) for word in text.lower().split()]
    kept = [word for word in mapped if word not in ("a", "an", "the")]
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)


def normalize(text):
    return words(punctuation(text))


def strip(text):
    return text.replace("\n", " ").replace("\t", " ").strip()


def accuracy(answer, said):
    """In [0, 1]; `said` has one answer of each annotator."""
    answer, said = strip(answer), [strip(text) for text in said]
    if len(set(said)) > 1:
        answer, said = normalize(answer), [normalize(text) for text in said]
    shares = []
    for left_out in range(len(said)):
        others = said[:left_out] + said[left_out + 1:]
        shares.append(min(1, others.count(answer) / 3))
    return sum(shares) / len(shares)
