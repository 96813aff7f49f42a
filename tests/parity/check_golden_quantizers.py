"""The committed fixtures of tests/golden/quantizers are what their generator makes."""

import subprocess
import sys

from safetensors.torch import load_file

import common


def run(report):
    folder = common.ROOT / "tests/golden/quantizers"
    fresh = common.workdir() / "golden_quantizers"
    fresh.mkdir()
    # Apart: its scripts set torch's default dtype.
    subprocess.run([sys.executable, folder / "generate.py", fresh], check=True)
    committed = sorted(p.name for p in folder.glob("*.safetensors"))
    report.require("same fixtures",
                   committed == sorted(p.name for p in fresh.iterdir()))
    for name in committed:
        old, new = load_file(folder / name), load_file(fresh / name)
        report.require(f"{name}: same names", old.keys() == new.keys())
        report.measure(f"{name}: same values",
                       max(common.difference(old[k], new[k]) for k in new),
                       1e-9)
