"""Times SemVQ's loader against its peers, taking turns, and prints Markdown tables.

See ../README.md for the method. run.sh starts this with the peers' Python. Every turn is
a process of its own: this file calls itself with --turn for the peers.
"""

import argparse
import io
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

OURS = "SemVQ"
PEERS = {
    "pil": "torchvision + PIL",
    "opencv": "OpenCV, cubic without antialias",
    "tvio": "torchvision.io, antialiased bicubic on uint8",
}
TARGETS = {"pil": 2.0, "opencv": 1.2}
SIZE, SCALE, RATIO = 224, (0.2, 1.0), (3 / 4, 4 / 3)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


# ------------------------------------------------------------------------ data


def make_images(folder, count):
    """JPEGs of 500 x 375 and 640 x 480 with the spectrum of photographs, seeded."""
    import numpy as np
    from PIL import Image

    images = folder / "images"
    done = folder / "list.json"
    if done.exists() and len(json.loads(done.read_text())) == count:
        return
    images.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(count):
        random = np.random.default_rng(i)
        width, height = ((500, 375), (640, 480))[i % 2]
        fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        amplitude = 1 / np.maximum(np.hypot(fx, fy), 1 / width) ** 1.1
        # Colours of a photograph go together: what they share, and a little of each.
        planes = []
        for _ in range(4):
            phase = np.exp(2j * np.pi * random.random(amplitude.shape))
            plane = np.fft.irfft2(amplitude * phase, (height, width))
            planes.append(plane / plane.std())
        rgb = np.stack([planes[0] + 0.3 * planes[c] for c in (1, 2, 3)], -1)
        rgb = np.clip(128 + 50 * rgb, 0, 255).astype(np.uint8)
        name = f"images/{i:05}.jpg"
        Image.fromarray(rgb).save(folder / name, quality=90)
        records.append({"image": name, "caption": f"picture {i}"})
    partial = folder / "list.json.partial"
    partial.write_text(json.dumps(records))
    partial.rename(done)


def pack(tool, folder, shard_samples):
    out = folder / "shards"
    subprocess.run([tool, f"--list={folder / 'list.json'}", f"--out={out}",
                    f"--shard_samples={shard_samples}"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


# ----------------------------------------------------------------------- peers


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


class Shards:
    """Images by offset, from the indexes that //tools/data:pack wrote."""

    def __init__(self, folder):
        self.places, self.files = [], {}
        for index in sorted(pathlib.Path(folder).glob("*.idx")):
            for line in index.read_text().splitlines()[1:]:
                image = line.split("\t")[1].split(":")
                self.places.append((str(index)[:-4], int(image[1]), int(image[2])))

    def __call__(self, i):
        path, offset, size = self.places[i]
        key = (os.getpid(), path)
        if key not in self.files:
            self.files[key] = os.open(path, os.O_RDONLY)
        return os.pread(self.files[key], size, offset)


def dataset(kind, read, count):
    """A map-style data set of float32 [3, 224, 224], normalised."""
    import numpy as np
    import torch
    import torchvision.transforms as T
    from torchvision.transforms import functional as F

    if kind == "pil":
        from PIL import Image
        transform = T.Compose([
            T.RandomResizedCrop(SIZE, SCALE, RATIO, T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])

        def load(i):
            return transform(Image.open(io.BytesIO(read(i))).convert("RGB"))
    elif kind == "opencv":
        import random

        import cv2
        cv2.setNumThreads(0)
        # (value / 255 - mean) / std as one product and one sum.
        scale = np.float32(1 / (255 * np.array(STD, np.float32)))
        shift = np.float32(-np.array(MEAN, np.float32) / np.array(STD, np.float32))

        def box(height, width):
            # RandomResizedCrop.get_params without torch's operators, which cost more.
            for _ in range(10):
                area = height * width * random.uniform(*SCALE)
                ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
                w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if 0 < w <= width and 0 < h <= height:
                    return random.randint(0, height - h), random.randint(0, width - w), h, w
            return 0, 0, height, width

        def load(i):
            bgr = cv2.imdecode(np.frombuffer(read(i), np.uint8), cv2.IMREAD_COLOR)
            top, left, h, w = box(*bgr.shape[:2])
            crop = cv2.resize(bgr[top:top + h, left:left + w], (SIZE, SIZE),
                              interpolation=cv2.INTER_CUBIC)
            if random.random() < 0.5:
                crop = cv2.flip(crop, 1)
            rgb = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).astype(np.float32)
            rgb *= scale
            rgb += shift
            return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
    else:
        from torchvision.io import ImageReadMode, decode_jpeg
        normalize = T.Normalize(MEAN, STD)

        def load(i):
            data = torch.frombuffer(bytearray(read(i)), dtype=torch.uint8)
            image = decode_jpeg(data, ImageReadMode.RGB)
            top, left, h, w = T.RandomResizedCrop.get_params(image, SCALE, RATIO)
            image = F.resized_crop(image, top, left, h, w, [SIZE, SIZE],
                                   T.InterpolationMode.BICUBIC, antialias=True)
            if torch.rand(()) < 0.5:
                image = F.hflip(image)
            return normalize(image.float().div_(255))

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return count

        def __getitem__(self, i):
            return load(i)

    return Images()


def turn(args):
    """One epoch of a peer's DataLoader; prints JSON as //bench/loader:bench does."""
    import torch
    torch.set_num_threads(1)
    if args.shards:
        shards = Shards(args.shards)
        read, have = shards, len(shards.places)
    else:
        folder = pathlib.Path(args.data)
        names = [str(folder / r["image"]) for r in json.loads((folder / "list.json").read_text())]
        read, have = (lambda i: read_file(names[i])), len(names)
    images = dataset(args.turn, read, have)
    batches = args.images // args.batch
    order = torch.cat([torch.randperm(have) for _ in range(args.images // have + 1)])
    loader = torch.utils.data.DataLoader(
        images, args.batch, sampler=order[:batches * args.batch].tolist(),
        num_workers=args.workers, worker_init_fn=lambda _: torch.set_num_threads(1))

    def cpu():
        return sum(u.ru_utime + u.ru_stime for u in
                   (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))

    used, start, timed = cpu(), 0, 0
    for b, batch in enumerate(loader):
        assert batch.shape == (args.batch, 3, SIZE, SIZE) and batch.dtype == torch.float32
        if b == 0:
            start = time.perf_counter()
        else:
            timed += args.batch
    seconds = time.perf_counter() - start
    del loader  # Its workers end, and their time counts.
    print(json.dumps({"images_per_second": timed / seconds,
                      "cpu_ms_per_image": 1e3 * (cpu() - used) / (batches * args.batch)}))


# ------------------------------------------------------------------ comparison


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def contenders(args, where):
    common = [f"--images={args.images}", f"--workers={args.workers}", f"--batch={args.batch}"]
    shards = args.data / "shards"
    if where == "files":
        ours, peers = [f"--list={args.data / 'list.json'}"], []
    else:
        count = len(list(shards.glob("*.tar")))
        ours, peers = [f"--shards={shards}/shard-{{00000..{count - 1:05}}}.tar"], [f"--shards={shards}"]
    yield OURS, [args.bench, *ours, *common]
    for kind in args.peers:
        yield kind, [sys.executable, __file__, f"--turn={kind}", f"--data={args.data}", *peers, *common]


def compare(args, where):
    commands = dict(contenders(args, where))
    names = list(commands)
    rounds = []
    for r in range(args.rounds + 1):
        results = {}
        # Each round begins with the next one.
        for name in names[r % len(names):] + names[:r % len(names)]:
            results[name] = run(commands[name])
            print(f"  {where} {r} {name}: {results[name]}", file=sys.stderr)
        if r > 0:  # The first warms the page cache.
            rounds.append(results)
    return rounds


def table(where, rounds):
    print(f"\nFrom {where}:\n")
    print("| contender | images/s | ours / its | CPU ms an image | its CPU / ours | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    median = statistics.median
    for name in rounds[0]:
        rate = median(r[name]["images_per_second"] for r in rounds)
        cpu = median(r[name]["cpu_ms_per_image"] for r in rounds)
        faster = median(r[OURS]["images_per_second"] / r[name]["images_per_second"] for r in rounds)
        cheaper = median(r[name]["cpu_ms_per_image"] / r[OURS]["cpu_ms_per_image"] for r in rounds)
        target = TARGETS.get(name, "")
        print(f"| {PEERS.get(name, name)} | {rate:,.0f} | {faster:.2f} | {cpu:.2f} | {cheaper:.2f} | {target} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", help="//bench/loader:bench, built")
    parser.add_argument("--pack", help="//tools/data:pack, built")
    parser.add_argument("--data", type=pathlib.Path, help="where the pictures are, or are made")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--images", type=int, default=2048, help="of a turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=lambda s: s.split(","), default=list(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--parts", type=lambda s: s.split(","), default=["files", "shards", "soak"])
    parser.add_argument("--soak_images", type=int, default=10048)
    parser.add_argument("--json", type=pathlib.Path, help="write every sample")
    parser.add_argument("--turn", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--shards", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        return turn(args)
    make_images(args.data, args.pictures)
    pack(args.pack, args.data, max(1, args.pictures // 8))
    everything = {}
    for where in ("files", "shards"):
        if where in args.parts:
            everything[where] = compare(args, where)
            table(where, everything[where])
    if "soak" in args.parts:
        for where in ("files", "shards"):
            command = dict(contenders(args, where))[OURS]
            soak = run([*command, f"--images={args.soak_images}", "--soak"])
            everything[f"soak {where}"] = soak
            print(f"\nMemory over {args.soak_images:,} images from {where}: {soak['early_mib']} MiB after a tenth, "
                  f"{soak['resident_mib']} at the end: {soak['growth_percent']} % (target: below 1)")
    if args.json:
        args.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
