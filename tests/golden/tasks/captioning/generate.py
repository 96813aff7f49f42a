#!/usr/bin/env python3
"""Random captions with what pycocoevalcap says of them.

Run by hand; needs pycocoevalcap==1.2, numpy==2.2.6 and, for the tokens, Java:
    pip install --no-deps pycocoevalcap==1.2; pip install numpy==2.2.6
    python3 tests/golden/tasks/captioning/generate.py
Writes beside itself
  cases.jsonl   a corpus a line: [[[candidate, [references]], ...],
                [BLEU-1..4], CIDEr, [CIDEr of each image]]; words are letters
  tokens.jsonl  [caption, its tokens by Stanford's PTBTokenizer]
"""

import contextlib
import io
import json
import pathlib
import random

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

HERE = pathlib.Path(__file__).resolve().parent
CASES = 1100

CAPTIONS = """
A man riding a wave on top of a surfboard.
Two dogs, one black and one white, are playing in the snow!
A woman's hand holding a cell phone
a close-up of a t-shirt that says "Hello World"
The cats' bowls are empty; they aren't happy.
A plate with a sandwich, chips & a pickle
There is a bus parked at 5:30 p.m. near the U.S. embassy
3 zebras and 2 giraffes standing in a field
A sign reads: "STOP"
an old-fashioned steam train -- black and red -- on the tracks
A group of people (mostly children) flying kites
He can't reach it, she won't, and they cannot either
It's a dog's life... isn't it?
a red/white/blue flag waving
A TV, a DVD player and an X-box on a stand
The 1950's car cost $3,500.00 or 50% off
Mr. Smith and Dr. Jones on Main St. in St. Louis
A boy who's gonna hit the ball
I'm sure we've seen that you're right, they'd say
People are sitting at a table with food and drinks .
A kitchen with a stove , a sink , and a refrigerator .
Skateboarder doing tricks in an empty pool!!
what?! a giraffe in the living room??
a man in a blue shirt is holding a #1 foam finger
A close up of a cake w/ candles
black and white photo of a couple's wedding
A bench in front of a lake, surrounded by trees; mountains in back
Some rock 'n' roll musicians on stage
it's 10 o'clock on the church tower
Several surfboards* standing upright
a clock @ the station
a 1/2 eaten pizza, 12-14 slices
the café has a naïve painting
“curly quotes” and it’s an apostrophe — with a dash
A stop sign that has been vandalized with the word 'eating' below stop.
The man's and the woman's bikes
A baseball player swinging a bat at a ball.The crowd watches.
a no. 5 bus
[unclear] a person {maybe} skiing
you'll see what I'd call a mess
"""


def words(draw, most):
    # Few words, so that n-grams meet.
    return " ".join(draw.choice("aaabbcdefg") for _ in range(draw.randint(0, most)))


def corpus(draw):
    images = []
    for _ in range(draw.choice([1, 2, 2, 3, 4, 6])):
        references = [words(draw, 9) for _ in range(draw.randint(1, 4))]
        candidate = words(draw, 12)
        if draw.random() < 0.4:
            candidate = draw.choice(references)
        images.append([candidate, references])
    return images


def scores(images):
    candidates = {i: [c] for i, (c, _) in enumerate(images)}
    references = {i: r for i, (_, r) in enumerate(images)}
    with contextlib.redirect_stdout(io.StringIO()):
        bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    # It asserts that a word was seen at all.
    if not any(reference.split() for _, r in images for reference in r):
        return None
    cider, each = Cider().compute_score(references, candidates)
    return [bleu, float(cider), [float(x) for x in each]]


def main():
    draw = random.Random(7)
    lines = []
    while len(lines) < CASES:
        images = corpus(draw)
        result = scores(images)
        if result is not None:
            lines.append(json.dumps([images] + result))
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")
    captions = [line for line in CAPTIONS.split("\n") if line]
    tokens = PTBTokenizer().tokenize(
        {i: [{"caption": caption}] for i, caption in enumerate(captions)})
    (HERE / "tokens.jsonl").write_text("".join(
        json.dumps([caption, tokens[i][0]], ensure_ascii=False) + "\n"
        for i, caption in enumerate(captions)), encoding="utf-8")
    print(f"{len(lines)} corpora, {len(captions)} captions")


if __name__ == "__main__":
    main()
