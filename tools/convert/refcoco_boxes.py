#!/usr/bin/env python3
"""Makes the grounding task's file of boxes from RefCOCO's official files.

    refcoco_boxes.py 'refs(unc).p' instances.json dets.json refcoco+_boxes.json

refs(unc).p      the references of RefCOCO, RefCOCO+ or RefCOCOg: a pickled list of
                 {ref_id, ann_id, image_id, split, ...}, or a JSON list of the same.
                 A pickle can name programs to run; one that does is refused.
instances.json   their boxes and image sizes in COCO's format (ALBEF: cocos.json)
dets.json        the proposals: {"<image_id>": [[x, y, w, h, ...], ...]} (MAttNet's)

Standard library alone. docs/tasks.md describes what is written.
"""

import json
import pickle
import sys


class PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, texts and numbers need no names."""

    def find_class(self, module, name):
        raise SystemExit(f"the pickle names {module}.{name}, expected only "
                         "lists, dicts, texts and numbers; nothing was run")


def read_references(path):
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    with open(path, "rb") as file:
        return PlainUnpickler(file, encoding="latin1").load()


def join(references, instances, detections):
    """The records, in the references' order."""
    sizes = {i["id"]: (i["width"], i["height"]) for i in instances["images"]}
    boxes = {a["id"]: a["bbox"] for a in instances["annotations"]}
    records = []
    for reference in references:
        where = f"ref_id {reference['ref_id']}"
        if reference["ann_id"] not in boxes:
            raise SystemExit(f"{where}: ann_id {reference['ann_id']} is not "
                             "among the instances' annotations")
        if reference["image_id"] not in sizes:
            raise SystemExit(f"{where}: image_id {reference['image_id']} is "
                             "not among the instances' images")
        width, height = sizes[reference["image_id"]]
        found = detections.get(str(reference["image_id"]), [])
        records.append({
            "ref_id": reference["ref_id"], "width": width, "height": height,
            "box": boxes[reference["ann_id"]],
            "proposals": [box[:4] for box in found],
            "split": reference["split"]})
    return records


def main(arguments):
    if len(arguments) != 4:
        raise SystemExit(__doc__)
    instances, detections = (json.load(open(path, encoding="utf-8"))
                             for path in arguments[1:3])
    records = join(read_references(arguments[0]), instances, detections)
    with open(arguments[3], "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    empty = sum(not record["proposals"] for record in records)
    print(f"{len(records)} references, {empty} without proposals")


if __name__ == "__main__":
    main(sys.argv[1:])
