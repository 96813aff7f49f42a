"""The committed fixtures of tests/golden/encoders are what their generator makes."""

import sys

from safetensors.torch import load_file

import common


def run(report):
    folder = common.ROOT / "tests/golden/encoders"
    sys.path.insert(0, str(folder))
    import generate
    fresh = common.workdir() / "golden_encoders"
    fresh.mkdir()
    generate.write(fresh)
    for name in generate.FIXTURES:
        committed, made = load_file(folder / name), load_file(fresh / name)
        report.require(f"{name}: same names", committed.keys() == made.keys())
        # Another processor may round differently.
        report.measure(
            f"{name}: same values",
            max(common.difference(committed[k], made[k]) for k in made), 1e-5)
    report.require("made with the pinned versions",
                   (folder / "manifest").read_text().startswith(
                       generate.VERSIONS + "\n"))
