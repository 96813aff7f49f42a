#!/usr/bin/env python3
"""Makes cases.jsonl: judged statements about pairs of images, and their scores.

The scores are score.py's, which is written from the behaviour of NLVR2's
official script. Standard library alone; run it in this folder.

One case a line: the examples as [identifier, label, prediction], the accuracy,
the consistency and the number of statements. The first line holds the hash of
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
    split = draw.choice(["dev", "test1", "train"])
    sets = draw.sample(range(5000), draw.randint(1, 3))
    all_examples = [
        [f"{split}-{s}-{pair}-{sentence}", draw.choice(["True", "False"])]
        for s in sets for pair in range(4) for sentence in range(2)
    ]
    examples = draw.sample(all_examples, draw.randint(1, 8))
    right = draw.choice([0.0, 0.5, 0.8, 0.95, 1.0])
    for example in examples:
        wrong = {"True": "False", "False": "True"}[example[1]]
        example.append(example[1] if draw.random() < right else wrong)
        if draw.random() < 0.2:  # The files differ in case.
            example[1] = example[1].lower()
    return examples


def main():
    draw = random.Random(20190715)
    digest = hashlib.sha256()
    for name in ("generate.py", "score.py"):
        digest.update((HERE / name).read_bytes())
    lines = [json.dumps({"generator": digest.hexdigest(), "cases": CASES})]
    for _ in range(CASES):
        examples = case(draw)
        accuracy, consistency, statements = score.score(
            {name: label for name, label, _ in examples},
            {name: predicted for name, _, predicted in examples})
        lines.append(json.dumps([examples, accuracy, consistency, statements],
                                separators=(",", ":")))
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
