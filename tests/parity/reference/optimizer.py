"""AdamW by torch.optim, clipping by torch.nn.utils, the schedule's formula."""

import math

import torch

CONFIG = ["lr", "beta1", "beta2", "eps", "weight_decay", "clip_norm",
          "warmup_steps", "warmup_lr", "min_lr", "total_steps"]


def learning_rate(c, step):
    """Linear warm-up, then a cosine to min_lr at total_steps."""
    if step < c["warmup_steps"]:
        share = step / c["warmup_steps"]
        return c["warmup_lr"] + (c["lr"] - c["warmup_lr"]) * share
    done = min(1.0, (step - c["warmup_steps"]) /
               max(1, c["total_steps"] - c["warmup_steps"]))
    return c["min_lr"] + (c["lr"] - c["min_lr"]) * (
        1 + math.cos(math.pi * done)) / 2


def groups(named, c):
    """One group a parameter: (lr scale, decay) by name and dimension."""
    out = []
    for name, p in named:
        scale = 0.1 if name.startswith("slow.") else 1.0
        decay = c["weight_decay"] if p.dim() > 1 else 0.0
        if name.startswith("fresh."):
            decay = 0.3
        out.append({"params": [p], "lr": c["lr"], "scale": scale,
                    "weight_decay": decay})
    return out


def adamw(named, c):
    return torch.optim.AdamW(groups(named, c), lr=c["lr"], eps=c["eps"],
                             betas=(c["beta1"], c["beta2"]), foreach=False)


def step(optimizer, parameters, c, number):
    """Clips, then one step at the schedule's rate; returns the norm."""
    limit = c["clip_norm"] if c["clip_norm"] > 0 else math.inf
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    lr = learning_rate(c, number)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    optimizer.step()
    return norm, lr


def inputs(seed, dtype, steps=50, scale=1.0, clip=1.0):
    """Parameters of several groups, gradients that grow and go missing."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    out = {"config": torch.tensor(
        [0.01, 0.9, 0.98, 1e-8, 0.05, clip, 10, 0.001, 0.0005, steps - 5],
        dtype=torch.float64)}
    shapes = {"layer.weight": (3, 4), "layer.bias": (4,), "scalar": (),
              "slow.weight": (2, 3), "fresh.bias": (5,), "late.weight": (2, 2)}
    for name, shape in shapes.items():
        out[f"param/{name}"] = randn(*shape).to(dtype)
        sizes = torch.linspace(0.05, 1, steps, dtype=torch.float64).view(
            -1, *[1] * len(shape))
        grad = randn(steps, *shape) * sizes * scale
        if name == "late.weight":
            grad[:7] = math.nan
            grad[20] = math.nan
        out[f"grad/{name}"] = grad.to(dtype)
    return out


def expected(given):
    """What the case `optimizer` must give."""
    c = dict(zip(CONFIG, given["config"].tolist()))
    named = [(k[len("param/"):], torch.nn.Parameter(v.clone()))
             for k, v in given.items() if k.startswith("param/")]
    optimizer = adamw(named, c)
    history = {f"param/{name}": [] for name, _ in named}
    norms, rates = [], []
    for number in range(next(iter(v for k, v in given.items()
                                  if k.startswith("grad/"))).shape[0]):
        for name, p in named:
            grad = given[f"grad/{name}"][number]
            p.grad = None if grad.isnan().any() else grad.clone()
        norm, lr = step(optimizer, [p for _, p in named], c, number)
        norms.append(norm.double())
        rates.append(lr)
        for name, p in named:
            history[f"param/{name}"].append(p.detach().clone())
    out = {k: torch.stack(v) for k, v in history.items()}
    out["norm"] = torch.stack(norms)
    out["lr"] = torch.tensor(rates, dtype=torch.float64)
    return out
