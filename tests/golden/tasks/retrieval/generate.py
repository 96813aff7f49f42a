#!/usr/bin/env python3
"""Makes cases.jsonl: small retrieval problems and what brute force says of them.

Scores are small integers, so that most cases have ties; images have several
captions, and some share their id. Standard library alone; run it in this folder.

One case a line: image ids, the image of every caption, the similarities and the
matching scores (a row an image, a digit a caption), k, and the metrics by
similarity and after the first k of every query were put in the order of their
matching score. Each: R@1, R@5, R@10 and median rank of the texts of an image
(TR), the same of the images of a text (IR), and the mean of the six recalls.
"""

import hashlib
import json
import pathlib
import random
import statistics

HERE = pathlib.Path(__file__).resolve().parent
CASES = 1200


def order(similarity, matching, k):
    """Candidates, the best first; of equals the lower number."""
    ranked = sorted(range(len(similarity)), key=lambda c: (-similarity[c], c))
    head = sorted(ranked[:k], key=lambda c: (-matching[c], c))
    return head + ranked[k:]


def metrics(ids, owner, similarity, matching, k):
    out, means = [], []
    for text_retrieval in (True, False):
        positions = []
        for query in range(len(ids) if text_retrieval else len(owner)):
            if text_retrieval:
                s, m = similarity[query], matching[query]
                right = {t for t, i in enumerate(owner) if ids[i] == ids[query]}
            else:
                s = [row[query] for row in similarity]
                m = [row[query] for row in matching]
                right = {i for i, name in enumerate(ids)
                         if name == ids[owner[query]]}
            found = order(s, m, k)
            positions.append(min(found.index(c) for c in right) + 1)
        recalls = [100.0 * sum(p <= top for p in positions) / len(positions)
                   for top in (1, 5, 10)]
        out += recalls + [float(statistics.median(positions))]
        means.append((recalls[0] + recalls[1] + recalls[2]) / 3)
    return out + [(means[0] + means[1]) / 2]


def make_case(draw):
    images = draw.randint(1, 10)
    ids, owner = [], []
    for i in range(images):
        shared = i > 0 and draw.random() < 0.15
        ids.append(draw.choice(ids) if shared else i)
        # Another image of the id has captions already.
        owner += [i] * draw.randint(0 if shared else 1, 4)
    levels = draw.choice([2, 3, 5, 10])
    table = lambda: [[draw.randrange(levels) for _ in owner] for _ in ids]
    similarity, matching = table(), table()
    k = draw.randint(1, max(images, len(owner)) + 2)
    digits = lambda rows: ["".join(map(str, row)) for row in rows]
    return {
        "ids": ids, "owner": owner, "similarity": digits(similarity),
        "matching": digits(matching), "k": k,
        "metrics": metrics(ids, owner, similarity, matching, 0),
        "reranked": metrics(ids, owner, similarity, matching, k),
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
