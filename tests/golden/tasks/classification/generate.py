#!/usr/bin/env python3
"""Makes cases.jsonl: scores of classes and what a count by hand says of them.

Scores are small integers, so that most cases have ties, which the first class
wins. Standard library alone; run it in this folder. One case a line: a row of
digits an image, its label's number, and the metrics: top-1, top-5 (null for at
most 5 classes), the mean of the classes' own top-1, the most frequent label's
share.
"""

import hashlib
import json
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
CASES = 1200


def make_case(draw):
    classes, images = draw.randint(2, 12), draw.randint(1, 16)
    levels = draw.choice([2, 3, 5, 10])
    scores = [[draw.randrange(levels) for _ in range(classes)]
              for _ in range(images)]
    labels = [draw.randrange(classes) for _ in range(images)]
    # Half of the time the right class tends to win.
    for row, label in zip(scores, labels):
        if draw.random() < 0.5:
            row[label] = max(row)
    order = [sorted(range(classes), key=lambda c: (-row[c], c))
             for row in scores]
    right = lambda k: 100.0 * sum(
        label in best[:k] for best, label in zip(order, labels)) / images
    own = []
    for c in range(classes):
        hits = [best[0] == c for best, label in zip(order, labels) if label == c]
        if hits:
            own.append(100.0 * sum(hits) / len(hits))
    counts = [labels.count(c) for c in range(classes)]
    return {
        "scores": ["".join(map(str, row)) for row in scores], "labels": labels,
        "top-1": right(1), "top-5": right(5) if classes > 5 else None,
        "mean of the classes": sum(own) / len(own),
        "majority": 100.0 * max(counts) / images,
    }


def main():
    draw = random.Random(20220800475)
    own = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    lines = [json.dumps({"generator": own, "cases": CASES})]
    lines += [json.dumps(make_case(draw), separators=(",", ":"))
              for _ in range(CASES)]
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
