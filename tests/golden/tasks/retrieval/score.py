#!/usr/bin/env python3
"""Scores a result file of the retrieval task: python3 score.py FILE

Reads nothing but the file (docs/tasks.md describes it), and recomputes each
metric from the candidates and their scores. A rank that the list does not reach
is taken from the file. Prints "name value", one a line.
"""

import json
import statistics
import sys


def rank(query, scores, stated):
    """From 1; of equal scores the lower number stands first."""
    listed = sorted(query[scores], key=lambda c: (-c[1], c[0]))
    assert listed == query[scores], f"not in order: {query}"
    right = set(query["positives"])
    assert right, f"nothing is right: {query}"
    places = [p for p, (c, _) in enumerate(listed, 1) if c in right]
    if not places:
        assert query[stated] > len(listed), f"rank does not fit: {query}"
        return query[stated]
    assert places[0] == query[stated], f"rank does not fit: {query}"
    return places[0]


def main(path):
    with open(path, encoding="utf-8") as file:
        head = json.loads(file.readline())
        queries = [json.loads(line) for line in file]
    assert head["format"] == "semvq retrieval 1", head
    images = [q for q in queries if "image" in q]
    texts = [q for q in queries if "text" in q]
    assert [q["image"] for q in images] == list(range(head["images"]))
    assert [q["text"] for q in texts] == list(range(head["texts"]))
    kinds = [("", "best", "rank")]
    if head["rerank_top_k"] > 0:
        kinds.append(("reranked ", "reranked", "reranked_rank"))
    for prefix, scores, stated in kinds:
        means = []
        for name, some in (("TR", images), ("IR", texts)):
            ranks = [rank(q, scores, stated) for q in some]
            recalls = [100.0 * sum(r <= k for r in ranks) / len(ranks)
                       for k in (1, 5, 10)]
            for k, recall in zip((1, 5, 10), recalls):
                print(f"{prefix}{name} R@{k} {recall!r}")
            print(f"{prefix}{name} median rank {statistics.median(ranks)!r}")
            means.append((recalls[0] + recalls[1] + recalls[2]) / 3)
        print(f"{prefix}r_mean {(means[0] + means[1]) / 2!r}")


if __name__ == "__main__":
    main(sys.argv[1])
