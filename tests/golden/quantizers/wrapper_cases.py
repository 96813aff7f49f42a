"""Quantizers around quantizers: residual, and product over residual."""

import torch
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ

import common

# The peer computes in float32 whatever it is given.
torch.Tensor.float = torch.Tensor.double

CODES, DECAY = 7, 0.9


def peer_options(rotation):
    return dict(codebook_size=CODES, decay=DECAY, rotation_trick=rotation,
                threshold_ema_dead_code=0, commitment_weight=1.0)


def inner(rotation):
    estimator = "ROTATION" if rotation else "STRAIGHT_THROUGH"
    return ("quantizer { [type.googleapis.com/semvq.VqEmaConfig] { "
            f"num_codes: {CODES} decay: {DECAY} decay_warmup: false codebook {{ init: RANDOM "
            f"revive_after: 0 reservoir: 8 estimator: {estimator} }} }} }}")


def states(residual, prefix):
    """A residual peer's codebooks by SemVQ's names."""
    out = {}
    for i, layer in enumerate(residual.layers):
        book = layer._codebook
        out[f"{prefix}levels.{i}.codebook"] = book.embed[0]
        out[f"{prefix}levels.{i}.ema_count"] = book.cluster_size[0]
        out[f"{prefix}levels.{i}.ema_sum"] = book.embed_avg[0]
    return out


def spread(residual, seed):
    """Codes that features of length about 1 fall on, others at each level."""
    for i, layer in enumerate(residual.layers):
        book = layer._codebook
        book.embed.copy_(common.draw(seed + i, *book.embed.shape) * 0.6 ** i)
        book.embed_avg.copy_(book.embed)


def residual(levels, rotation):
    def make():
        dim = 4
        peer = ResidualVQ(dim=dim, num_quantizers=levels,
                          **peer_options(rotation)).train()
        spread(peer, 10)

        def step(x, s):
            vectors, codes, losses = peer(x)
            return vectors, codes, {"commitment": losses.mean()}, None

        return common.Case(
            config="[type.googleapis.com/semvq.ResidualConfig] { "
                   f"levels: {levels} {inner(rotation)} }}",
            state=states(peer, ""),
            features=common.features(4, dim=dim),
            step=step,
            after=lambda: states(peer, ""),
            weights={"commitment": 0.25})
    return make


def grouped(groups, levels):
    def make():
        dim = 6
        peer = GroupedResidualVQ(dim=dim, groups=groups, num_quantizers=levels,
                                 **peer_options(False)).train()
        for g, rvq in enumerate(peer.rvqs):
            spread(rvq, 20 + 5 * g)

        def after():
            out = {}
            for g, rvq in enumerate(peer.rvqs):
                out.update(states(rvq, f"groups.{g}."))
            return out

        def step(x, s):
            vectors, codes, losses = peer(x)
            return (vectors, codes.permute(1, 2, 0, 3).flatten(2),
                    {"commitment": losses.mean()}, None)

        return common.Case(
            config="[type.googleapis.com/semvq.ProductConfig] { "
                   f"groups: {groups} quantizer {{ "
                   "[type.googleapis.com/semvq.ResidualConfig] { "
                   f"levels: {levels} {inner(False)} }} }} }}",
            state=after(),
            features=common.features(5, dim=dim),
            step=step,
            after=after,
            weights={"commitment": 0.25})
    return make


CASES = {
    "residual_vq_ema": residual(3, False),
    "residual_rotation": residual(2, True),
    "product_residual_vq_ema": grouped(2, 2),
}
