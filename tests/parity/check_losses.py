"""ITC, ITM and MLM, with teacher, queues and soft targets, against the formulas
in PyTorch: values, gradients and queues, float64."""

import torch
from safetensors.torch import load_file, save_file

from common import call, difference, workdir
from reference import losses

CASES = {
    "itc": [dict(), dict(alpha=0.0), dict(alpha=1.0, ramp=0),
            dict(batch=7, texts_per_image=1, queue=5, steps=4),
            dict(batch=5, texts_per_image=3, dims=(16, 8, 8), queue=64, steps=5),
            dict(temperature=0.8), dict(temperature=0.02)],
    "itm": [dict(), dict(batch=9, dim=16, length=5)],
    "mlm": [dict(), dict(alpha=0.0), dict(alpha=1.0, ramp=0),
            dict(texts=9, length=12, dim=24, vocab=70, masked=5, step=50)],
}


def run_case(name, given):
    source, target = workdir() / "in.st", workdir() / "out.st"
    save_file(given, source)
    call("//tests/golden:golden_dump", name, source, target)
    return load_file(target)


def run(report):
    for name, cases in CASES.items():
        worst = {}
        for seed, options in enumerate(cases):
            given = getattr(losses, f"inputs_{name}")(seed, **options)
            ours = run_case(name, given)
            theirs = getattr(losses, f"expected_{name}")(given)
            report.require(f"{name} {options or ''}: the same outputs",
                           set(ours) == set(theirs))
            for key, want in theirs.items():
                kind = ("gradients" if "grad/" in key else
                        "queues" if "queue" in key else
                        "temperature after the step" if "temperature" in key
                        else "losses")
                gap = difference(ours[key], want) / max(
                    1.0, want.abs().max().item())
                worst[kind] = max(worst.get(kind, 0), gap)
        for kind, gap in sorted(worst.items()):
            report.measure(f"{name}: {kind}", gap, 1e-10,
                           "max difference / max(1, |value|)",
                           f"{len(cases)} settings")
