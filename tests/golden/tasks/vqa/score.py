#!/usr/bin/env python3
"""Scores a result file by an official annotations file.

    score.py RESULT.json ANNOTATIONS.json

Prints {"overall": ..., "<answer type>": ..., "<question type>": ...} in percent,
not rounded. Refuses what the challenge's server refuses: questions that are
missing, unknown or answered twice.
"""

import json
import sys

import evaluate


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    with open(sys.argv[2], encoding="utf-8") as file:
        annotations = json.load(file)["annotations"]
    given = {record["question_id"]: record["answer"] for record in results}
    if len(given) != len(results):
        sys.exit("a question is answered twice")
    if set(given) != {a["question_id"] for a in annotations}:
        sys.exit("results do not correspond to the questions")
    sums = {}
    for annotation in annotations:
        said = [answer["answer"] for answer in annotation["answers"]]
        score = evaluate.accuracy(given[annotation["question_id"]], said)
        for name in ("overall", annotation["answer_type"],
                     annotation["question_type"]):
            sums.setdefault(name, []).append(score)
    print(json.dumps({name: 100 * sum(scores) / len(scores)
                      for name, scores in sums.items()}))


if __name__ == "__main__":
    main()
