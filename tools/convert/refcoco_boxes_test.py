#!/usr/bin/env python3
"""refcoco_boxes.py on made-up files in the official formats."""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().parent / "refcoco_boxes.py"
REFERENCES = [
    {"ref_id": 7, "ann_id": 70, "image_id": 1, "split": "testA",
     "sentences": [{"sent": "left man"}], "category_id": 1},
    {"ref_id": 8, "ann_id": 80, "image_id": 2, "split": "val"},
]
INSTANCES = {
    "images": [{"id": 1, "width": 640, "height": 480},
               {"id": 2, "width": 300, "height": 200}],
    "annotations": [{"id": 70, "bbox": [1.5, 2, 30, 40]},
                    {"id": 80, "bbox": [5, 6, 7, 8]}],
}
DETECTIONS = {"1": [[1, 2, 30, 41, 0.9], [5, 5, 9, 9, 0.1]]}


def run(folder, references):
    paths = [folder / name for name in
             (references, "instances.json", "dets.json", "boxes.json")]
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, paths)],
                          capture_output=True, text=True, check=False)


class Program:
    def __reduce__(self):
        return os.system, ("exit 1",)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "instances.json").write_text(json.dumps(INSTANCES))
        (folder / "dets.json").write_text(json.dumps(DETECTIONS))
        (folder / "refs.p").write_bytes(pickle.dumps(REFERENCES, protocol=2))
        (folder / "refs.json").write_text(json.dumps(REFERENCES))
        for references in ("refs.p", "refs.json"):
            done = run(folder, references)
            assert done.returncode == 0, done
            assert done.stdout == "2 references, 1 without proposals\n", done
            boxes = json.loads((folder / "boxes.json").read_text())
            assert boxes == [
                {"ref_id": 7, "width": 640, "height": 480,
                 "box": [1.5, 2, 30, 40], "split": "testA",
                 "proposals": [[1, 2, 30, 41], [5, 5, 9, 9]]},
                {"ref_id": 8, "width": 300, "height": 200,
                 "box": [5, 6, 7, 8], "split": "val", "proposals": []},
            ], boxes
            (folder / "boxes.json").unlink()

        (folder / "evil.p").write_bytes(pickle.dumps(Program()))
        done = run(folder, "evil.p")
        assert done.returncode != 0 and "nothing was run" in done.stderr, done
        lost = [dict(REFERENCES[0], ann_id=71)]
        (folder / "lost.json").write_text(json.dumps(lost))
        done = run(folder, "lost.json")
        assert done.returncode != 0 and "ref_id 7: ann_id 71" in done.stderr, done
        assert not (folder / "boxes.json").exists()


if __name__ == "__main__":
    main()
