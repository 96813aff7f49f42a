"""What //tools/convert writes loads in transformers and timm, key for key and bit for bit."""

import pathlib
import pickle
import shutil
import subprocess
import sys

import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel

import common
from check_bert import model_folder
from check_vit import random_model


def through_ours(weights, key_map, encoder, fields, inputs):
    """Their weights, read by us, saved under our names, and exported again."""
    folder = common.workdir()
    save_file(inputs, folder / "in.safetensors")
    common.call("//tests/parity:encode",
                "--encoder=config { [type.googleapis.com/semvq."
                f"{encoder}] {{ {fields} }} }}",
                f'--weights=path: "{weights}" key_map: "{key_map}"',
                "--in=in.safetensors", "--out=out.safetensors",
                "--save=ours.safetensors")
    common.call("//tools/convert:convert", "--checkpoint=ours.safetensors",
                "--out=theirs.safetensors",
                f'--part=to: "it." key_map: "{key_map}"')
    return folder / "theirs.safetensors"


def check_timm(report, name):
    model = random_model(name)
    path = common.workdir() / "timm.safetensors"
    save_file(model.state_dict(), path)
    written = through_ours(path, "key_maps/timm_vit.textproto",
                           "VitConfig", "image_size: 224",
                           {"pixels": torch.randn(1, 3, 224, 224)})
    fresh = timm.create_model(name, pretrained=False, num_classes=0)
    loaded = fresh.load_state_dict(load_file(written), strict=False)
    report.require(f"timm {name}: no missing or unexpected key",
                   not loaded.missing_keys and not loaded.unexpected_keys,
                   note=f"{len(fresh.state_dict())} tensors, num_classes=0")
    want = model.state_dict()
    report.require(f"timm {name}: the same bits", all(
        torch.equal(value, want[key])
        for key, value in fresh.state_dict().items()))


def check_transformers(report):
    source = model_folder()
    inputs = {"ids": torch.zeros(1, 4, dtype=torch.long),
              "mask": torch.ones(1, 4, dtype=torch.bool)}
    written = through_ours(
        source / "model.safetensors", "key_maps/hf_bert.textproto",
        "BertTextConfig", "dim: 384 layers: 6 heads: 12 vocab_size: 30522",
        inputs)
    folder = common.workdir() / "exported_bert"
    folder.mkdir()
    shutil.copy(written, folder / "model.safetensors")
    shutil.copy(source / "config.json", folder)
    bert, loading = BertModel.from_pretrained(
        folder, add_pooling_layer=False, output_loading_info=True)
    report.require("transformers BertModel: no missing or unexpected key",
                   not any(loading.values()),
                   note=f"{len(bert.state_dict())} tensors, no pooler")
    want = load_file(source / "model.safetensors")
    report.require("transformers BertModel: the same bits", all(
        torch.equal(value, want[key])
        for key, value in bert.state_dict().items()))


def check_albef_script(report):
    """A checkpoint in ALBEF's layout: nested, tied, with objects beside."""
    folder = common.workdir()
    bert = BertForMaskedLM(BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=16))
    model = {f"text_encoder.{k}": v for k, v in bert.state_dict().items()}
    model["temp"] = torch.tensor(0.07)
    torch.save({"model": model, "config": {"lr": 1e-4}, "epoch": 29},
               folder / "albef.pth")
    script = common.ROOT / "tools/convert/albef_to_safetensors.py"
    subprocess.run([sys.executable, script, folder / "albef.pth",
                    folder / "albef.safetensors"], check=True,
                   stdout=subprocess.DEVNULL)
    got = load_file(folder / "albef.safetensors")
    report.require("albef_to_safetensors.py: every tensor, the same bits",
                   got.keys() == model.keys()
                   and all(torch.equal(got[k], model[k]) for k in got))
    # A pickle may name any function to call; torch must not call this one.
    (folder / "hostile.pth").write_bytes(pickle.dumps(Hostile()))
    refused = subprocess.run([sys.executable, script, folder / "hostile.pth",
                              folder / "hostile.safetensors"],
                             capture_output=True)
    report.require("albef_to_safetensors.py: runs nothing that a file names",
                   refused.returncode != 0
                   and not (folder / "was_here").exists())


class Hostile:
    def __reduce__(self):
        return (pathlib.Path.touch, (common.workdir() / "was_here",))


@torch.no_grad()
def run(report):
    for name in ["vit_base_patch16_224", "deit_base_patch16_224"]:
        check_timm(report, name)
    check_transformers(report)
    check_albef_script(report)
