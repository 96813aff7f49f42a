#!/usr/bin/env python3
"""Scores a result file by a COCO captions file, with pycocoevalcap.

    score.py RESULT.json CAPTIONS.json

Prints {"BLEU-1": ..., "CIDEr": ...} in percent. Needs pycocoevalcap==1.2 and Java;
METEOR and SPICE are left out.
"""

import contextlib
import io
import json
import sys

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        written = {r["image_id"]: [r] for r in json.load(file)}
    references = {}
    with open(sys.argv[2], encoding="utf-8") as file:
        for annotation in json.load(file)["annotations"]:
            references.setdefault(annotation["image_id"], []).append(annotation)
    if set(written) != set(references):
        sys.exit("the captions are not of the images with references")
    tokenizer = PTBTokenizer()
    written = tokenizer.tokenize(written)
    references = tokenizer.tokenize(references)
    with contextlib.redirect_stdout(io.StringIO()):
        bleu, _ = Bleu(4).compute_score(references, written, verbose=0)
        cider, _ = Cider().compute_score(references, written)
    scores = {f"BLEU-{n + 1}": 100 * value for n, value in enumerate(bleu)}
    scores["CIDEr"] = 100 * float(cider)
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
