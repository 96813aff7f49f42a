#!/usr/bin/env python3
"""Makes cases.jsonl: maps over patch grids, boxes, and what is found by them.

Written from the protocol of RefCOCO+'s weakly supervised evaluation (see
docs/tasks.md): the map is resized to the image by cubic convolution with
a = -0.75 and corners not aligned, a proposal's score is the sum over its pixels
over the square root of its area, and the overlap is counted in whole pixels.
Standard library alone; run it in this folder.

One case a line: the map, row by row, the image's width and height, the true
box, the proposals, and the chosen proposal (-1: none has a score above 0), its
score and overlap, whether it is a hit, the map's largest pixel and whether it
is in the box. The first line holds the percentages over all cases, and those of
the baselines.
"""

import hashlib
import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
CASES = 1200


def cubic_weight(t, a=-0.75):
    t = abs(t)
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    if t < 2:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return 0.0


def resize_line(line, size):
    """One row or column, stretched to `size` values."""
    out = []
    for target in range(size):
        source = len(line) / size * (target + 0.5) - 0.5
        first = math.floor(source)
        total = 0.0
        for neighbour in range(first - 1, first + 3):
            inside = min(max(neighbour, 0), len(line) - 1)
            total += line[inside] * cubic_weight(source - neighbour)
        out.append(total)
    return out


def resize(rows, height, width):
    wide = [resize_line(row, width) for row in rows]
    columns = [resize_line([row[x] for row in wide], height)
               for x in range(width)]
    return [[columns[x][y] for x in range(width)] for y in range(height)]


def overlap(a, b):
    """A pixel is counted, so that the last one is at x + w - 1."""
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    x1 = min(a[0] + a[2], b[0] + b[2]) - 1
    y1 = min(a[1] + a[3], b[1] + b[3]) - 1
    common = (x1 - x0 + 1) * (y1 - y0 + 1) if x1 > x0 and y1 > y0 else 0
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def score(image, box):
    x, y, w, h = box
    total = 0.0
    for row in image[max(int(y), 0):max(int(y + h), 0)]:
        for value in row[max(int(x), 0):max(int(x + w), 0)]:
            total += value
    return total / (w * h) ** 0.5


def centred(box, x, y):
    return (box[0] <= x + 0.5 < box[0] + box[2]
            and box[1] <= y + 0.5 < box[1] + box[3])


def make_box(draw, width, height):
    """Mostly inside; at times it reaches out, at times of half pixels."""
    w, h = draw.randint(1, width), draw.randint(1, height)
    x, y = draw.randint(0, width - w), draw.randint(0, height - h)
    if draw.random() < 0.2:
        x, y = x + 0.5, y + 0.25
        w, h = w + 0.5, h + 0.75
    if draw.random() < 0.1:
        x, y = x - draw.randint(0, 3), y - draw.randint(0, 3)
    return [x, y, w, h]


def near(draw, box, width, height):
    """A box that overlaps another one well."""
    x, y, w, h = box
    return [max(0, x + draw.randint(-2, 2)), max(0, y + draw.randint(-2, 2)),
            max(1, w + draw.randint(-2, 2)), max(1, h + draw.randint(-2, 2))]


def make_case(draw):
    width, height = draw.randint(4, 24), draw.randint(4, 24)
    grid = [draw.randint(1, 5), draw.randint(1, 5)]
    kind = draw.random()
    rows = [[draw.randint(0, 99999) if kind > 0.05 and draw.random() < 0.6
             else 0 for _ in range(grid[1])] for _ in range(grid[0])]
    while True:
        box = make_box(draw, width, height)
        if box[0] + box[2] > 0 and box[1] + box[3] > 0:
            break
    proposals = [make_box(draw, width, height)
                 for _ in range(draw.randint(0, 5))]
    if draw.random() < 0.7:
        proposals.append(near(draw, box, width, height))
    if proposals and draw.random() < 0.2:
        proposals.append(draw.choice(proposals))  # The first one wins.
    draw.shuffle(proposals)

    image = resize(rows, height, width)
    scores = [score(image, p) for p in proposals]
    chosen = -1
    for i, s in enumerate(scores):
        if s > 0 and (chosen < 0 or s > scores[chosen]):
            chosen = i
    peak = max(v for row in image for v in row)
    y = next(i for i, row in enumerate(image) if peak in row)
    x = image[y].index(peak)
    # Rounding must not decide: another order of additions gives the same case.
    rivals = sorted({s for s in scores if s > 0}, reverse=True)[:2]
    # (Pixels that should be equal are not, after rounding: a grid of one row.)
    pixels = sorted((v for row in image for v in row), reverse=True)[:2]
    for pair in (rivals, pixels):
        if len(pair) == 2 and pair[0] > 0 and pair[0] - pair[1] < 1e-6 * pair[0]:
            return None
    hit = lambda p: overlap(box, p) >= 0.5
    area = lambda p: p[2] * p[3]
    inside = lambda begin, size, limit: (min(max(begin + size, 0), limit)
                                         - min(max(begin, 0), limit))
    return {
        "map": rows, "width": width, "height": height, "box": box,
        "proposals": proposals, "chosen": chosen,
        "score": scores[chosen] if chosen >= 0 else 0,
        "iou": overlap(box, proposals[chosen]) if chosen >= 0 else 0,
        "hit": chosen >= 0 and hit(proposals[chosen]),
        "point": [x, y], "pointed": centred(box, x, y),
        "random": sum(map(hit, proposals)) / max(1, len(proposals)),
        "covered": (inside(box[0], box[2], width)
                    * inside(box[1], box[3], height) / (width * height)),
        "largest": bool(proposals) and hit(max(proposals, key=area)),
        "centre": centred(box, width // 2, height // 2),
    }


def main():
    draw = random.Random(20220800475)
    cases = []
    while len(cases) < CASES:
        case = make_case(draw)
        if case is not None:
            cases.append(case)
    percent = lambda key: 100.0 * sum(c[key] for c in cases) / CASES
    head = {
        "generator": hashlib.sha256(
            pathlib.Path(__file__).read_bytes()).hexdigest(),
        "cases": CASES,
        "hit@0.5": percent("hit"), "pointing": percent("pointed"),
        "hit@0.5 chance": percent("random"),
        "pointing chance": percent("covered"),
        "baseline: largest proposal": percent("largest"),
        "baseline: centre point": percent("centre"),
    }
    for case in cases:
        for key in ("random", "covered", "largest", "centre"):
            del case[key]
    lines = [json.dumps(head)]
    lines += [json.dumps(case, separators=(",", ":")) for case in cases]
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
