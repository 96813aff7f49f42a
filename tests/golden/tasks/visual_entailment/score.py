#!/usr/bin/env python3
"""Scores a result file of visual entailment: score.py RESULT.json

Reads the list "predictions" of {"label", "prediction"} and nothing else of the
file. Prints the accuracy and the confusion counts as JSON.
"""

import json
import sys

LABELS = ["contradiction", "neutral", "entailment"]


def score(examples):
    """[label, prediction] pairs to accuracy, accuracy by label, counts."""
    examples = [(a, b) for a, b in examples if a != "-"]
    accuracy = sum(a == b for a, b in examples) / len(examples)
    by_label, counts = {}, {}
    for label in LABELS:
        given = [b for a, b in examples if a == label]
        counts[label] = {b: given.count(b) for b in LABELS}
        if given:
            by_label[label] = given.count(label) / len(given)
    return accuracy, by_label, counts


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        predictions = json.load(file)["predictions"]
    accuracy, _, counts = score(
        [(p["label"], p["prediction"]) for p in predictions])
    print(json.dumps([accuracy, counts]))


if __name__ == "__main__":
    main()
