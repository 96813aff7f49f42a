"""Resize, crop and RandAugment against Pillow and OpenCV.

Boxes, flips and the choice of operations are drawn from SemVQ's streams on both
sides (the formula of torchvision's RandomResizedCrop on the same uniforms).
"""

import numpy as np
from safetensors.numpy import load_file, save_file

from common import call, workdir
from reference import images

# A crop is compared after its division by 255.
LIMITS = {"resize": ("bicubic resize", 0),
          "crop": ("RandomResizedCrop and flip", 1e-4),
          "photometric": ("RandAugment's", 0), "geometric": ("RandAugment's", 0),
          "randaugment": ("RandAugment, two operations", 0)}
SIZES = [(97, 61), (64, 64), (256, 171), (500, 375), (33, 200)]


def inputs(width, height, seed):
    rng = np.random.default_rng(seed)
    given = {"image": images.picture(width, height, seed)}
    given["resize"] = np.array(
        [(64, 64), (256, 256), (24, 40), (height, 2 * width), (384, 384)],
        np.float64)
    given["ops"] = np.array(
        [(op, value) for op in range(3) for value in [0]]
        + [(op, value) for op in (3, 4)
           for value in (0.1, 0.64, 1.0, 1.36, 0.1 + 1.8)]
        + [(op, value) for op in (5, 6) for value in (-0.3, -0.21, 0.05, 0.3)]
        + [(op, value) for op in (7, 8) for value in (-10, -2.5, 3, 7)]
        + [(9, value) for value in (-30, -21, 7.5, 21, 90)], np.float64)
    given["crops"] = np.array(
        [(rng.integers(2 ** 53), size, low, 1.0, 0.75, 4 / 3, 0.5)
         for size in (64, 96) for low in (0.08, 0.2, 0.5, 1.0)
         for _ in range(6)], np.float64)
    given["randaugment"] = np.array(
        [(rng.integers(2 ** 53), 2, m) for m in (3, 7, 10) for _ in range(15)],
        np.float64)
    return given


def run(report):
    worst, share, count = {}, {}, {}
    for seed, (width, height) in enumerate(SIZES):
        given = inputs(width, height, seed)
        source, target = workdir() / "in.st", workdir() / "out.st"
        save_file(given, source)
        call("//tests/golden:golden_dump", "images", source, target)
        ours, theirs = load_file(target), images.expected(given)
        report.require(f"{width} x {height}: the same outputs",
                       set(ours) == set(theirs))
        for name, want in theirs.items():
            kind, index = name.split("/")
            if kind in LIMITS and kind.endswith("metric"):
                op = images.NAMES[int(given["ops"][int(index)][0])]
                kind = f"{kind}: {op}"
            scale = 255 if kind == "crop" else 1
            gap = np.abs(ours[name].astype(np.float64) - want) * scale
            worst[kind] = max(worst.get(kind, 0), gap.max())
            share[kind] = share.get(kind, 0) + (gap > 0.5).mean()
            count[kind] = count.get(kind, 0) + 1
    for kind in sorted(worst):
        what, limit = LIMITS[kind.split(":")[0]]
        report.measure(what + kind.partition(":")[2], worst[kind], limit,
                       "grey levels",
                       f"{100 * share[kind] / count[kind]:.2f} % of values "
                       f"differ; {count[kind]} images")
