#!/usr/bin/env python3
"""Makes cases.jsonl: small corpora of codes and words, and what they say.

Written from the definitions in docs/tasks.md, image by image and with plain
sums; standard library alone. Run it in this folder.

One case a line: the codes and the words of every image, the order in which
words are dealt to images, the seed, and what comes out: mutual information
(normalised by the geometric mean of the entropies), purity, and for naive Bayes
on the images that the seed holds out the bits a word, the percentage known, and
the images. Corpora where two weights or two words are equally good up to
rounding are drawn again: there is no one answer to compare with.
"""

import hashlib
import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
CASES = 1000
MASK = (1 << 64) - 1
WEIGHTS = [0.0] + [0.125 * 2 ** i for i in range(12)]


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def fifth(seed, image):
    """The first draw below 5 of the stream (seed, purpose, image)."""
    key = mix(seed)
    for c in b"codebook_semantics/split":
        key = mix(key ^ c)
    key = mix(mix(key ^ mix(image)) ^ mix(MASK))
    return (mix((key + 0x9E3779B97F4A7C15) & MASK) * 5) >> 64


def joint_of(codes, words, order, images):
    table = {}
    for i in images:
        dealt = words[order[i]]
        for c in codes[i]:
            for w in dealt:
                cell = (c, w)
                table[cell] = table.get(cell, 0) + 1 / len(codes[i]) / len(dealt)
    return table


def entropy(values, total):
    return -math.fsum(v / total * math.log(v / total) for v in values if v > 0)


def sums(table, axis):
    out = {}
    for cell, value in table.items():
        out[cell[axis]] = out.get(cell[axis], 0) + value
    return out


def information(table):
    total = math.fsum(table.values())
    a = entropy(sums(table, 0).values(), total)
    b = entropy(sums(table, 1).values(), total)
    both = entropy(table.values(), total)
    # One code or one word: its entropy is 0 but for rounding.
    if len(sums(table, 0)) == 1 or len(sums(table, 1)) == 1:
        return 0.0
    return max(0.0, a + b - both) / math.sqrt(a * b)


def purity(table):
    best = {}
    for (c, _), value in table.items():
        best[c] = max(best.get(c, 0), value)
    return math.fsum(best.values()) / math.fsum(table.values())


class Ambiguous(Exception):
    pass


def predict(codes, words, order, seed, num_codes, num_words):
    part = [fifth(seed, i) for i in range(len(codes))]
    counted = [i for i, p in enumerate(part) if p < 3]
    table = joint_of(codes, words, order, counted)
    of_code, of_word = sums(table, 0), sums(table, 1)
    total = math.fsum(table.values())
    if total <= 0:
        raise Ambiguous
    p_code = [(of_code.get(c, 0) + 1 / num_codes) / (total + 1)
              for c in range(num_codes)]
    p_word = [(of_word.get(w, 0) + 1 / num_words) / (total + 1)
              for w in range(num_words)]

    def measure(wanted, weight):
        bits, hits, images = [], 0, 0
        for i, p in enumerate(part):
            dealt = words[order[i]]
            if p != wanted or not dealt:
                continue
            images += 1
            scores = []
            for w in range(num_words):
                evidence = math.fsum(
                    math.log((table.get((c, w), 0) + p_code[c]) /
                             (of_word.get(w, 0) + 1) / p_code[c])
                    for c in codes[i]) / len(codes[i])
                scores.append(math.log(p_word[w]) + weight * evidence)
            top = sorted(scores)
            if len(top) > 1 and top[-1] - top[-2] < 1e-4 * max(1, weight):
                raise Ambiguous
            log_sum = top[-1] + math.log(
                math.fsum(math.exp(s - top[-1]) for s in scores))
            bits.append(-math.fsum(scores[w] - log_sum for w in dealt) /
                        len(dealt) / math.log(2))
            hits += scores.index(top[-1]) in dealt
        if images == 0:
            raise Ambiguous
        return math.fsum(bits) / images, 100.0 * hits / images, images

    found = [(fit_bits(codes, words, order, part, table, of_word, p_code,
                       p_word, weight), weight) for weight in WEIGHTS]
    found.sort()
    if found[1][0] - found[0][0] < 1e-3:
        raise Ambiguous
    return measure(4, found[0][1])


def fit_bits(codes, words, order, part, table, of_word, p_code, p_word, weight):
    """Cross-entropy on the images that choose the weight; ties do not matter."""
    bits = []
    for i, p in enumerate(part):
        dealt = words[order[i]]
        if p != 3 or not dealt:
            continue
        scores = [
            math.log(p_word[w]) + weight / len(codes[i]) * math.fsum(
                math.log((table.get((c, w), 0) + p_code[c]) /
                         (of_word.get(w, 0) + 1) / p_code[c])
                for c in codes[i])
            for w in range(len(p_word))]
        top = max(scores)
        log_sum = top + math.log(math.fsum(math.exp(s - top) for s in scores))
        bits.append(-math.fsum(scores[w] - log_sum for w in dealt) / len(dealt))
    if not bits:
        raise Ambiguous
    return math.fsum(bits) / len(bits)


def make_case(draw):
    num_codes, num_words = draw.randint(2, 6), draw.randint(2, 5)
    images, tokens = draw.randint(12, 40), draw.randint(1, 6)
    codes, words = [], []
    for _ in range(images):
        topic = draw.randrange(num_words)
        codes.append([topic % num_codes if draw.random() < 0.6
                      else draw.randrange(num_codes) for _ in range(tokens)])
        dealt = {topic} if draw.random() < 0.9 else set()
        if draw.random() < 0.4:
            dealt.add(draw.randrange(num_words))
        words.append(sorted(dealt))
    # Every number occurs, as in the task.
    if {c for row in codes for c in row} != set(range(num_codes)):
        raise Ambiguous
    if {w for row in words for w in row} != set(range(num_words)):
        raise Ambiguous
    order = list(range(images))
    if draw.random() < 0.3:
        draw.shuffle(order)
    seed = draw.randrange(1 << 32)
    table = joint_of(codes, words, order, range(images))
    bits, known, held_out = predict(codes, words, order, seed, num_codes,
                                    num_words)
    return {"codes": codes, "words": words, "order": order, "seed": seed,
            "information": information(table), "purity": purity(table),
            "bits": bits, "known": known, "held_out": held_out}


def main():
    draw = random.Random(475)
    own = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    lines = [json.dumps({"generator": own, "cases": CASES})]
    while len(lines) <= CASES:
        try:
            lines.append(json.dumps(make_case(draw), separators=(",", ":")))
        except Ambiguous:
            pass
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
