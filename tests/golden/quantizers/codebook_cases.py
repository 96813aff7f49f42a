"""Quantizers with a learned codebook.

vq, vq_ema and simvq against vector-quantize-pytorch; norm_ema, soho, ibq,
gumbel and the entropies against the formulas of their papers, written here in
plain PyTorch.
"""

import math

import torch
import torch.nn.functional as F

from common import Case, draw, features

# The peer computes in float32 on principle; parity is in float64.
torch.Tensor.float = torch.Tensor.double

from vector_quantize_pytorch import SimVQ, VectorQuantize  # noqa: E402

K, D = 16, 4


def config(message, text):
    return f"[type.googleapis.com/semvq.{message}] {{ {text} }}"


def straight_through(x, q):
    return x + (q - x).detach()


def nearest(x, e):
    return torch.cdist(x, e, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)


def mse(a, b):
    return (a - b).square().mean()


def peer(seed, **options):
    quantizer = VectorQuantize(dim=D, codebook_size=K, threshold_ema_dead_code=0,
                               commitment_weight=1.0, **options).double()
    codes = draw(seed, K, D)
    if options.get("use_cosine_sim"):
        codes = F.normalize(codes, dim=-1)
    quantizer._codebook.embed.data.copy_(codes[None])
    quantizer._codebook.embed_avg.data.copy_(codes[None])
    quantizer._codebook.cluster_size.data.fill_(1)
    return quantizer.train()


def vq(rotation):
    quantizer = peer(1, ema_update=False, learnable_codebook=True,
                     rotation_trick=rotation, orthogonal_reg_weight=0.3)
    embed = quantizer._codebook.embed

    def step(x, _):
        vectors, codes, total, parts = quantizer(x, return_loss_breakdown=True)
        # The peer's one loss has the value of each of ours, and the gradients
        # of both.
        losses = {"codebook": parts.commitment, "commitment": parts.commitment,
                  "orthogonality": parts.orthogonal_reg}
        return vectors, codes, losses, total + parts.commitment.detach()

    return Case(
        config("VqConfig", f"num_codes: {K} codebook {{ orthogonality_loss: true revive_after: 0 "
               + ("estimator: ROTATION " if rotation else "") + "}"),
        {"codebook": embed[0]}, features(2), step, [embed],
        lambda: {"codebook": embed[0]}, {"orthogonality": 0.3})


def vq_ema(cosine, rotation):
    quantizer = peer(3, decay=0.8, eps=1e-3, use_cosine_sim=cosine,
                     rotation_trick=rotation)
    book = quantizer._codebook

    def state():
        return {"codebook": book.embed[0], "ema_count": book.cluster_size[0],
                "ema_sum": book.embed_avg[0]}

    def step(x, _):
        vectors, codes, total = quantizer(x)
        return vectors, codes, {"commitment": total}, total

    return Case(
        config("VqEmaConfig", f"num_codes: {K} decay: 0.8 epsilon: 1e-3 decay_warmup: false codebook {{ revive_after: 0 "
               + ("metric: COSINE " if cosine else "")
               + ("estimator: ROTATION " if rotation else "") + "}"),
        state(), features(4), step, [], state)


def simvq(rotation):
    quantizer = SimVQ(dim=D, codebook_size=K, rotation_trick=rotation).double()
    quantizer.frozen_codebook.data.copy_(draw(5, K, D) / 2)
    weight = quantizer.code_transform.weight
    weight.data.copy_(draw(6, D, D) / 2)

    def step(x, _):
        vectors, codes, total = quantizer(x)
        return vectors, codes, {}, total

    return Case(
        config("SimVqConfig", f"num_codes: {K}"
               + (" codebook { estimator: ROTATION }" if rotation else "")),
        {"frozen": quantizer.frozen_codebook, "transform": weight},
        features(7), step, [weight], lambda: {"transform": weight},
        {"commitment": 0.25})


def norm_ema():
    e = F.normalize(draw(8, K, D), dim=-1)

    def step(x, _):
        z = F.normalize(x, dim=-1)
        codes = (z @ e.t()).argmax(-1)
        q = e[codes].clone()
        onehot = F.one_hot(codes, K).double().reshape(-1, K)
        bins = onehot.sum(0)
        mean = (onehot.t() @ z.detach().reshape(-1, D)) / bins.clamp_min(1)[:, None]
        target = torch.where(bins[:, None] > 0, F.normalize(mean, dim=-1), e)
        e.copy_(F.normalize(0.9 * e + 0.1 * target, dim=-1))
        return straight_through(z, q), codes, {"commitment": mse(q, z)}, None

    return Case(
        config("NormEmaConfig", f"num_codes: {K} decay: 0.9 decay_warmup: false codebook {{ revive_after: 0 }}"),
        {"codebook": e}, features(9), step, [], lambda: {"codebook": e})


def soho():
    e = draw(10, K, D)
    count, total = torch.ones(K), e.clone()

    def step(x, _):
        codes = nearest(x.detach(), e)
        onehot = F.one_hot(codes, K).double().reshape(-1, K)
        count.mul_(0.4).add_(0.6 * onehot.sum(0))
        total.mul_(0.4).add_(0.6 * onehot.t() @ x.detach().reshape(-1, D))
        n = count.sum()
        e.copy_(total / ((count + 1e-5) / (n + K * 1e-5) * n)[:, None])
        return straight_through(x, e[codes]), codes, {}, torch.zeros(())

    def state():
        return {"codebook": e, "ema_count": count, "ema_sum": total}

    return Case(config("SohoConfig", f"num_codes: {K} codebook {{ revive_after: 0 }}"),
                state(), features(11), step, [], state)


def entropies(logits):
    """E[H(p)] and -H(E[p])."""
    p = logits.reshape(-1, logits.shape[-1]).softmax(-1)
    mean = p.mean(0)
    return -(p * p.log()).sum(-1).mean(), (mean * mean.log()).sum()


def ibq():
    e = draw(12, K, D).requires_grad_()

    def step(x, _):
        logits = torch.einsum("bnd,kd->bnk", x, e)
        p = logits.softmax(-1)
        codes = p.argmax(-1)
        hard = F.one_hot(codes, K).double()
        q = (hard - p.detach() + p) @ e
        h = hard @ e
        entropy, diversity = entropies(logits / 0.5)
        return q, codes, {
            "quantization": mse(q, x), "commitment": mse(h.detach(), x),
            "codebook": mse(h, x.detach()), "entropy": entropy,
            "diversity": diversity}, None

    return Case(
        config("IbqConfig", f"num_codes: {K} codebook {{ entropy_loss: true diversity_loss: true "
               "soft_temperature: 0.5 revive_after: 0 }"),
        {"codebook": e}, features(13), step, [e], lambda: {"codebook": e},
        {"codebook": 0.25, "entropy": 0.05, "diversity": 0.05})


def vq_entropies(cosine):
    e = draw(14, K, D).requires_grad_()

    def step(x, _):
        z, c = (F.normalize(x, dim=-1), F.normalize(e, dim=-1)) if cosine else (x, e)
        squared = (z[:, :, None] - c).square().sum(-1)
        codes = squared.argmin(-1)
        q = c[codes]
        similarity = z @ c.t() if cosine else -squared
        entropy, diversity = entropies(similarity / 0.7)
        return straight_through(z, q.detach()), codes, {
            "codebook": mse(q, z.detach()), "commitment": mse(q.detach(), z),
            "entropy": entropy, "diversity": diversity}, None

    return Case(
        config("VqConfig", f"num_codes: {K} codebook {{ entropy_loss: true diversity_loss: true "
               "soft_temperature: 0.7 revive_after: 0 " + ("metric: COSINE " if cosine else "") + "}"),
        {"codebook": e}, features(15), step, [e], lambda: {"codebook": e},
        {"commitment": 0.25, "entropy": 0.1, "diversity": 0.1})


MASK = 2**64 - 1


def mix64(x):
    """SplitMix64's finaliser, as core/random/stream.h has it."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def keyed_gumbel(seed, purpose, rows, columns):
    """Noise [rows, columns], as core/random/keyed.h describes it."""
    base = mix64(seed)
    for c in purpose.encode():
        base = mix64(base ^ c)
    base = mix64(mix64(base ^ mix64(0)) ^ mix64(MASK))
    uniform = [[((mix64(mix64(base ^ row) ^ column) >> 12) + 0.5) / 2**52
                for column in range(columns)] for row in rows]
    return -(-torch.tensor(uniform).log()).log()


def cosine(start, end, steps, s):
    return end if s >= steps else end + (start - end) * (1 + math.cos(math.pi * s / steps)) / 2


def gumbel(hard):
    batch, tokens = 2, 8
    keys = [11, 2**40 + 7]
    w, b = draw(16, K, D).requires_grad_(), draw(17, K).requires_grad_()
    e = draw(18, K, D).requires_grad_()
    noise = keyed_gumbel(3, "subject/gumbel", keys, tokens * K).reshape(batch, tokens, K)

    def step(x, s):
        logits = x @ w.t() + b
        y = ((logits + noise) / cosine(1, 0.5, 10, s)).softmax(-1)
        codes = (logits + noise).argmax(-1)
        onehot = F.one_hot(codes, K).double()
        vectors = (onehot - y.detach() + y) @ e.detach() + onehot @ (e - e.detach()) if hard else y @ e
        q = logits.softmax(-1)
        kl = (q * (q.log() + math.log(K))).sum(-1).mean() * cosine(0, 0.4, 5, s)
        return vectors, codes, {"kl": kl}, None

    return Case(
        config("GumbelConfig", f"num_codes: {K} straight_through: {str(hard).lower()} "
               "temperature_end: 0.5 temperature_steps: 10 "
               "kl_weight_start: 0 kl_weight: 0.4 kl_weight_steps: 5"),
        {"logits.weight": w, "logits.bias": b, "codebook": e}, features(19),
        step, [w, b, e],
        lambda: {"logits.weight": w, "logits.bias": b, "codebook": e},
        lr=0.1, seed=3, draw_keys=torch.tensor(keys))


CASES = {
    "vq": lambda: vq(False),
    "vq_rotation": lambda: vq(True),
    "vq_ema": lambda: vq_ema(False, False),
    "vq_ema_cosine": lambda: vq_ema(True, False),
    "vq_ema_rotation": lambda: vq_ema(False, True),
    "vq_entropies": lambda: vq_entropies(False),
    "vq_entropies_cosine": lambda: vq_entropies(True),
    "norm_ema": norm_ema,
    "soho": soho,
    "simvq": lambda: simvq(False),
    "simvq_rotation": lambda: simvq(True),
    "ibq": ibq,
    "gumbel": lambda: gumbel(True),
    "gumbel_relaxed": lambda: gumbel(False),
}
