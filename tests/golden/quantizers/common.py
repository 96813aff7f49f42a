"""What the fixtures of this folder hold, and how a peer makes one.

A fixture is S training steps of one quantizer, in float64:

  metadata   `case`: lines "key: value" of
             config   the quantizer's config, as text of a google.protobuf.Any
             dim      D
             seed     QuantizeContext::seed
             lr       after every step, parameters move by -lr * gradient
             weights  of the losses in what is differentiated: "commitment 0.25"
                      (1 where not listed)
  state/<name>        the quantizer's parameters and buffers before the first
                      step, by SemVQ's names; others keep their start
  in/features         [S, B, N, D]
  in/upstream         [B, N, D]: what is differentiated is the weighted losses
                      plus the sum of vectors * upstream
  in/draw_keys        int64 [B], optional
  out/vectors, out/gradient [S, B, N, D] (gradient to the features),
  out/codes [S, B, N, G], out/loss/<name> [S], out/total [S] (the weighted
  losses), out/state/<name> [S, ...] after each step

A module <something>_cases.py defines CASES: name -> function without arguments
that returns a Case. generate.py finds it.
"""

import dataclasses
import typing

import torch

torch.set_default_dtype(torch.float64)


@dataclasses.dataclass
class Case:
    config: str
    state: dict
    features: torch.Tensor
    # step(x, s) -> (vectors, codes or None, losses, total or None); losses by
    # name, total their weighted sum. Updates that come before AfterStep of
    # the step, such as moving averages, may happen in it.
    step: typing.Callable
    # Parameters that the gradient moves.
    parameters: list = dataclasses.field(default_factory=list)
    # state() -> tensors by SemVQ's names.
    after: typing.Callable = dict
    weights: dict = dataclasses.field(default_factory=dict)
    lr: float = 0.5
    seed: int = 1
    draw_keys: torch.Tensor = None


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features(seed, steps=20, batch=2, tokens=8, dim=4, drift=0.05):
    """Features whose mean drifts, so that codes have to follow."""
    x = draw(seed, steps, batch, tokens, dim)
    return x + drift * torch.arange(steps)[:, None, None, None]


def make(case):
    """The tensors and the metadata of a fixture."""
    upstream = draw(99, *case.features.shape[1:]) / case.features[0].numel()
    tensors = {f"state/{k}": v.detach().clone() for k, v in case.state.items()}
    tensors["in/features"], tensors["in/upstream"] = case.features, upstream
    if case.draw_keys is not None:
        tensors["in/draw_keys"] = case.draw_keys
    outs = {}

    def keep(name, value):
        outs.setdefault(f"out/{name}", []).append(
            torch.as_tensor(value).detach().clone())

    for s, rows in enumerate(case.features):
        x = rows.clone().requires_grad_()
        vectors, codes, losses, total = case.step(x, s)
        for name, value in losses.items():
            keep(f"loss/{name}", value)
        if total is None:
            total = sum(case.weights.get(k, 1) * v for k, v in losses.items())
        keep("total", total)
        keep("vectors", vectors)
        if codes is not None:
            keep("codes", codes.reshape(*rows.shape[:2], -1))
        for p in case.parameters:
            p.grad = None
        (total + (vectors * upstream).sum()).backward()
        keep("gradient", x.grad)
        with torch.no_grad():
            for p in case.parameters:
                if p.grad is not None:
                    p -= case.lr * p.grad
        for name, value in case.after().items():
            keep(f"state/{name}", value)
    tensors.update({k: torch.stack(v) for k, v in outs.items()})
    about = {
        "config": case.config,
        "dim": str(case.features.shape[-1]),
        "seed": str(case.seed),
        "lr": repr(case.lr),
        "weights": ",".join(f"{k} {v}" for k, v in case.weights.items()),
    }
    # One entry: safetensors would write several in any order.
    metadata = {"case": "".join(f"{k}: {v}\n" for k, v in about.items())}
    return {k: v.contiguous() for k, v in tensors.items()}, metadata
