#!/usr/bin/env python3
"""Scores NLVR2 predictions: score.py PREDICTIONS.csv LABELS.jsonl

Written from the behaviour of the official script: predictions are lines
"identifier,prediction", labels are compared without regard to case, and a
statement, whose name is its identifier without the third part, is consistent
when all its predictions are right. Prints accuracy and consistency.
"""

import json
import sys


def score(labels, predictions):
    """Both by identifier. Accuracy, consistency, number of statements."""
    missing = sorted(set(labels) - set(predictions))
    if missing:
        sys.exit(f"no prediction for {missing}")
    right = {name: predictions[name].lower() == label.lower()
             for name, label in labels.items()}
    statements = {}
    for name in labels:
        split, group, _, *rest = name.split("-")
        key = (split, group, tuple(rest))
        statements[key] = statements.get(key, True) and right[name]
    return (sum(right.values()) / len(labels),
            sum(statements.values()) / len(statements), len(statements))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        predictions = dict(line.strip().split(",") for line in file)
    with open(sys.argv[2], encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    labels = {r["identifier"]: str(r["label"]) for r in records}
    accuracy, consistency, _ = score(labels, predictions)
    print(repr(accuracy), repr(consistency))


if __name__ == "__main__":
    main()
