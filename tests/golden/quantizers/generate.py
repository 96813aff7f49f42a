"""Writes the fixtures of this folder, and their manifest.

    $(tests/parity/run.sh --install-only) tests/golden/quantizers/generate.py

With a folder as argument, writes the fixtures there and no manifest.
common.py says what a fixture holds. `manifest` lists the peer's version and
the SHA-256 of every script and fixture.
"""

import hashlib
import importlib
import importlib.metadata
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import common  # noqa: E402

VERSIONS = " ".join(["#"] + [
    f"{name}=={importlib.metadata.version(name).split('+')[0]}"
    for name in ("torch", "vector-quantize-pytorch")])


def cases():
    for path in sorted(HERE.glob("*_cases.py")):
        yield from importlib.import_module(path.stem).CASES.items()


def write(folder):
    for name, case in cases():
        tensors, metadata = common.make(case())
        save_file(tensors, folder / f"{name}.safetensors", metadata)


def main():
    if len(sys.argv) > 1:
        write(pathlib.Path(sys.argv[1]))
        return
    for old in HERE.glob("*.safetensors"):
        old.unlink()
    write(HERE)
    lines = [VERSIONS]
    for path in sorted([*HERE.glob("*.py"), *HERE.glob("*.safetensors")]):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.name}")
    (HERE / "manifest").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
