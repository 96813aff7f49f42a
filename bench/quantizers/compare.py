"""Times SemVQ against its peers, taking turns, and prints Markdown tables.

See ../README.md for the method. run.sh starts this with the peers' Python; a peer that
is not installed is left out.
"""

import argparse
import gc
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch

GIB = 1 << 30
OURS = "SemVQ"


# ------------------------------------------------------------------ contenders


class SemVQ:
    """The process of //bench/quantizers:bench."""

    def __init__(self, path, threads, device, environment=None):
        self.process = subprocess.Popen(
            [path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {}), "OMP_NUM_THREADS": str(threads)})
        self.ask(f"threads {threads}")
        self.ask(f"device {device}")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the benchmark ended at: {line}")
        answer = json.loads(answer)
        if "error" in answer:
            raise RuntimeError(f"{line}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def mm_argmin(z, e):
    # |z - e|^2 without the part that all codes share.
    half = e.square().sum(1).mul_(0.5)
    return lambda: torch.mm(z, e.t()).sub_(half).argmax(1)


def cdist(z, e):
    return lambda: torch.cdist(z, e).argmin(1)


def faiss_flat(z, e):
    import faiss
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(z.shape[1])
    index.add(e.numpy())
    query = z.numpy()
    return lambda: torch.from_numpy(index.search(query, 1)[1][:, 0].copy())


def vqp_module(e, metric="l2"):
    import vector_quantize_pytorch as vqp
    module = vqp.VectorQuantize(
        dim=e.shape[1], codebook_size=e.shape[0], decay=0.99, commitment_weight=1.0,
        rotation_trick=False, use_cosine_sim=metric == "cosine").to(e.device)
    module._codebook.embed.data.copy_(e[None])
    module._codebook.embed_avg.data.copy_(e[None])
    return module


def vqp_eval(z, e):
    module = vqp_module(e).eval()
    batch = z[None]

    def run():
        with torch.no_grad():
            return module(batch)[1].reshape(-1)

    return run


def vqp_train(z, e):
    module = vqp_module(e).train()
    weights = torch.arange(z.numel(), dtype=torch.float32, device=z.device).cos_().view(1, *z.shape)

    def run():
        batch = z[None].detach().requires_grad_()
        vectors, codes, loss = module(batch)
        ((vectors * weights).sum() + loss.sum()).backward()
        return codes.reshape(-1)

    return run


VQP = "vector-quantize-pytorch"
PEERS = {  # operation -> name -> (module it needs, what makes it)
    "assign": {
        "faiss IndexFlatL2": ("faiss", faiss_flat),
        "torch.mm + argmin": ("torch", mm_argmin),
        "torch.cdist": ("torch", cdist),
        VQP: ("vector_quantize_pytorch", vqp_eval),
    },
    "train": {VQP: ("vector_quantize_pytorch", vqp_train)},
}


def peers(operation, options):
    return {name: make for name, (module, make) in PEERS[operation].items()
            if importlib.util.find_spec(module) and not (module == "faiss" and options.device != "cpu")}


# ------------------------------------------------------------------------ data


def gaussian(n, k, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randn(k, d, generator=generator)


def tied(n, k, d, seed=0):
    """Codes that are there twice or differ in their last bit, and features at or between them."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(k // 4, d, generator=generator)
    up = torch.nextafter(base, torch.full_like(base, torch.inf))
    codes = torch.cat([base, up, base, torch.randn(k - 3 * (k // 4), d, generator=generator)])
    pick = torch.randint(k, (n,), generator=generator)
    noise = torch.randn(n, d, generator=generator) * torch.rand(n, 1, generator=generator).pow(8)
    return codes[pick] + noise, codes[torch.randperm(k, generator=generator)]


def nearest_float64(z, e, rows):
    """The oracle: argmin in float64 of the sum of squared differences, the lowest index on exact ties.

    A matrix product finds the candidates; those within its rounding error of the best are scored again from the
    definition, dimension by dimension.
    """
    z, e = z[:rows].double(), e.double()
    half = e.square().sum(1) / 2
    out = torch.empty(len(z), dtype=torch.int64)
    step = max(1, (1 << 25) // len(e))
    for begin in range(0, len(z), step):
        part = z[begin:begin + step]
        score = half - part @ e.t()
        slack = 1e-12 * (part.norm(dim=1, keepdim=True) + e.norm(dim=1).max()).square()
        row, code = (score <= score.amin(1, keepdim=True) + slack).nonzero(as_tuple=True)
        cost = torch.zeros(len(row), dtype=torch.float64)
        for j in range(z.shape[1]):
            cost += (part[row, j] - e[code, j]).square()
        best = torch.full((len(part),), torch.inf, dtype=torch.float64).scatter_reduce(0, row, cost, "amin")
        code = torch.where(cost == best[row], code, len(e))
        out[begin:begin + step] = torch.full((len(part),), len(e)).scatter_reduce(0, row, code, "amin")
    return out


class Data:
    """Features and codebook in memory, and in files for the other process."""

    def __init__(self, folder, make, n, k, d):
        self.n, self.k, self.d = n, k, d
        self.z, self.e = make(n, k, d)
        self.paths = [pathlib.Path(folder) / name for name in ("features", "codebook")]
        for path, tensor in zip(self.paths, (self.z, self.e)):
            tensor.numpy().tofile(path)

    def load(self, ours, n=None):
        ours.ask(f"load {self.paths[0]} {n or self.n} {self.paths[1]} {self.k} {self.d}")


# -------------------------------------------------------------------- measures


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(run, device):
    synchronize(device)
    cpu, wall = cpu_seconds(), time.perf_counter()
    run()
    synchronize(device)
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def take_turns(contenders, repeats):
    """One untimed round, then `repeats` of them, each beginning with the next contender. Wall and CPU seconds."""
    names = list(contenders)
    times = {name: [] for name in names}
    for turn in range(repeats + 1):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            sample = contenders[name]()
            if turn:
                times[name].append(sample)
    return times


def median(samples, key):
    return statistics.median(s[key] for s in samples)


def ratio(samples, ours, key):
    """Median over rounds of peer / ours within the round."""
    return statistics.median(a[key] / b[key] for a, b in zip(samples, ours))


def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


def probe(options):
    """In a process of its own: the most memory one call takes beyond what was held before it."""
    operation, name, n, k, d = options.probe.split("|")
    make = PEERS[operation][name][1]
    torch.set_num_threads(options.threads)
    make(*gaussian(64, 64, int(d)))()  # Loads code and starts threads.
    z, e = gaussian(int(n), int(k), int(d))
    run = make(z, e)
    limit = int(options.memory_gib * GIB) + status("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    try:
        run()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        print(json.dumps({"oom": True}))
        return
    print(json.dumps({"extra": status("VmHWM") - before}))


def peer_memory(options, operation, name, n, k, d):
    """Bytes, or None when it takes more than the limit."""
    result = subprocess.run(
        [sys.executable, __file__, f"--probe={operation}|{name}|{n}|{k}|{d}", f"--threads={options.threads}",
         f"--memory_gib={options.memory_gib}"], capture_output=True, text=True)
    lines = result.stdout.strip().splitlines()
    if result.returncode < 0 or (result.returncode and "bad_alloc" in result.stderr):
        return None  # Killed, or aborted by the allocator.
    if result.returncode or not lines:
        raise RuntimeError(f"{name}: {result.stderr[-2000:]}")
    return json.loads(lines[-1]).get("extra")


def our_memory(options, operation, data):
    ours = SemVQ(options.bench, options.threads, "cpu")
    arguments = "" if operation == "train" else "l2 float"
    data.load(ours, 64)
    ours.ask(f"{operation} {arguments}")
    data.load(ours)
    if operation == "train":
        ours.ask("memory train")  # The optimizer-step state comes with the first step.
    extra = ours.ask(f"memory {operation} {arguments}")["extra"]
    ours.close()
    return extra


# --------------------------------------------------------------------- reports


def milliseconds(seconds):
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.1f}"


def mebibytes(count):
    return f"{count / (1 << 20):,.0f}" if count >= 10 << 20 else f"{count / (1 << 20):.1f}"


def measure(options, folder, operation, n, k, d, record):
    """One size: the rows of a Markdown table."""
    data = Data(folder, gaussian, n, k, d)
    cpu = options.device == "cpu"
    sizes, memory = {}, {}
    if cpu:
        memory[OURS] = our_memory(options, operation, data)
    for name in peers(operation, options):
        sizes[name] = n
        if not cpu:
            continue
        memory[name] = peer_memory(options, operation, name, n, k, d)
        while memory[name] is None:
            sizes[name] //= 2
            memory[name] = peer_memory(options, operation, name, sizes[name], k, d)

    ours = SemVQ(options.bench, options.threads, options.device)
    command = "train" if operation == "train" else "assign l2 float"
    codes_path = pathlib.Path(folder) / "codes"
    # The oracle's cost bounds how many features are checked.
    checked = min(n, max(256, int(2e11 // (k * d)))) if operation == "assign" else 0
    oracle = nearest_float64(data.z, data.e, checked) if checked else None
    e = data.e.to(options.device)
    rows = []
    for size in sorted({n, *sizes.values()}, reverse=True):
        data.load(ours, size)
        ours.ask(f"{command} {codes_path}")
        codes = {OURS: torch.frombuffer(bytearray(codes_path.read_bytes()), dtype=torch.int64)}
        data.load(ours, size)
        runs = {OURS: lambda: ours.ask(command)}
        z = data.z[:size].to(options.device)
        for name, make in peers(operation, options).items():
            if sizes[name] == size:
                run = make(z, e)
                codes[name] = run().cpu()
                runs[name] = lambda run=run: timed(run, options.device)
        once = max(run()["wall"] for run in runs.values())
        repeats = max(3, min(options.repeats, int(options.seconds / once)))
        times = take_turns(runs, repeats)
        if operation == "train":
            oracle, checked = codes[OURS], size
        for name, samples in times.items():
            right = min(size, checked)
            wrong = int((codes[name][:right] != oracle[:right]).sum())
            row = {
                "operation": operation, "n": size, "k": k, "d": d, "contender": name, "rounds": repeats,
                "wall": median(samples, "wall"), "cpu": median(samples, "cpu"), "samples": samples,
                "ratio_wall": ratio(samples, times[OURS], "wall"), "wrong": wrong, "checked": right,
                "extra": memory.get(name) if size == n or name != OURS else None,
                "out_of_memory_at": n if name != OURS and size < n else None,
            }
            if cpu:
                row["ratio_cpu"] = ratio(samples, times[OURS], "cpu")
            record.append(row)
            extra = ""
            if row["extra"] is not None:
                extra = f"{mebibytes(row['extra'])} ({100 * row['extra'] / (4 * size * k):.1f} %)"
            note = f"N = {n:,} takes more than {options.memory_gib:g} GiB" if row["out_of_memory_at"] else ""
            rows.append(
                f"| {k:,} | {d} | {size:,} | {name} | {milliseconds(row['wall'])} | {row['ratio_wall']:.2f} | "
                + (f"{row['ratio_cpu']:.2f} | {extra} | " if cpu else "")
                + f"{wrong} of {right:,} | {note} |")
            print(rows[-1], file=sys.stderr, flush=True)
        del z, runs
        gc.collect()
    ours.close()
    return rows


def exactness(options, folder, record):
    """How many codes are not the oracle's where codes tie or nearly do."""
    rows = []
    for n, k, d in ((4096, 4096, 32), (4096, 4096, 256)):
        data = Data(folder, tied, n, k, d)
        oracle = nearest_float64(data.z, data.e, n)
        path = pathlib.Path(folder) / "codes"
        ours = SemVQ(options.bench, options.threads, options.device)
        data.load(ours)
        ours.ask(f"assign l2 float {path}")
        ours.close()
        codes = {OURS: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.int64)}
        for name, make in peers("assign", options).items():
            codes[name] = make(data.z.to(options.device), data.e.to(options.device))().cpu()
        for name, got in codes.items():
            wrong = int((got != oracle).sum())
            record.append({"operation": "ties", "n": n, "k": k, "d": d, "contender": name, "wrong": wrong})
            rows.append(f"| {k:,} | {d} | {name} | {wrong} of {n:,} |")
    return rows


def table(title, head, rows):
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    print("\n".join(rows), flush=True)


def load_average():
    return "%.1f, %.1f, %.1f" % os.getloadavg()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", help="built //bench/quantizers:bench")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=11, help="rounds of a size, at most")
    parser.add_argument("--seconds", type=float, default=20, help="for the slowest contender at a size; at least 3 rounds")
    parser.add_argument("--n", type=int, default=12544)
    parser.add_argument("--dims", default="32,256")
    parser.add_argument("--sweep", default="1024,65536,262144", help="K besides 8,192; empty: none")
    parser.add_argument("--memory_gib", type=float, default=12, help="a peer that takes more gets half the N")
    parser.add_argument("--parts", default="assign,train,ties,sweep")
    parser.add_argument("--json", help="file for the raw samples")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        return probe(options)
    if not options.bench:
        parser.error("--bench is missing; run.sh gives it")

    torch.set_num_threads(options.threads)
    parts = options.parts.split(",")
    dims = [int(d) for d in options.dims.split(",")]
    cpu = options.device == "cpu"
    head = ["K", "d", "N", "contender", "ms", "time / ours"] + (
        ["CPU time / ours", "extra MiB (of N x K)"] if cpu else []) + ["codes not the oracle's", "note"]
    record = []
    before = load_average()
    with tempfile.TemporaryDirectory() as folder:
        if "assign" in parts:
            table("Nearest codes, float32, L2", head,
                  [row for d in dims for row in measure(options, folder, "assign", options.n, 8192, d, record)])
        if "train" in parts:
            train_head = ["codes not ours" if cell == "codes not the oracle's" else cell for cell in head]
            table("vq_ema: forward, backward and update of the codebook", train_head,
                  [row for d in dims for row in measure(options, folder, "train", options.n, 8192, d, record)])
        if "ties" in parts:
            table("Ties and near-ties", ["K", "d", "contender", "codes not the oracle's"],
                  exactness(options, folder, record))
        if "sweep" in parts and options.sweep:
            table("Nearest codes, by K", head,
                  [row for d in dims for k in options.sweep.split(",")
                   for row in measure(options, folder, "assign", options.n, int(k), d, record)])
    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{processor}, {options.threads} threads"
    print(f"\n{where}; torch {torch.__version__}; load average before {before}, after {load_average()}.")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"device": where, "rows": record}, indent=1))


if __name__ == "__main__":
    main()
