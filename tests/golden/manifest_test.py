#!/usr/bin/env python3
"""Fails when a fixture or the code that made it is not the one of the manifest.

generate.py writes the manifest together with the fixtures. So a fixture that
was changed by hand fails, and a generator that was changed without being run.
"""

import hashlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MANIFEST = HERE / "manifest.sha256"
# Generators first, then what they made.
PATTERNS = [
    "tests/golden/generate.py", "tests/parity/reference/*.py",
    "tests/parity/requirements.txt", "data/testdata/make_golden.py",
    "tests/golden/fixtures/*", "data/testdata/*.png", "data/testdata/*.jpg",
    # The other tasks' cases hold their generator's hash themselves.
    "tests/golden/tasks/captioning/generate.py",
    "tests/golden/tasks/captioning/*.jsonl", "tests/golden/tasks/vqa/evaluate.py",
    "tests/golden/tasks/vqa/generate*.py", "tests/golden/tasks/vqa/*.jsonl",
    "tests/golden/tasks/vqa/*.safetensors",
]


def covered_files():
    return [p.relative_to(ROOT).as_posix() for pattern in PATTERNS
            for p in sorted(ROOT.glob(pattern)) if p.is_file()]


def main():
    listed = dict(reversed(line.split("  "))
                  for line in MANIFEST.read_text().splitlines())
    found = covered_files()
    failures = [f"{path} is not in the manifest" for path in found
                if path not in listed]
    failures += [f"{path} is in the manifest, but not there" for path in listed
                 if path not in found]
    failures += [
        f"{path} is not the file of the manifest" for path in found
        if path in listed and listed[path] != hashlib.sha256(
            (ROOT / path).read_bytes()).hexdigest()]
    if failures:
        failures.append("after a change to a generator run tests/golden/"
                        "generate.py again; see its first lines")
    print("\n".join(failures))
    print(f"{len(found)} files, {len(failures)} complaints")
    return 1 if failures or not found else 0


if __name__ == "__main__":
    sys.exit(main())
