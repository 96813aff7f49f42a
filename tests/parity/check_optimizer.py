"""AdamW with decay groups, clipping and schedule against torch.optim, 50 steps.
"""

import torch

from check_losses import run_case
from common import difference
from reference import optimizer


def run(report):
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        worst = {}
        for seed, (scale, clip) in enumerate([(1, 1.0), (10, 0.5), (0.01, 1.0),
                                              (1, 0.0)]):
            given = optimizer.inputs(seed, dtype, scale=scale, clip=clip)
            ours, theirs = run_case("optimizer", given), optimizer.expected(given)
            report.require(f"{dtype}, clip {clip}: the same outputs",
                           set(ours) == set(theirs))
            for key, want in theirs.items():
                kind = key.split("/")[0]
                gap = difference(ours[key], want) / max(
                    1.0, want.abs().max().item())
                worst[kind] = max(worst.get(kind, 0), gap)
        name = str(dtype).removeprefix("torch.")
        for kind, what in (("param", "parameters over 50 steps"),
                           ("norm", "gradient norms before clipping"),
                           ("lr", "learning rates")):
            report.measure(f"{name}: {what}", worst[kind],
                           1e-12 if kind == "lr" else limit,
                           "max difference / max(1, |value|)",
                           "groups, missing gradients, 4 settings")
