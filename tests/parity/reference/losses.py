"""ITC, ITM and MLM from their formulas (ALBEF, Section 3.2), in PyTorch.

Rows and pairs are looped over, so that nothing is shared with the C++ side but
the formula.
"""

import torch
import torch.nn.functional as F


def ramped(alpha, steps, step):
    return alpha if steps <= 0 else alpha * min(1.0, step / steps)


def project(tokens, p, name):
    """The first token, projected and normalised."""
    return F.normalize(
        F.linear(tokens[:, 0], p[f"{name}.weight"], p[f"{name}.bias"]), dim=-1)


class Queue:
    """The last Q features; the oldest place is written next."""

    def __init__(self, features):
        self.features = features.clone()
        self.ids = [None] * len(features)
        self.next = 0

    def push(self, features, ids):
        for feature, i in zip(features, ids):
            self.features[self.next] = feature.detach()
            self.ids[self.next] = i
            self.next = (self.next + 1) % len(self.ids)


def direction(query, teacher_query, query_ids, candidates, candidate_ids,
              temperature, alpha):
    """Mean over queries of -sum_j target_j log softmax(q c / t)_j."""
    total, count = 0.0, 0
    for q, tq, i in zip(query, teacher_query, query_ids):
        positive = torch.tensor([float(i == j) for j in candidate_ids],
                                dtype=q.dtype)
        if positive.sum() == 0:
            continue
        soft = torch.softmax(candidates @ tq / temperature, 0).detach()
        target = (alpha * soft + (1 - alpha) * positive / positive.sum())
        total = total - (target * torch.log_softmax(
            candidates @ q / temperature, 0)).sum()
        count += 1
    return total / count


def itc(image, text, teacher_image, teacher_text, image_ids, text_ids, p,
        image_queue, text_queue, alpha):
    """Unit vectors of the batch; candidates are the teacher's and the queue's.
    """
    def candidates(batch, ids, queue):
        return (torch.cat([batch, queue.features]).detach(),
                list(ids) + queue.ids)

    texts, text_keys = candidates(teacher_text, text_ids, text_queue)
    images, image_keys = candidates(teacher_image, image_ids, image_queue)
    t = p["temperature"]
    return 0.5 * (
        direction(image, teacher_image, image_ids, texts, text_keys, t, alpha)
        + direction(text, teacher_text, text_ids, images, image_keys, t, alpha))


def itm(fused, p, ids, text_to_image, text_index, image_index):
    """Two-way cross-entropy of the fused first token; the first T pairs match,
    later ones do not, and one of two views of an image does not count."""
    total, count = 0.0, 0
    for row, (t, i) in enumerate(zip(text_index.tolist(),
                                     image_index.tolist())):
        match = row < len(text_to_image)
        if not match and ids[text_to_image[t]] == ids[i]:
            continue
        logits = p["head.weight"] @ fused[row, 0] + p["head.bias"]
        total = total - torch.log_softmax(logits, 0)[int(match)]
        count += 1
    return total / count


def mlm_logits(hidden, p):
    """BERT's prediction head."""
    h = F.gelu(F.linear(hidden, p["dense.weight"], p["dense.bias"]))
    h = F.layer_norm(h, h.shape[-1:], p["norm.weight"], p["norm.bias"], 1e-12)
    return F.linear(h, p["decoder.weight"], p["decoder.bias"])


def mlm(fused, teacher_fused, p, teacher, positions, targets, valid, alpha):
    total, count = 0.0, 0
    for b in range(len(positions)):
        for m in range(positions.shape[1]):
            if not valid[b, m]:
                continue
            at = positions[b, m]
            log_p = torch.log_softmax(mlm_logits(fused[b, at], p), 0)
            soft = torch.softmax(mlm_logits(teacher_fused[b, at], teacher), 0)
            total = total - (1 - alpha) * log_p[targets[b, m]] \
                - alpha * (soft.detach() * log_p).sum()
            count += 1
    return total / count


def _leaves(given, prefix):
    return {k[len(prefix):]: v.clone().requires_grad_()
            for k, v in given.items() if k.startswith(prefix)}


def _grads(p, prefix="grad/"):
    return {prefix + k: torch.zeros_like(v) if v.grad is None else v.grad
            for k, v in p.items()}


def expected_itc(given):
    """What the case `itc` must give (tests/golden/cases.h)."""
    alpha, ramp, first = given["settings"].tolist()
    p = _leaves(given, "param/")
    teacher = {k[len("teacher/"):]: v for k, v in given.items()
               if k.startswith("teacher/")}
    queues = [Queue(given["image_queue"]), Queue(given["text_queue"])]
    out, s = {}, 0
    while f"{s}/image" in given:
        image = given[f"{s}/image"].clone().requires_grad_()
        text = given[f"{s}/text"].clone().requires_grad_()
        ids = given[f"{s}/ids"].tolist()
        text_ids = [ids[i] for i in given[f"{s}/text_to_image"].tolist()]
        momentum = (project(given[f"{s}/teacher_image"], teacher, "image_proj"),
                    project(given[f"{s}/teacher_text"], teacher, "text_proj"))
        loss = itc(project(image, p, "image_proj"), project(text, p, "text_proj"),
                   *momentum, ids, text_ids, p, *queues,
                   ramped(alpha, ramp, first + s))
        for leaf in p.values():
            leaf.grad = None
        loss.backward()
        out[f"{s}/loss"] = loss.detach()
        out[f"{s}/grad/image"], out[f"{s}/grad/text"] = image.grad, text.grad
        out.update({f"{s}/{k}": v.clone() for k, v in _grads(p).items()})
        queues[0].push(momentum[0], ids)
        queues[1].push(momentum[1], text_ids)
        out[f"{s}/image_queue"] = queues[0].features.clone()
        out[f"{s}/text_queue"] = queues[1].features.clone()
        with torch.no_grad():
            p["temperature"].clamp_(0.001, 0.5)
        out[f"{s}/temperature"] = p["temperature"].detach().clone()
        s += 1
    return out


def expected_itm(given):
    p = _leaves(given, "param/")
    fused = given["fused"].clone().requires_grad_()
    loss = itm(fused, p, given["ids"].tolist(), given["text_to_image"].tolist(),
               given["text_index"], given["image_index"])
    loss.backward()
    return {"loss": loss.detach(), "grad/fused": fused.grad, **_grads(p)}


def expected_mlm(given):
    alpha, ramp, step = given["settings"].tolist()
    p = _leaves(given, "param/")
    teacher = {k[len("teacher/"):]: v for k, v in given.items()
               if k.startswith("teacher/")}
    fused = given["fused"].clone().requires_grad_()
    loss = mlm(fused, given["teacher_fused"], p, teacher, given["positions"],
               given["targets"], given["valid"].bool(),
               ramped(alpha, ramp, step))
    loss.backward()
    return {"loss": loss.detach(), "grad/fused": fused.grad, **_grads(p)}


def inputs_itc(seed, batch=4, texts_per_image=2, dims=(5, 6, 4), queue=13,
               steps=3, alpha=0.4, ramp=4, temperature=0.07):
    """Some images are one by their id, within a batch and across batches; the
    queues wrap around."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    out = {"settings": torch.tensor([alpha, ramp, 1], dtype=torch.float64)}
    for side in ("param", "teacher"):
        for name, d in (("image_proj", dims[0]), ("text_proj", dims[1])):
            out[f"{side}/{name}.weight"] = randn(dims[2], d)
            out[f"{side}/{name}.bias"] = randn(dims[2])
        out[f"{side}/temperature"] = torch.tensor(temperature,
                                                  dtype=torch.float64)
    for name in ("image_queue", "text_queue"):
        out[name] = F.normalize(randn(queue, dims[2]), dim=-1)
    texts = batch * texts_per_image
    for s in range(steps):
        out[f"{s}/image"], out[f"{s}/teacher_image"] = (
            randn(batch, 3, dims[0]) for _ in range(2))
        out[f"{s}/text"], out[f"{s}/teacher_text"] = (
            randn(texts, 2, dims[1]) for _ in range(2))
        out[f"{s}/ids"] = torch.randint(s, s + batch + 1, (batch,), generator=g)
        out[f"{s}/text_to_image"] = torch.arange(batch).repeat_interleave(
            texts_per_image)
    return out


def inputs_itm(seed, batch=4, dim=6, length=3):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    texts = batch + 1
    to_image = torch.cat([torch.arange(batch), torch.tensor([0])])
    return {
        "fused": randn(2 * texts + batch, length, dim),
        "param/head.weight": randn(2, dim), "param/head.bias": randn(2),
        "ids": torch.tensor([7, 8, 7, 9] + list(range(10, 6 + batch))),
        "text_to_image": to_image,
        "text_index": torch.cat([
            torch.arange(texts), torch.arange(texts),
            torch.randint(0, texts, (batch,), generator=g)]),
        "image_index": torch.cat([
            to_image, torch.randint(0, batch, (texts,), generator=g),
            torch.arange(batch)]),
    }


def inputs_mlm(seed, texts=4, length=6, dim=8, vocab=11, masked=3, alpha=0.4,
               ramp=10, step=5):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    out = {"settings": torch.tensor([alpha, ramp, step], dtype=torch.float64),
           "fused": randn(texts, length, dim),
           "teacher_fused": randn(texts, length, dim)}
    for side in ("param", "teacher"):
        out[f"{side}/dense.weight"] = randn(dim, dim)
        out[f"{side}/dense.bias"] = randn(dim)
        out[f"{side}/norm.weight"] = 1 + 0.3 * randn(dim)
        out[f"{side}/norm.bias"] = randn(dim)
        out[f"{side}/decoder.weight"] = randn(vocab, dim)
        out[f"{side}/decoder.bias"] = randn(vocab)
    out["positions"] = torch.stack(
        [torch.randperm(length, generator=g)[:masked] for _ in range(texts)])
    out["targets"] = torch.randint(5, vocab, (texts, masked), generator=g)
    valid = torch.rand(texts, masked, generator=g) < 0.7
    valid[0, 0] = True
    out["valid"] = valid
    return out
