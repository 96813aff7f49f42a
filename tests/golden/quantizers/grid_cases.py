"""Quantizers without a learned codebook: FSQ, LFQ and BSQ."""

import torch
import vector_quantize_pytorch.lookup_free_quantization as peer_lfq
from vector_quantize_pytorch import FSQ, LFQ

import common

# The peer cuts probabilities off at 1e-5 before it takes their logarithm, which
# changes an entropy in the sixth digit. The formula has no such cut.
peer_lfq.log = lambda t, eps=0: t.clamp(min=1e-300).log()
# The peer computes in float32 whatever it is given.
torch.Tensor.float = torch.Tensor.double


def fsq(levels):
    def make():
        peer = FSQ(levels=levels, force_quantization_f32=False).train()

        def step(x, s):
            vectors, codes = peer(x)
            return vectors, codes, {}, None

        return common.Case(
            config="[type.googleapis.com/semvq.FsqConfig] "
                   f"{{ levels: {levels} }}",
            state={},
            features=1.5 * common.features(1, dim=len(levels)),
            step=step)
    return make


def binary(spherical, gamma, inverse_temperature):
    """LFQ, and BSQ as the peer has it: LFQ on the unit sphere."""
    bits = 5
    name = "Bsq" if spherical else "Lfq"

    def make():
        peer = LFQ(dim=bits, spherical=spherical, diversity_gamma=gamma,
                   entropy_loss_weight=0.1, commitment_loss_weight=0.25,
                   force_quantization_f32=False).train()

        def step(x, s):
            out, parts = peer(x, inv_temperature=inverse_temperature,
                              return_loss_breakdown=True)
            entropy = parts.per_sample_entropy - gamma * parts.batch_entropy
            return (out.quantized, out.indices,
                    {"entropy": entropy, "commitment": parts.commitment},
                    out.entropy_aux_loss)

        return common.Case(
            config=f"[type.googleapis.com/semvq.{name}Config] {{ bits: {bits} "
                   f"inverse_temperature: {inverse_temperature} "
                   f"gamma: {gamma} entropy_bits: {bits} }}",
            state={},
            features=common.features(2, dim=bits),
            step=step,
            weights={"entropy": 0.1, "commitment": 0.25})
    return make


def bsq_bitwise():
    """BSQ from its formula, the batch's entropy bit by bit."""
    bits, zeta, gamma0, gamma, beta, t = 6, 0.1, 0.8, 1.2, 0.25, 2.0

    def h(p):
        return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum(-1)

    def step(x, s):
        u = x / x.norm(dim=-1, keepdim=True)
        q = torch.where(u > 0, 1.0, -1.0) / bits ** 0.5
        vectors = u + (q - u).detach()
        codes = ((u > 0) * 2 ** torch.arange(bits - 1, -1, -1)).sum(-1)
        p = torch.sigmoid(4 * t * u / bits ** 0.5).reshape(-1, bits)
        losses = {"entropy": gamma0 * h(p).mean() - gamma * h(p.mean(0)),
                  "commitment": (u - q).square().mean()}
        return vectors, codes, losses, None

    return common.Case(
        config=f"[type.googleapis.com/semvq.BsqConfig] {{ bits: {bits} "
               f"inverse_temperature: {t} gamma0: {gamma0} gamma: {gamma} "
               f"entropy_bits: 1 }}",
        state={},
        features=common.features(3, dim=bits),
        step=step,
        weights={"entropy": zeta, "commitment": beta})


CASES = {
    "fsq": fsq([8, 5, 5, 5]),
    "fsq_odd": fsq([3, 7, 4]),
    "lfq": binary(False, 1.0, 1.5),
    "lfq_sharp": binary(False, 0.7, 100.0),
    "bsq": binary(True, 1.0, 3.0),
    "bsq_bitwise": bsq_bitwise,
}
