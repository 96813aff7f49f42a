"""The committed cases of tests/golden/tasks are what their generators make of the peers."""

import shutil
import subprocess
import sys

from safetensors.torch import load_file

import common

# Stanford's PTBTokenizer, a Java program, splits its captions.
NEEDS_JAVA = {"captioning/tokens.jsonl"}


def run(report):
    committed = common.ROOT / "tests/golden/tasks"
    fresh = common.workdir() / "golden_tasks"
    shutil.copytree(committed, fresh)
    java = shutil.which("java") is not None
    cases = [p for p in sorted(fresh.glob("*/*"))
             if p.suffix in (".jsonl", ".safetensors")]
    for path in cases:
        if java or str(path.relative_to(fresh)) not in NEEDS_JAVA:
            path.unlink()
    for generator in sorted(fresh.glob("*/generate*.py")):
        # What needs Java comes last in its generator.
        subprocess.run([sys.executable, generator], stdout=subprocess.DEVNULL,
                       check=java or generator.parent.name != "captioning")
    for path in cases:
        name = str(path.relative_to(fresh))
        if name in NEEDS_JAVA and not java:
            print(f"   {name} is not compared: no java here")
        elif path.suffix == ".jsonl":
            report.require(f"{name}: same bytes",
                           path.read_bytes() == (committed / name).read_bytes())
        else:
            made, known = load_file(path), load_file(committed / name)
            report.require(f"{name}: same names", made.keys() == known.keys())
            report.measure(
                f"{name}: same values",
                max(common.difference(made[k], known[k]) for k in made), 1e-9)
