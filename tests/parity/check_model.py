"""A whole small model, with teacher, queues and codebook, against the same model
in PyTorch: one step's losses and gradients in float64, also with the
alternatives that the configs offer, and twenty steps of the trainer in float32. Masks, negatives and codes are given to the peer; in float64
it finds the same codes by itself."""

import torch

from check_losses import run_case
from common import difference
from reference import model


def relative(ours, want):
    return difference(ours, want) / max(1.0, want.abs().max().item())


def check_step(report, alternatives):
    worst, codes = {"losses": 0.0, "gradients": 0.0}, 0
    name = "alternatives" if alternatives else "one step"
    for seed in (100, 200, 300):
        given = model.inputs_step(seed, alternatives)
        ours = run_case("model_step", given)
        theirs = model.expected_step(given, ours)
        report.require(f"{name}, seed {seed}: the same outputs", set(
            k for k in ours if not k.startswith("choice/")) == set(theirs))
        for key, want in theirs.items():
            if key.endswith("codes"):
                codes += (ours[key] != want).sum().item()
            else:
                kind = "gradients" if key.startswith("grad/") else "losses"
                worst[kind] = max(worst[kind], relative(ours[key], want))
    for kind, gap in worst.items():
        report.measure(f"{name}, float64: {kind}", gap, 1e-5,
                       "max difference / max(1, |value|)",
                       "every parameter, 3 draws of weights and batch"
                       if kind == "gradients" else "six losses and the total")
    report.measure(f"{name}, float64: codes", codes, 0, "codes that differ")


def check_curve(report):
    given = model.inputs_curve(400)
    ours = run_case("model_curve", given)
    theirs, same = model.expected_curve(given, ours)
    worst, start, end = 0.0, theirs["0/loss"], theirs["19/loss"]
    for key, want in theirs.items():
        if key.startswith("param/"):
            continue
        worst = max(worst, relative(ours[key].reshape(()), want.float()))
    report.measure("twenty steps, float32: losses, norms, rates", worst, 1e-3,
                   "max difference / max(1, |value|)",
                   f"loss {start:.3f} to {end:.3f}")
    report.measure("twenty steps: codes the peer would choose otherwise",
                   1 - same, 0.01, "share")
    report.require("twenty steps: the loss falls", bool(end < start))


def run(report):
    torch.set_num_threads(1)
    check_step(report, alternatives=False)
    check_step(report, alternatives=True)
    check_curve(report)
