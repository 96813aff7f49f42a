"""Writes the fixtures of this folder, from the peers themselves.

    $(tests/parity/run.sh --install-only) tests/golden/encoders/generate.py

Each file holds a small model's random weights under the peer's names
(weights.*), inputs (in.*) and the peer's results (out.*). `manifest` then
lists the peers' versions and the SHA-256 of this script and of each fixture.
tests/parity/check_golden_encoders.py makes them anew and compares.
"""

import hashlib
import pathlib
import sys

import timm
import timm.layers
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers.models.bert.modeling_bert import BertModel

HERE = pathlib.Path(__file__).resolve().parent
VERSIONS = (f"# torch=={torch.__version__.split('+')[0]} "
            f"timm=={timm.__version__} "
            f"transformers=={transformers.__version__}")


def spread(model, seed):
    """Random weights under which every part of a model shows in its result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.state_dict().items()):
            if not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() >= 2 and "table" not in name:
                p.copy_(noise * 0.5 / p[0].numel() ** 0.5
                        if "embed" not in name else noise * 0.5)
            else:
                p.copy_(0.3 * noise)
    return model.eval()


def draw(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(model):
    return {f"weights.{k}": v for k, v in model.state_dict().items()}


def vit(cls, size, state=None, **options):
    model = cls(img_size=size, patch_size=8, embed_dim=24, depth=2,
                num_heads=3, num_classes=0, **options)
    if state is not None:
        model.load_state_dict(state)
    return model.eval()


def resized(table, antialias, sides=(4, 6)):
    """ViT's positions: as timm resizes them, or as DeiT and ALBEF do."""
    side = sides[1]
    if antialias:
        return timm.layers.resample_abs_pos_embed(table, (side, side))
    grid = table[:, 1:].reshape(1, sides[0], sides[0], -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic",
                         align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def make_vit():
    """ViT and DeiT: one architecture. 32 px, and 48 px interpolated."""
    cls = timm.models.vision_transformer.VisionTransformer
    # Pooling by the class token; the final norm is then over all tokens.
    options = {"global_pool": "token", "class_token": True}
    small = spread(vit(cls, 32, **options), 1)
    out = {"in.pixels": draw((2, 3, 32, 32), 2),
           "in.pixels_48": draw((1, 3, 48, 48), 3), **weights(small)}
    out["out.tokens"] = small.forward_features(out["in.pixels"])
    for name, antialias in [("plain", False), ("antialias", True)]:
        state = small.state_dict()
        state["pos_embed"] = resized(state["pos_embed"], antialias)
        large = vit(cls, 48, state, **options)
        out[f"out.tokens_48_{name}"] = large.forward_features(
            out["in.pixels_48"])
    return out


def make_beit(shared):
    cls = timm.models.beit.Beit
    options = {"use_abs_pos_emb": False, "use_rel_pos_bias": not shared,
               "use_shared_rel_pos_bias": shared, "init_values": 0.1,
               "qkv_bias": True, "global_pool": "token"}
    small = spread(vit(cls, 32, **options), 4)
    out = {"in.pixels": draw((2, 3, 32, 32), 5),
           "in.pixels_48": draw((1, 3, 48, 48), 6), **weights(small)}
    out["out.tokens"] = small.forward_features(out["in.pixels"])
    state = small.state_dict()
    # timm also knows BEiT's geometric interpolation; this is its plain one.
    for key in [k for k in state if k.endswith("_bias_table")]:
        shape = ((2 * 6 - 1) ** 2 + 3, state[key].shape[1])
        state[key] = timm.layers.resize_rel_pos_bias_table_simple(
            state[key], (6, 6), shape)
    large = vit(cls, 48, state, **options)
    out["out.tokens_48"] = large.forward_features(out["in.pixels_48"])
    return out


def additive(mask):
    """bool [B, K] to what is added to scores [B, 1, 1, K]."""
    zero = torch.zeros(mask.shape)
    return zero.masked_fill(~mask, float("-inf"))[:, None, None]


def make_bert():
    """Four layers; 0 and 1 are the text's, 2 and 3 the fusion's."""
    sizes = dict(vocab_size=50, hidden_size=24, num_hidden_layers=4,
                 num_attention_heads=3, intermediate_size=40,
                 max_position_embeddings=16, attn_implementation="eager")
    # A "decoder" only because transformers ties cross-attention to that; its
    # layers are called with masks of their own, so nothing is causal.
    model = spread(BertModel(transformers.BertConfig(
        is_decoder=True, add_cross_attention=True, use_cache=False, **sizes)),
        7)
    plain = BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.eval()
    generator = torch.Generator().manual_seed(8)
    ids = torch.randint(0, 50, (3, 9), generator=generator)
    mask = torch.arange(9)[None] < torch.tensor([[9], [4], [7]])
    visual = draw((3, 5, 24), 9)
    seen = torch.arange(5)[None] < torch.tensor([[5], [3], [5]])
    out = {"in.ids": ids, "in.mask": mask, "in.visual": visual,
           "in.visual_mask": seen, **weights(model)}
    hidden = plain(input_ids=ids, attention_mask=mask.long(),
                   output_hidden_states=True).hidden_states
    out["out.layer_2"], out["out.layer_4"] = hidden[2], hidden[4]
    fused = hidden[2]
    for layer in model.encoder.layer[2:]:
        fused = layer(fused, additive(mask), visual,
                      encoder_attention_mask=additive(seen))
    out["out.fused"] = fused
    return out


FIXTURES = {
    "vit.safetensors": make_vit,
    "beit_per_layer.safetensors": lambda: make_beit(False),
    "beit_shared.safetensors": lambda: make_beit(True),
    "bert.safetensors": make_bert,
}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@torch.no_grad()
def write(folder):
    for name, make in FIXTURES.items():
        tensors = {k: v.detach().contiguous().clone()
                   for k, v in make().items()}
        save_file(tensors, folder / name)


def main():
    write(HERE)
    lines = [VERSIONS]
    for name in ["generate.py", *FIXTURES]:
        lines.append(f"{sha256(HERE / name)}  {name}")
    (HERE / "manifest").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
