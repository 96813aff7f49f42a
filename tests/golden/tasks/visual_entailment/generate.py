#!/usr/bin/env python3
"""Makes cases.jsonl: labels and predictions of visual entailment, and scores.

Standard library alone; run it in this folder.

One case a line: the examples, for each the first letters of label and
prediction ("-" is SNLI's mark of an example on which annotators did not agree;
it is left out), the accuracy, the accuracy of each label (null where it does
not occur), and the confusion counts, a row for each label, a column for each
prediction. Labels in the order of score.py. The first line holds the hash of
this script and of score.py.
"""

import hashlib
import json
import pathlib
import random

import score

HERE = pathlib.Path(__file__).resolve().parent
CASES = 1200


def case(draw):
    names = draw.sample(score.LABELS, draw.randint(1, 3))
    right = draw.choice([0.0, 1 / 3, 0.8, 1.0])
    examples = []
    for _ in range(draw.randint(1, 12)):
        label = draw.choice(names)
        predicted = label if draw.random() < right else draw.choice(score.LABELS)
        if draw.random() < 0.1 and examples:
            label = "-"
        examples.append([label, predicted])
    return examples


def main():
    draw = random.Random(20190119)
    digest = hashlib.sha256()
    for name in ("generate.py", "score.py"):
        digest.update((HERE / name).read_bytes())
    lines = [json.dumps({"generator": digest.hexdigest(), "cases": CASES})]
    for _ in range(CASES):
        examples = case(draw)
        accuracy, by_label, counts = score.score(examples)
        lines.append(json.dumps([
            " ".join(a[0] + b[0] for a, b in examples), accuracy,
            [by_label.get(a) for a in score.LABELS],
            [[counts[a][b] for b in score.LABELS] for a in score.LABELS],
        ], separators=(",", ":")))
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
