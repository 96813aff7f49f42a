#!/usr/bin/env python3
"""Random VQA questions with what evaluate.py scores them.

Run by hand; writes cases.jsonl beside itself:
    python3 tests/golden/tasks/vqa/generate.py
Each line: [question_type, answer_type, [ten answers], predicted, normalised
prediction, accuracy].
"""

import json
import pathlib
import random

import evaluate

CASES = 1200
TYPES = ["what", "how many", "is the", "none of the above"]
KINDS = {"what": "other", "how many": "number", "is the": "yes/no",
         "none of the above": "other"}
STEMS = ["yes", "no", "red", "dog", "2", "none", "zero", "three", "Ten",
         "baseball bat", "don't know", "dont know", "o'clock", "oclock",
         "cant", "can't", "1,000", "1000", "3.5", "p.m.", "U.S.A.", "on street",
         "black and white", "t-shirt", "t shirt", "yall'd've", "somebody'd",
         "Im", "she's", "twas", "wont", "what's", "5:30", "caf\u00e9", "\u00c9t\u00e9",
         "two thousand", "the", "a", "\u0663,\u0664", "\u0663.\u0664"]


def decorate(answer, draw):
    """The answer in one of the ways in which people write it."""
    for _ in range(draw.choice([0, 0, 1, 1, 2])):
        answer = draw.choice([
            lambda s: "the " + s, lambda s: "A " + s, lambda s: s + ".",
            lambda s: s + "!", lambda s: s + " ?", lambda s: " " + s + "\n",
            lambda s: s.replace(" ", "\t"), lambda s: s.upper(),
            lambda s: s.replace(" ", "-"), lambda s: s.replace(" ", "/"),
            lambda s: "(" + s + ")", lambda s: s + ", " + s,
            lambda s: '"' + s + '"', lambda s: s + "\u00a0", lambda s: s + ";x",
            lambda s: "1,2 " + s, lambda s: s.replace("'", ""),
            lambda s: s + "@home", lambda s: s + " - " + s,
        ])(answer)
    return answer


def case(draw):
    if draw.random() < 0.02:  # More periods than are deleted.
        long = "x." * draw.randint(30, 36)
        return [long, "x" * 33, long + "y"]
    stems = draw.sample(STEMS, draw.randint(1, 4))
    return stems


def main():
    draw = random.Random(6)
    out = pathlib.Path(__file__).with_name("cases.jsonl")
    lines = []
    for _ in range(CASES):
        stems = case(draw)
        if draw.random() < 0.12:
            said = [decorate(stems[0], draw)] * 10
        else:
            said = [decorate(draw.choice(stems), draw) for _ in range(10)]
        pool = said + stems + ["maybe"]
        predicted = decorate(draw.choice(pool), draw)
        if draw.random() < 0.4:
            predicted = evaluate.normalize(draw.choice(said))
        kind = draw.choice(TYPES)
        score = evaluate.accuracy(predicted, said)
        lines.append(json.dumps(
            [kind, KINDS[kind], said, predicted,
             evaluate.normalize(evaluate.strip(predicted)), score],
            ensure_ascii=False))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scores = [json.loads(line)[-1] for line in lines]
    print(f"{len(lines)} cases, mean accuracy {sum(scores) / len(scores):.4f}, "
          f"distinct {len(set(scores))}")


if __name__ == "__main__":
    main()
