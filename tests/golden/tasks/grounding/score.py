#!/usr/bin/env python3
"""Scores a result file of the grounding task: python3 score.py RESULT BOXES

BOXES is the task's file of boxes. Every found box is compared with the true one
anew, and every maximum; what the result file says of them must agree. Texts
without boxes are in neither file. Prints "name value", one a line.
"""

import json
import sys


def overlap(a, b):
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    x1 = min(a[0] + a[2], b[0] + b[2]) - 1
    y1 = min(a[1] + a[3], b[1] + b[3]) - 1
    common = (x1 - x0 + 1) * (y1 - y0 + 1) if x1 > x0 and y1 > y0 else 0
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def main(result, boxes):
    with open(result, encoding="utf-8") as file:
        rows = json.load(file)
    with open(boxes, encoding="utf-8") as file:
        truth = {str(r["ref_id"]): r for r in json.load(file)}
    hits = pointed = 0
    for row in rows:
        reference = truth[str(row["ref_id"])]
        if row["box"] is not None:
            assert row["box"] in reference["proposals"], f"not proposed: {row}"
            iou = overlap(reference["box"], row["box"])
            assert iou == row["iou"], f"overlap is {iou}: {row}"
            hits += iou >= 0.5
        x, y = row["point"]
        left, top, width, height = reference["box"]
        pointed += (left <= x + 0.5 < left + width
                    and top <= y + 0.5 < top + height)
    print(f"hit@0.5 {100.0 * hits / len(rows)!r}")
    print(f"pointing {100.0 * pointed / len(rows)!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
