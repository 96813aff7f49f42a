"""What the checks share."""

import functools
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(os.environ["SEMVQ_ROOT"])
CACHE = pathlib.Path(os.environ["SEMVQ_CACHE"])
# Prepared by setup.sh: emoji names, captions.
DATA = CACHE / "data"


@functools.lru_cache(maxsize=None)
def workdir():
    """A folder for intermediate files, removed at exit."""
    folder = tempfile.TemporaryDirectory(prefix="semvq-parity-")
    workdir.keep = folder
    return pathlib.Path(folder.name)


@functools.lru_cache(maxsize=None)
def binary(label):
    """Builds a target such as //tests/parity:dump; returns its path."""
    subprocess.run(["bazel", "build", "--noshow_progress",
                    "--ui_event_filters=-info", label],
                   cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    package, name = label.removeprefix("//").split(":")
    return ROOT / "bazel-bin" / package / name


def call(label, *args, **kwargs):
    """Runs a binary of ours in the work folder; returns its output."""
    done = subprocess.run([binary(label), *map(str, args)], cwd=workdir(),
                          check=True, stdout=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, **kwargs)
    return done.stdout


def difference(a, b):
    """The largest absolute difference of two tensors; shapes must agree."""
    if tuple(a.shape) != tuple(b.shape):
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return (a.double() - b.double()).abs().max().item()
