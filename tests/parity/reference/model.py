"""The small model of tests/golden/model_case.cc, in PyTorch.

Written from the papers: pre-norm ViT, post-norm BERT, cross-attention fusion
(ALBEF), VQ with exponential moving averages and straight-through gradients
(VQ-VAE), ITC, ITM, MLM, MIM, text-conditioned reconstruction, momentum teacher.
Random choices (masks, negatives) and codes are inputs.
"""

import torch
import torch.nn.functional as F

from reference import losses, optimizer

SIDE, PATCH, GRID, DIM, HEADS, DEPTH = 16, 4, 4, 16, 2, 2
TEXT_DIM, TEXT_HEADS, TEXT_LAYERS, TEXT_HIDDEN = 24, 3, 1, 32
FUSION_LAYERS, LENGTH, POSITIONS, VOCAB = 2, 8, 10, 30
CODES, CODE_DIM, DECAY, EPSILON = 12, 8, 0.9, 1e-5
ITC_DIM, QUEUE, ALPHA, MOMENTUM = 12, 10, 0.4, 0.9
DECODER_DIM, DECODER_HEADS = 12, 2
COMMITMENT, MIM_WEIGHT = 0.25, 0.5
OPTIMIZER = dict(lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.02,
                 clip_norm=2.0, warmup_steps=5, warmup_lr=1e-4, min_lr=1e-4,
                 total_steps=20)


def shapes(alternatives=False):
    """Every parameter's name and shape, in SemVQ's names."""
    out = {}

    def linear(name, i, o):
        out[f"{name}.weight"], out[f"{name}.bias"] = (o, i), (o,)

    def norm(name, d):
        out[f"{name}.weight"], out[f"{name}.bias"] = (d,), (d,)

    def block(name, d, hidden, cross=0):
        norm(f"{name}.norm1", d)
        linear(f"{name}.attn.qkv", d, 3 * d)
        linear(f"{name}.attn.proj", d, d)
        if cross:
            norm(f"{name}.norm_cross", d)
            linear(f"{name}.cross_attn.q", d, d)
            linear(f"{name}.cross_attn.kv", cross, 2 * d)
            linear(f"{name}.cross_attn.proj", d, d)
        norm(f"{name}.norm2", d)
        linear(f"{name}.mlp.fc1", d, hidden)
        linear(f"{name}.mlp.fc2", hidden, d)

    out["image.patch_embed.proj.weight"] = (DIM, 3, PATCH, PATCH)
    out["image.patch_embed.proj.bias"] = (DIM,)
    out["image.cls_token"] = out["image.mask_token"] = (1, 1, DIM)
    out["image.pos_embed"] = (1, 1 + GRID * GRID, DIM)
    for i in range(DEPTH):
        block(f"image.blocks.{i}", DIM, 2 * DIM)
    norm("image.norm", DIM)
    out["text.embeddings.word_embeddings.weight"] = (VOCAB, TEXT_DIM)
    out["text.embeddings.position_embeddings.weight"] = (POSITIONS, TEXT_DIM)
    out["text.embeddings.token_type_embeddings.weight"] = (2, TEXT_DIM)
    norm("text.embeddings.LayerNorm", TEXT_DIM)
    for i in range(TEXT_LAYERS):
        block(f"text.layer.{i}", TEXT_DIM, TEXT_HIDDEN)
    for i in range(FUSION_LAYERS):
        block(f"fusion.layer.{i}", TEXT_DIM, TEXT_HIDDEN, DIM)
    linear("codebook.project_in", DIM, CODE_DIM)
    linear("codebook.project_out", CODE_DIM, DIM)
    if alternatives:
        linear("visual.gate", 2 * DIM, DIM)
        block("mim.fusion.blocks.0", DIM, 4 * DIM, TEXT_DIM)
        norm("mim.fusion.norm", DIM)
    linear("itc.image_proj", DIM, ITC_DIM)
    linear("itc.text_proj", TEXT_DIM, ITC_DIM)
    out["itc.temperature"] = ()
    linear("itm.head", TEXT_DIM, 2)
    linear("mlm.dense", TEXT_DIM, TEXT_DIM)
    norm("mlm.norm", TEXT_DIM)
    linear("mlm.decoder", TEXT_DIM, VOCAB)
    linear("mim.heads.0", DIM, CODES)
    linear("reconstruction.decoder.embed", DIM, DECODER_DIM)
    out["reconstruction.decoder.position.weight"] = (1, GRID * GRID, DECODER_DIM)
    block("reconstruction.decoder.transformer.blocks.0", DECODER_DIM, 4 * DECODER_DIM,
          TEXT_DIM)
    norm("reconstruction.decoder.transformer.norm", DECODER_DIM)
    linear("reconstruction.decoder.head", DECODER_DIM, 3 * PATCH * PATCH)
    return out


def draw_parameters(seed, alternatives=False):
    """Multiples of 1/64 as int8: exact in every type, small as a file."""
    g = torch.Generator().manual_seed(seed)

    def draw(shape, centre=0, reach=24):
        return centre + torch.randint(-reach, reach + 1, shape, generator=g)

    out = {}
    for name, shape in shapes(alternatives).items():
        scale = name.split(".")[-2].startswith(("norm", "LayerNorm"))
        out[name] = draw(shape, 64 if scale and name.endswith("weight") else 0)
    out["itc.temperature"] = torch.tensor(16)  # 0.25
    out = {k: v.to(torch.int8) for k, v in out.items()}
    codes = draw((CODES, CODE_DIM), reach=64).to(torch.int8)
    if alternatives:
        codes = F.normalize(codes.double(), dim=-1).float()
    out["codebook.quantizer.codebook"] = codes
    out["codebook.quantizer.ema_count"] = torch.full((CODES,), 1.0)
    out["codebook.quantizer.ema_sum"] = codes.clone()
    out["codebook.quantizer.initialised"] = torch.tensor(1.0)
    for name in ("image", "text"):
        # Unit vectors, and places that no batch has filled yet.
        out[f"itc.{name}_queue"] = F.normalize(
            draw((QUEUE, ITC_DIM)).double(), dim=-1).float()
    return out


def draw_batch(seed, images=6):
    g = torch.Generator().manual_seed(seed)
    texts = images + 2
    ids = torch.randint(5, VOCAB, (texts, LENGTH), generator=g)
    mask = torch.zeros(texts, LENGTH, dtype=torch.bool)
    for t in range(texts):
        n = 4 + int(torch.randint(0, LENGTH - 3, (), generator=g))
        ids[t, 0], ids[t, n - 1], ids[t, n:] = 2, 3, 0
        mask[t, :n] = True
    return {
        "images": torch.randint(-96, 97, (images, 1, 3, SIDE, SIDE),
                                generator=g).to(torch.int8),
        "text_ids": ids, "text_mask": mask,
        "text_to_image": torch.cat([torch.arange(images),
                                    torch.tensor([0, images - 1])]),
        # The first two images are one.
        "ids": torch.cat([torch.tensor([50, 50]),
                          51 + torch.arange(images - 2)]),
    }


def value(tensor, dtype):
    return tensor.to(dtype) / 64 if tensor.dtype == torch.int8 else (
        tensor.to(dtype) if tensor.is_floating_point() else tensor)


class Scope:
    """Parameters under a prefix."""

    def __init__(self, p, prefix=""):
        self.p, self.prefix = p, prefix

    def __call__(self, name):
        return Scope(self.p, f"{self.prefix}{name}.")

    def __getitem__(self, name):
        return self.p[self.prefix + name]

    def linear(self, name, x):
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def norm(self, name, x, eps):
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"],
                            self[f"{name}.bias"], eps)


def attention(q, k, v, heads, mask):
    """softmax(q k' / sqrt d) v, head by head; mask [B, K] of real keys."""
    out = []
    for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1),
                       v.chunk(heads, -1)):
        scores = a @ b.transpose(1, 2) / a.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
        out.append(scores.softmax(-1) @ c)
    return torch.cat(out, -1)


def self_attention(p, x, heads, mask):
    return p.linear("proj", attention(*p.linear("qkv", x).chunk(3, -1), heads,
                                      mask))


def cross_attention(p, x, memory, heads, mask):
    k, v = p.linear("kv", memory).chunk(2, -1)
    return p.linear("proj", attention(p.linear("q", x), k, v, heads, mask))


def mlp(p, x):
    return p.linear("fc2", F.gelu(p.linear("fc1", x)))


def pre_norm_block(p, x, heads, eps, memory=None, memory_mask=None):
    x = x + self_attention(p("attn"), p.norm("norm1", x, eps), heads, None)
    if memory is not None:
        x = x + cross_attention(p("cross_attn"), p.norm("norm_cross", x, eps),
                                memory, heads, memory_mask)
    return x + mlp(p("mlp"), p.norm("norm2", x, eps))


def post_norm_block(p, x, heads, eps, mask, memory=None):
    x = p.norm("norm1", x + self_attention(p("attn"), x, heads, mask), eps)
    if memory is not None:
        x = p.norm("norm_cross", x + cross_attention(p("cross_attn"), x, memory,
                                                     heads, None), eps)
    return p.norm("norm2", x + mlp(p("mlp"), x), eps)


def encode_image(p, pixels, hidden=None):
    x = F.conv2d(pixels, p["patch_embed.proj.weight"],
                 p["patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    if hidden is not None:
        x = torch.where(hidden[..., None], p["mask_token"], x)
    x = torch.cat([p["cls_token"].expand(len(x), 1, -1), x], 1)
    x = x + p["pos_embed"]
    for i in range(DEPTH):
        x = pre_norm_block(p(f"blocks.{i}"), x, HEADS, 1e-6)
    return p.norm("norm", x, 1e-6)


def encode_text(p, ids, mask):
    e = p("embeddings")
    x = (e["word_embeddings.weight"][ids]
         + e["position_embeddings.weight"][:ids.shape[1]]
         + e["token_type_embeddings.weight"][0])
    x = e.norm("LayerNorm", x, 1e-12)
    for i in range(TEXT_LAYERS):
        x = post_norm_block(p(f"layer.{i}"), x, TEXT_HEADS, 1e-12, mask)
    return x


def fuse(p, text, mask, visual):
    for i in range(FUSION_LAYERS):
        text = post_norm_block(p(f"layer.{i}"), text, TEXT_HEADS, 1e-12, mask,
                               visual)
    return text


def rotated(z, e):
    """The rotation trick (Fifty et al. 2024): e, with the gradient of
    (|e| / |z|) (z - 2 w w'z + 2 e^ z^'z), factors held constant."""
    zd = z.detach()
    z_unit, e_unit = F.normalize(zd, dim=-1), F.normalize(e, dim=-1)
    w = F.normalize(z_unit + e_unit, dim=-1)

    def dot(a, b):
        return (a * b).sum(-1, keepdim=True)

    scale = e.norm(dim=-1, keepdim=True) / zd.norm(dim=-1, keepdim=True)
    moved = scale * (z - 2 * w * dot(w, z) + 2 * e_unit * dot(z_unit, z))
    return e + moved - moved.detach()


def quantize(p, tokens, codes=None, alternatives=False):
    """Features, codes (nearest unless given), vectors, tokens for readers."""
    z = p("codebook").linear("project_in", tokens[:, 1:])
    if alternatives:
        z = F.normalize(z, dim=-1)
    book = p("codebook")["quantizer.codebook"]
    nearest = torch.cdist(z.detach().double(), book.double()).argmin(-1)
    used = nearest if codes is None else codes
    e = book[used].detach()
    through = rotated(z, e) if alternatives else z + (e - z).detach()
    patches = quantized = p("codebook").linear("project_out", through)
    if alternatives:
        gate = torch.sigmoid(p("visual").linear(
            "gate", torch.cat([tokens[:, 1:], quantized], -1)))
        patches = (1 - gate) * tokens[:, 1:] + gate * quantized
    return z, nearest, e, quantized, torch.cat([tokens[:, :1], patches], 1)


def pooled(tokens, alternatives):
    """What stands for an image: the first token, or the mean of the others."""
    return tokens[:, 1:].mean(1, keepdim=True) if alternatives else tokens


def first_texts(text_to_image, images):
    rows = text_to_image.tolist()
    return torch.tensor([rows.index(i) for i in range(images)])


def forward(params, teacher, batch, choice, queues, codes=None,
            teacher_codes=None, alternatives=False):
    """Unweighted losses by name, their weighted sum, and what a step needs."""
    p, t = Scope(params), Scope(teacher)
    images, ids, mask = (batch[k] for k in ("images", "text_ids", "text_mask"))
    pixels, owner = images[:, 0], batch["text_to_image"]
    out = {}

    tokens = encode_image(p("image"), pixels)
    text = encode_text(p("text"), ids, mask)
    z, nearest, e, quantized, visual = quantize(p, tokens, codes, alternatives)
    with torch.no_grad():
        teacher_tokens = encode_image(t("image"), pixels)
        teacher_text = encode_text(t("text"), ids, mask)
        _, teacher_nearest, _, _, teacher_visual = quantize(
            t, teacher_tokens, teacher_codes, alternatives)
    used = nearest if codes is None else codes
    out["codebook/commitment"] = ((z - e.detach()) ** 2).mean()

    image_ids = batch["ids"].tolist()
    text_ids = [image_ids[i] for i in owner.tolist()]
    unit = [losses.project(pooled(tokens, alternatives), p("itc"),
                           "image_proj"),
            losses.project(text, p("itc"), "text_proj")]
    momentum = [losses.project(pooled(teacher_tokens, alternatives), t("itc"),
                               "image_proj").detach(),
                losses.project(teacher_text, t("itc"), "text_proj").detach()]
    out["itc/contrast"] = losses.itc(*unit, *momentum, image_ids, text_ids,
                                     p("itc"), *queues, ALPHA)

    pairs = choice["pair_texts"], choice["pair_images"]
    fused = fuse(p("fusion"), text[pairs[0]], mask[pairs[0]], visual[pairs[1]])
    out["itm/match"] = losses.itm(fused, p("itm"), image_ids, owner.tolist(),
                                  *pairs)

    hidden = choice["text_ids"]
    masked = fuse(p("fusion"), encode_text(p("text"), hidden, mask), mask,
                  visual[owner])
    with torch.no_grad():
        teacher_masked = fuse(t("fusion"), encode_text(t("text"), hidden, mask),
                              mask, teacher_visual[owner])
    out["mlm/mask"] = losses.mlm(
        masked, teacher_masked, p("mlm"), t("mlm"), choice["text_positions"],
        choice["text_targets"], choice["text_valid"], ALPHA)

    rows = first_texts(owner, len(pixels))
    places = choice["image_positions"]
    covered = torch.zeros(len(pixels), GRID * GRID, dtype=torch.bool)
    covered.scatter_(1, places, True)
    guesses = encode_image(p("image"), pixels, covered)
    targets = used
    if alternatives:
        f = p("mim")("fusion")
        guesses = f.norm("norm", pre_norm_block(
            f("blocks.0"), guesses, HEADS, 1e-6, text[rows], mask[rows]), 1e-6)
        targets = teacher_nearest if teacher_codes is None else teacher_codes
    logits = p("mim").linear("heads.0", torch.stack(
        [row[1:][at] for row, at in zip(guesses, places)]))
    out["mim/code"] = F.cross_entropy(logits.flatten(0, 1),
                                      targets.gather(1, places).flatten())

    r = p("reconstruction")("decoder")
    x = r.linear("embed", quantized) + r["position.weight"]
    caption = text.detach() if alternatives else text
    x = pre_norm_block(r("transformer.blocks.0"), x, DECODER_HEADS, 1e-6,
                       caption[rows], mask[rows])
    guess = r.linear("head", r.norm("transformer.norm", x, 1e-6))
    target = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)
    if alternatives:
        target = ((target - target.mean(-1, keepdim=True))
                  / (target.var(-1, keepdim=True) + 1e-6).sqrt())
        out["reconstruction/pixels"] = (guess - target).abs().mean()
    else:
        out["reconstruction/pixels"] = ((guess - target) ** 2).mean()

    weight = {"mim/code": MIM_WEIGHT, "codebook/commitment": COMMITMENT}
    total = sum(loss * weight.get(name, 1.0) for name, loss in out.items())
    state = dict(z=z.detach(), codes=used, nearest=nearest,
                 teacher_nearest=teacher_nearest, momentum=momentum,
                 image_ids=image_ids, text_ids=text_ids)
    return out, total, state


def split(given, prefix, dtype):
    return {k[len(prefix):]: value(v, dtype) for k, v in given.items()
            if k.startswith(prefix)}


def leaves(p, alternatives=False):
    known = shapes(alternatives)
    return {k: v.clone().requires_grad_() if k in known else v.clone()
            for k, v in p.items()}


def expected_step(given, dumped=None):
    """What the case `model_step` must give; choices as given or dumped."""
    alternatives = "alternatives" in given
    params = leaves(split(given, "param/", torch.float64), alternatives)
    teacher = split(given, "teacher/", torch.float64)
    batch = {k: value(given[k], torch.float64) for k in
             ("images", "text_ids", "text_mask", "text_to_image", "ids")}
    choice = split(dumped or given, "choice/", torch.float64)
    choice["text_valid"] = choice["text_valid"].bool()
    queues = [losses.Queue(params[f"itc.{n}_queue"]) for n in ("image", "text")]
    named, total, state = forward(params, teacher, batch, choice, queues,
                                  alternatives=alternatives)
    total.backward()
    out = {f"loss/{k}": v.detach() for k, v in named.items()}
    out["total"] = total.detach()
    for name in shapes(alternatives):
        grad = params[name].grad
        out[f"grad/{name}"] = (torch.zeros_like(params[name]) if grad is None
                               else grad)
    out["codes"] = state["nearest"][..., None]
    out["teacher_codes"] = state["teacher_nearest"][..., None]
    return out


def update_codebook(p, z, codes):
    """van den Oord et al. 2017, appendix A.1."""
    name = "codebook.quantizer."
    z, codes = z.reshape(-1, CODE_DIM), codes.flatten()
    n = torch.bincount(codes, minlength=CODES).to(z.dtype)
    total = torch.zeros(CODES, CODE_DIM, dtype=z.dtype).index_add_(0, codes, z)
    count = DECAY * p[name + "ema_count"] + (1 - DECAY) * n
    summed = DECAY * p[name + "ema_sum"] + (1 - DECAY) * total
    smooth = (count + EPSILON) / (count.sum() + CODES * EPSILON) * count.sum()
    p[name + "ema_count"], p[name + "ema_sum"] = count, summed
    p[name + "codebook"] = summed / smooth[:, None]


def expected_curve(given, dumped):
    """What the case `model_curve` must give, with the choices and codes that
    it dumped. Also the share of codes that this side would have chosen."""
    params = leaves(split(given, "param/", torch.float32))
    teacher = {k: v.detach().clone() for k, v in params.items()}
    named = [(k, params[k]) for k in shapes()]
    adamw = optimizer.adamw(named, OPTIMIZER)
    queues = [losses.Queue(params[f"itc.{n}_queue"]) for n in ("image", "text")]
    out, same, count = {}, 0, 0
    for step in range(OPTIMIZER["total_steps"]):
        batch = {k: value(given[k][step], torch.float32) for k in
                 ("images", "text_ids", "text_mask", "text_to_image", "ids")}
        choice = split(dumped, f"{step}/choice/", torch.float32)
        choice["text_valid"] = choice["text_valid"].bool()
        codes = dumped[f"{step}/codes"][..., 0]
        for _, p in named:
            p.grad = None
        parts, total, state = forward(
            params, teacher, batch, choice, queues, codes,
            dumped[f"{step}/teacher_codes"][..., 0])
        same += (state["nearest"] == codes).sum().item()
        count += codes.numel()
        total.backward()
        norm, lr = optimizer.step(adamw, [p for _, p in named], OPTIMIZER, step)
        out.update({f"{step}/{k}": v.detach() for k, v in parts.items()})
        out[f"{step}/loss"] = total.detach()
        out[f"{step}/gradient_norm"] = norm
        out[f"{step}/lr"] = torch.tensor(lr)
        with torch.no_grad():
            params["itc.temperature"].clamp_(0.001, 0.5)
            update_codebook(params, state["z"], codes)
            queues[0].push(state["momentum"][0], state["image_ids"])
            queues[1].push(state["momentum"][1], state["text_ids"])
            for k in teacher:
                teacher[k] = (MOMENTUM * teacher[k] + (1 - MOMENTUM) * params[k]
                              if k in shapes() else params[k].clone())
    out.update({f"param/{k}": p.detach() for k, p in named})
    return out, same / count


def inputs_step(seed, alternatives=False):
    given = {f"{side}/{k}": v for side, s in (("param", 0), ("teacher", 1))
             for k, v in draw_parameters(seed + s, alternatives).items()}
    given.update(draw_batch(seed + 2))
    if alternatives:
        given["alternatives"] = torch.tensor(1)
    return given


def inputs_curve(seed):
    given = {f"param/{k}": v for k, v in draw_parameters(seed).items()}
    batches = [draw_batch(seed + 10 + s)
               for s in range(OPTIMIZER["total_steps"])]
    given.update({k: torch.stack([b[k] for b in batches]) for k in batches[0]})
    return given
