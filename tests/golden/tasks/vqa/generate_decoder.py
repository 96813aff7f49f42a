#!/usr/bin/env python3
"""A small decoder of transformers' BERT, and how it ranks answers.

Run by hand; needs torch, transformers==5.23.0 and safetensors==0.8.0:
    python3 tests/golden/tasks/vqa/generate_decoder.py
Writes decoder.safetensors beside itself, in float64: the parameters under our
names, the tokens of three questions with their mask, the texts and their logits,
and the scores of seven answers, ranked as ALBEF's rank_answer does: by the
likelihood of the first token, then by log-likelihood, in which the first token
counts twice. Ids: 0 [PAD], 2 [CLS], 3 [SEP], words from 5 on.
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertLMHeadModel

WORDS = ["on", "table", "red", "two", "dogs", "cat", "unused"]
ANSWERS = ["on table", "red", "on", "two dogs", "on red table", "dogs", "cat"]
RANKED = 4


def build():
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=8, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=10, max_position_embeddings=6,
        type_vocab_size=2, is_decoder=True, add_cross_attention=True,
        tie_word_embeddings=False, attn_implementation="eager")
    model = BertLMHeadModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def our_names(model):
    state = model.state_dict()
    out = {}
    for name in ("word_embeddings", "position_embeddings",
                 "token_type_embeddings"):
        out[f"embeddings.{name}.weight"] = state[f"bert.embeddings.{name}.weight"]
    for kind in ("weight", "bias"):
        out[f"embeddings.LayerNorm.{kind}"] = state[
            f"bert.embeddings.LayerNorm.{kind}"]
        head = "cls.predictions."
        out[f"head.dense.{kind}"] = state[f"{head}transform.dense.{kind}"]
        out[f"head.norm.{kind}"] = state[f"{head}transform.LayerNorm.{kind}"]
        out[f"head.decoder.{kind}"] = state[f"{head}decoder.{kind}"]
        for i in range(model.config.num_hidden_layers):
            get = lambda name: state[f"bert.encoder.layer.{i}.{name}.{kind}"]
            put = lambda name, value: out.__setitem__(
                f"layer.{i}.{name}.{kind}", value)
            put("attn.qkv", torch.cat([get(f"attention.self.{x}")
                                       for x in ("query", "key", "value")]))
            put("attn.proj", get("attention.output.dense"))
            put("norm1", get("attention.output.LayerNorm"))
            put("cross_attn.q", get("crossattention.self.query"))
            put("cross_attn.kv", torch.cat([get(f"crossattention.self.{x}")
                                            for x in ("key", "value")]))
            put("cross_attn.proj", get("crossattention.output.dense"))
            put("norm_cross", get("crossattention.output.LayerNorm"))
            put("mlp.fc1", get("intermediate.dense"))
            put("mlp.fc2", get("output.dense"))
            put("norm2", get("output.LayerNorm"))
    return {name: value.clone().contiguous() for name, value in out.items()}


def main():
    torch.manual_seed(6)
    model = build()
    tokens = torch.randn(3, 4, 8, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])

    def logits(ids, rows):
        with torch.no_grad():
            return model(input_ids=ids, encoder_hidden_states=tokens[rows],
                         encoder_attention_mask=mask[rows]).logits

    ids = torch.tensor([[2, 5, 6, 3, 0], [2, 9, 3, 0, 0], [2, 8, 9, 10, 3]])
    out = our_names(model)
    out.update(tokens=tokens, mask=mask, ids=ids, logits=logits(ids, [0, 1, 2]))

    answers = [[WORDS.index(w) + 5 for w in a.split()] + [3] for a in ANSWERS]
    scores = torch.full((3, len(ANSWERS)), -torch.inf, dtype=torch.float64)
    for question in range(3):
        start = logits(torch.tensor([[2]]), [question])[0, 0].log_softmax(-1)
        first = start[[a[0] for a in answers]]
        order = sorted(range(len(answers)), key=lambda a: (-first[a].item(), a))
        for a in order[:RANKED]:
            log_p = logits(torch.tensor([[2] + answers[a][:-1]]),
                           [question])[0].log_softmax(-1)
            total = sum(log_p[i, t] for i, t in enumerate(answers[a]))
            scores[question, a] = first[a] + total
    out["scores"] = scores
    path = pathlib.Path(__file__).with_name("decoder.safetensors")
    save_file(out, str(path))
    print(path.stat().st_size, "bytes;", scores)


if __name__ == "__main__":
    main()
