"""Full-size ViT-B/16, DeiT-B and BEiT-B against timm, with timm's random weights."""

import timm
import timm.layers
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import common

VIT = "[type.googleapis.com/semvq.VitConfig] {{ image_size: {size} {more} }}"


def tokens(weights, key_map, pixels, size, antialias=False, more=""):
    """Ours, of weights that timm exported."""
    folder = common.workdir()
    save_file({"pixels": pixels}, folder / "in.safetensors")
    common.call("//tests/parity:encode",
                "--encoder=config { %s }" % VIT.format(size=size, more=more),
                f'--weights=path: "{weights}" key_map: "key_maps/{key_map}" '
                f"antialias: {str(antialias).lower()}",
                "--in=in.safetensors", "--out=out.safetensors")
    return load_file(folder / "out.safetensors")["tokens"]


def plain(table, side):
    """Positions resized as DeiT's and ALBEF's code does it."""
    old = int((table.shape[1] - 1) ** 0.5)
    grid = table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic",
                         align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def random_model(name, **options):
    torch.manual_seed(sum(map(ord, name)))
    model = timm.create_model(name, pretrained=False, **options).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            # timm starts biases, and the class token, at almost 0.
            if p.dim() == 1 or "token" in key:
                p.add_(0.05 * torch.randn_like(p))
    return model


def at_384(name, model, positions):
    state = dict(model.state_dict())
    state["pos_embed"] = positions
    large = timm.create_model(name, pretrained=False, img_size=384,
                              num_classes=model.num_classes).eval()
    large.load_state_dict(state)
    return large


@torch.no_grad()
def run(report):
    torch.manual_seed(6)
    small, large = torch.randn(2, 3, 224, 224), torch.randn(1, 3, 384, 384)
    path = common.workdir() / "timm.safetensors"
    for name in ["vit_base_patch16_224", "deit_base_patch16_224"]:
        model = random_model(name)
        save_file(model.state_dict(), path)
        got = tokens(path, "timm_vit.textproto", small, 224)
        want = model.forward_features(small)
        report.measure(f"{name}: tokens at 224 px",
                       common.difference(got, want), 1e-4,
                       note=f"values up to {want.abs().max():.2f}")
        table = model.pos_embed
        ours = tokens(path, "timm_vit.textproto", large, 224)
        theirs = at_384(name, model, plain(table, 24)).forward_features(large)
        report.measure(f"{name}: 384 px, interpolated in the model",
                       common.difference(ours, theirs), 1e-4,
                       note="bicubic as in DeiT and ALBEF")
        ours = tokens(path, "timm_vit.textproto", large, 384, antialias=True)
        resized = timm.layers.resample_abs_pos_embed(table, (24, 24))
        theirs = at_384(name, model, resized).forward_features(large)
        report.measure(f"{name}: 384 px, interpolated when read",
                       common.difference(ours, theirs), 1e-4,
                       note="as timm, antialiased")

    name = "beit_base_patch16_224"
    model = random_model(name, global_pool="token")
    save_file(model.state_dict(), path)
    got = tokens(path, "timm_beit.textproto", small, 224,
                 more="absolute_positions: false relative_positions: PER_LAYER "
                      "layer_scale: 0.1")
    report.measure(f"{name}: tokens at 224 px",
                   common.difference(got, model.forward_features(small)), 1e-4)
