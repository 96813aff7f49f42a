"""Turns ALBEF's checkpoints (.pth) into safetensors, names unchanged.

    python3 tools/convert/albef_to_safetensors.py ALBEF_4M.pth albef_4m.safetensors

Needs Python packages torch and safetensors. A .pth is a pickle, which can hold
programs; torch reads only tensors and plain containers here and refuses the
rest. DeiT's and other .pth files go the same way.
"""

import argparse
import pathlib
import sys

import torch
from safetensors.torch import save_file


def state_dict(loaded):
    """The tensors, wherever training scripts keep them."""
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise ValueError(f"holds {type(loaded).__name__}, expected a dict")
    tensors, others = {}, []
    for name, value in loaded.items():
        if isinstance(value, torch.Tensor):
            # Tied tensors are written twice; the format has no references.
            tensors[name.removeprefix("module.")] = value.contiguous().clone()
        else:
            others.append(name)
    if not tensors:
        raise ValueError(f"holds no tensor; it has {sorted(others)[:10]}")
    return tensors, others


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    args = parser.parse_args()
    try:
        loaded = torch.load(args.source, map_location="cpu", weights_only=True)
        tensors, others = state_dict(loaded)
    except Exception as error:
        sys.exit(f"{args.source}: {error}")
    partial = args.target.with_name(args.target.name + ".part")
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(args.target)
    values = sum(t.numel() for t in tensors.values())
    print(f"{args.target}: {len(tensors)} tensors, {values} values"
          + (f"; left out, no tensors: {', '.join(others)}" if others else ""))


if __name__ == "__main__":
    main()
