#!/usr/bin/env python3
"""Scores a result file of the classification task: python3 score.py FILE

Counts from the images' lists of best classes alone; what the file says of each
class must agree. Prints "name value", one a line.
"""

import json
import sys


def main(path):
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    images, classes = result["images"], result["classes"]
    for method, stated in result["per_class"].items():
        for k in (1, 5) if len(classes) > 5 else (1,):
            hits = sum(i["label"] in i[method][:k] for i in images)
            print(f"{method} top-{k} {100.0 * hits / len(images)!r}")
        own = []
        for name in classes:
            some = [i[method][0] == name for i in images if i["label"] == name]
            assert bool(some) == (name in stated), name
            if some:
                own.append(100.0 * sum(some) / len(some))
                assert abs(own[-1] - stated[name]) < 1e-3, name
        print(f"{method} mean of the classes {sum(own) / len(own)!r}")


if __name__ == "__main__":
    main(sys.argv[1])
