#!/usr/bin/env python3
"""Makes the fixtures of this folder with the public peers, and their manifest.

    $(tests/parity/run.sh --install-only) tests/golden/generate.py

The peers' versions are pinned in tests/parity/requirements.txt. The random
choices of the model's steps (masks, negatives) are SemVQ's own and come from
golden_dump; everything expected comes from tests/parity/reference.
"""

import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "parity"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from reference import images, losses, model, optimizer, text  # noqa: E402
from manifest_test import MANIFEST, covered_files  # noqa: E402

FIXTURES = HERE / "fixtures"


def save(name, given, expected):
    tensors = {f"in/{k}": v for k, v in given.items()}
    tensors.update({f"out/{k}": v for k, v in expected.items()})
    save_file({k: v.contiguous() for k, v in tensors.items()},
              FIXTURES / f"{name}.safetensors")


def make_images():
    given = {
        "image": images.picture(36, 28, 3, 30, 210),
        "resize": np.array([(16, 16), (40, 30), (20, 36)], np.float64),
        "ops": np.array([(0, 0), (1, 0), (2, 0), (3, 1.36), (4, 1.36), (4, 0.1),
                         (4, 0.1 + 1.8), (5, 0.21), (6, -0.21), (7, 2.5), (8, -7), (9, 21),
                         (9, -30)], np.float64),
        "crops": np.array([(k, 16, 0.2, 1.0, 0.75, 4 / 3, 0.5)
                           for k in (1, 2, 3, 4)], np.float64),
        "randaugment": np.array([(k, 2, 7) for k in (11, 12, 14)]
                                + [(k, 3, 10) for k in (21, 22)], np.float64),
    }
    expected = images.expected(given)
    save("images", {k: torch.from_numpy(v) for k, v in given.items()},
         {k: torch.from_numpy(v.copy()) for k, v in expected.items()})


def make_losses():
    for name in ("itc", "itm", "mlm"):
        given = getattr(losses, f"inputs_{name}")(7)
        save(name, given, getattr(losses, f"expected_{name}")(given))


def make_optimizer():
    for dtype in (torch.float64, torch.float32):
        given = optimizer.inputs(5, dtype)
        expected = optimizer.expected(given)
        # Some steps of the fifty: the last ones hold all before them.
        save("optimizer_" + str(dtype).removeprefix("torch."), given, expected)


def dump(case, given):
    subprocess.run(["bazel", "build", "//tests/golden:golden_dump"], cwd=ROOT,
                   check=True)
    binary = ROOT / "bazel-bin/tests/golden/golden_dump"
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.st", f"{folder}/out.st"
        save_file(given, source)
        subprocess.run([binary, case, source, target], check=True)
        return load_file(target)


def make_models():
    choices = {k: v for k, v in dump("model_step",
                                     model.inputs_step(1000)).items()
               if k.startswith("choice/")}
    for name, alternatives in (("model_step", False),
                               ("model_alternatives", True)):
        given = {**model.inputs_step(1000, alternatives), **choices}
        expected = {}
        for key, value in model.expected_step(given).items():
            if key.startswith("grad/"):
                key, value = "norm/" + key[len("grad/"):], value.norm()
            expected[key] = value
        save(name, given, expected)
    given = model.inputs_curve(1400)
    expected, _ = model.expected_curve(given, dump("model_curve", given))
    save("model_curve", given, {k: v for k, v in expected.items()
                                if not k.startswith("param/")})


def write_lines(name, lines):
    (FIXTURES / name).write_text("".join(f"{line}\n" for line in lines),
                                 encoding="utf-8")


def write_ids(name, ids):
    write_lines(name, (" ".join(map(str, row)) for row in ids))


def write_json(name, strings):
    (FIXTURES / name).write_text(
        json.dumps(strings, ensure_ascii=True, indent=0) + "\n")


def make_text():
    # Only characters on which Unicode's versions agree; tests/parity lists the
    # others.
    settled = [s for s in text.random_strings(9, 2000)
               if all(text.settled(ord(c)) for c in s)]
    strings = [s for s in text.NASTY if all(text.settled(ord(c)) for c in s)]
    strings += settled[:400]
    write_json("text_strings.json", strings)
    vocabulary = text.small_vocabulary(strings, 3)
    write_lines("text_vocab.txt", vocabulary)
    write_ids("text_wordpiece_ids.txt", text.wordpiece(vocabulary, strings))
    captions = text.captions(4)
    write_json("text_captions.json", captions)
    hashes = []
    for kind in ("unigram", "bpe"):
        trained = text.train_sentencepiece(captions, 300, kind)
        hashes.append(f"{kind} {hashlib.sha256(trained).hexdigest()}")
        write_ids(f"text_{kind}_ids.txt",
                  text.sentencepiece_ids(trained, captions[:50] + strings))
    write_lines("text_models.txt", hashes)


def write_manifest():
    lines = [f"{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}  {path}"
             for path in covered_files()]
    MANIFEST.write_text("\n".join(lines) + "\n")


def main():
    random.seed(0)
    torch.set_num_threads(1)
    FIXTURES.mkdir(exist_ok=True)
    if sys.argv[1:] != ["--manifest-only"]:
        make_images()
        make_losses()
        make_optimizer()
        make_text()
        make_models()
    write_manifest()


if __name__ == "__main__":
    main()
