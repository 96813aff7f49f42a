"""Makes resnet.safetensors: feature maps of timm's residual networks.

    python make_fixture.py [output]

Weights and images are drawn by a formula that the test repeats (SplitMix64, exact in float32), so that only the results
are kept: timm's networks at full width in a file of some tens of kilobytes. Needs timm 1.0.31, torch 2.11.0, numpy and
safetensors. The file's metadata holds this script's SHA-256, and the test compares it.
"""

import hashlib
import math
import pathlib
import sys

import numpy as np
import timm
import torch
from safetensors.torch import save_file

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix64(x):
    """SplitMix64's finaliser on a uint64 array."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(GOLDEN)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def centred(key, count):
    """Draws of the stream `key`, uniform in [-1/2, 1/2), of 24 bits."""
    with np.errstate(over="ignore"):
        state = np.uint64(key & MASK) + np.uint64(GOLDEN) * np.arange(1, count + 1, dtype=np.uint64)
    return ((mix64(state) >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5).astype(np.float32)


def fill(model):
    """By the parameter's place in the sorted list of names and its kind."""
    state = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    for number, name in enumerate(sorted(state)):
        tensor = state[name]
        values = centred(number, tensor.numel())
        if tensor.dim() == 4:
            fan_in = tensor[0].numel()
            values = values * np.float32(2.0 ** round(math.log2(math.sqrt(24 / fan_in))))
        elif name.endswith("running_var") or name.endswith("weight"):
            values = values + np.float32(1)
        tensor.copy_(torch.from_numpy(values).view(tensor.shape))


@torch.no_grad()
def main():
    output = sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(__file__).with_name("resnet.safetensors"))
    torch.set_num_threads(1)
    tensors = {}
    for name in ["resnet18", "resnet50"]:
        model = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        fill(model)
        images = torch.from_numpy(centred(1000, 2 * 3 * 64 * 64)).view(2, 3, 64, 64) * 4
        # Evaluation, by running averages: one image of the large network.
        tensors[name] = model.eval()(images[: 2 if name == "resnet18" else 1])
        if name == "resnet18":
            # Training, by the batch; 0.1 of it enters the averages.
            tensors[name + ".train"] = model.train()(images)
            for part in ["running_mean", "running_var"]:
                tensors[f"{name}.train.{part}"] = model.state_dict()[f"layer4.1.bn2.{part}"]
    script = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    save_file(
        {name: t.contiguous() for name, t in tensors.items()},
        output,
        metadata={"generator_sha256": script, "made_by": f"timm {timm.__version__}, torch {torch.__version__}"},
    )


main()
