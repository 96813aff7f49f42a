#!/usr/bin/env python3
"""Measures what a step costs on one and on two ranks of this machine, and models it for 1 to 1,024.

    bench/scaling/run.py                          the quickstart, on two cores
    bench/scaling/run.py --assume=compute=0.09,bytes=1.13e9,latency=1e-5,bandwidth=5e10,overlap=1

The second line measures nothing: it prints the model for numbers of your own. ../README.md tells the method.
"""

import argparse
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
BUCKET = 25 << 20  # core/distributed/gradient_reducer.cc


def fail(message):
    sys.exit(f"bench/scaling/run.py: {message}")


def communication(ranks, bytes_, latency, bandwidth):
    """Seconds that each bucket of the gradients takes, by a ring or by a tree, whichever is faster [NCCL], and how many
    there are."""
    buckets = 1 + -(-bytes_ // BUCKET)
    if ranks == 1:
        return 0.0, buckets
    seconds = bytes_ / buckets / bandwidth
    ring = 2 * (ranks - 1) * latency + 2 * (ranks - 1) / ranks * seconds
    tree = 2 * math.ceil(math.log2(ranks)) * latency + 2 * seconds
    return min(ring, tree), buckets


def step(ranks, compute, input_, bytes_, latency, bandwidth, overlap):
    """Seconds of a step. The backward, two thirds of it, hides that share `overlap` of all buckets but the last, which
    is full when it ends."""
    bucket, buckets = communication(ranks, bytes_, latency, bandwidth)
    hidden = min(overlap * bucket * (buckets - 1), 2 / 3 * compute)
    return max(compute, input_) + bucket * buckets - hidden


def model_table(numbers):
    print("| ranks | all-reduce ms | step ms | efficiency |")
    print("|---|---|---|---|")
    alone = step(1, **numbers)
    for ranks in RANKS:
        bucket, buckets = communication(
            ranks, numbers["bytes_"], numbers["latency"], numbers["bandwidth"]
        )
        seconds = step(ranks, **numbers)
        print(
            f"| {ranks} | {1e3 * bucket * buckets:.1f} | {1e3 * seconds:.0f} | {100 * alone / seconds:.0f} % |"
        )


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_ranks(ranks, command, folder):
    """The processes of one launch; what they print goes to files of `folder`."""
    port = free_port()
    processes = []
    for rank in range(ranks):
        env = dict(os.environ, OMP_NUM_THREADS="1")
        if ranks > 1:
            env.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(ranks),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
        with open(folder / f"rank{rank}.txt", "w", encoding="utf-8") as out:
            processes.append(
                subprocess.Popen(
                    command,
                    env=env,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    return processes


def finish(processes, folder):
    codes = [p.wait() for p in processes]
    text = (folder / "rank0.txt").read_text(encoding="utf-8")
    if any(codes):
        fail(f"a process ended with {codes}:\n{text[-2000:]}")
    return text


def train_command(args, folder):
    # One stage without its tasks, each step's time logged, and none slower than the others.
    return [
        str(ROOT / "bazel-bin/trainer/trainer"),
        f"--config={ROOT}/configs/{args.config}",
        f"--stages={args.stage}",
        "--merge",
        f'name: "scaling" checkpoint {{ folder: "{folder}/run" }} '
        f"trainer {{ threads: 1 batch_size: {args.batch_size} }} "
        f"logging {{ every: 1 tensorboard: false gradient_share_every: 0 }} "
        f'stages {{ name: "{args.stage}" with {{ trainer {{ steps: {args.steps} }} '
        + " ".join(f'tasks {{ name: "{t}" evaluate: false }}' for t in args.tasks)
        + "}}",
    ]


def step_seconds(folder, stage):
    """The median over steps, the first five left out, and the share of waiting for data."""
    lines = (folder / "run" / stage / "metrics.jsonl").read_text().splitlines()
    times = [json.loads(line)["time"] for line in lines]
    gaps = sorted(b - a for a, b in zip(times[5:], times[6:]))
    result = (folder / "run" / stage / "result.pbtxt").read_text()
    wait = re.search(r"data_wait_share: ([0-9.e+-]+)", result)
    return gaps[len(gaps) // 2], float(wait.group(1)) if wait else 0.0


def measure(args):
    subprocess.run(
        ["bazel", "build", "//trainer", "//bench/scaling:collectives"],
        cwd=ROOT,
        check=True,
        stdout=sys.stderr,
    )
    with tempfile.TemporaryDirectory(prefix="semvq_scaling_") as temporary:
        top = pathlib.Path(temporary)

        def run(name, launches):
            """Several launches at once, each of so many ranks."""
            running = []
            for i, ranks in enumerate(launches):
                folder = top / f"{name}{i}"
                folder.mkdir()
                running.append(
                    (
                        start_ranks(ranks, train_command(args, folder), folder),
                        folder,
                    )
                )
            for processes, folder in running:
                finish(processes, folder)
            return [step_seconds(folder, args.stage) for _, folder in running]

        plan = subprocess.run(
            train_command(args, top) + ["--mode=plan"],
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"^all +\d+ +(\d+) ", plan.stdout, re.M)
        if not found:
            fail("--mode=plan tells no number of parameters:\n" + plan.stderr[-2000:])
        bytes_ = 4 * int(found.group(1))

        # One rank while another core idles, and while the other trains alike: the second is what each of two ranks
        # computes, for they share caches and memory.
        (alone, _), = run("alone", [1])
        beside = run("beside", [1, 1])
        (two, _), = run("two", [2])
        compute = sum(s for s, _ in beside) / 2
        wait = sum(w for _, w in beside) / 2

        folder = top / "collectives"
        folder.mkdir()
        text = finish(
            start_ranks(
                2, [str(ROOT / "bazel-bin/bench/scaling/collectives")], folder
            ),
            folder,
        )
        sizes = json.loads(text.splitlines()[-1])["all_reduce"]
    # Between two ranks: 2 latency + bytes / bandwidth.
    latency = sizes[0]["seconds"] / 2
    bucket = next(s for s in sizes if s["bytes"] == BUCKET)
    bandwidth = BUCKET / (bucket["seconds"] - 2 * latency)

    print(f"`{args.config}`, stage {args.stage}, {args.batch_size} images a rank, one thread a rank\n")
    print("| measured | |")
    print("|---|---|")
    print(f"| step of one rank, the other core idle | {1e3 * alone:.0f} ms |")
    print(f"| step of one rank, another alone beside it | {1e3 * compute:.0f} ms |")
    print(f"| of it waiting for data | {100 * wait:.1f} % |")
    print(f"| step of two ranks | {1e3 * two:.0f} ms |")
    print(f"| gradients sent | {bytes_ / 2**20:.1f} MiB |")
    print(f"| latency of a message | {1e6 * latency:.0f} µs |")
    print(f"| bandwidth of all-reduce, 25 MiB | {bandwidth / 1e9:.2f} GB/s |")
    for s in sizes:
        print(f"| all-reduce of {s['bytes']} bytes | {1e3 * s['seconds']:.3f} ms |")
    numbers = dict(
        compute=compute,
        input_=0.0,
        bytes_=bytes_,
        latency=latency,
        bandwidth=bandwidth,
        overlap=0.0,  # A core that sends does not compute.
    )
    print(
        f"\nTwo ranks: {1e3 * step(2, **numbers):.0f} ms by the model, {1e3 * two:.0f} ms measured. "
        "The rest is model:\n"
    )
    model_table(numbers)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="quickstart.pbtxt")
    parser.add_argument("--stage", default="pretrain")
    parser.add_argument(
        "--tasks",
        nargs="*",
        default=["unseen_concepts", "random_pairs", "mim_accuracy", "semantics"],
        help="the stage's tasks, which are left out",
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--assume",
        metavar="NAME=NUMBER,...",
        help="compute (seconds of a step), bytes (of the gradients), latency (seconds), bandwidth (bytes a second), "
        "overlap (share of the all-reduce that the backward may hide), input (seconds a batch takes to load; 0)",
    )
    args = parser.parse_args()
    # Python leaves it ignored, and children inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if args.assume:
        given = dict(part.split("=") for part in args.assume.split(","))
        wanted = {"compute", "bytes", "latency", "bandwidth", "overlap"}
        if not wanted <= given.keys() or given.keys() - wanted - {"input"}:
            fail(f"--assume got {sorted(given)}, expected {sorted(wanted)} and perhaps input")
        model_table(
            dict(
                compute=float(given["compute"]),
                input_=float(given.get("input", 0)),
                bytes_=int(float(given["bytes"])),
                latency=float(given["latency"]),
                bandwidth=float(given["bandwidth"]),
                overlap=float(given["overlap"]),
            )
        )
    else:
        measure(args)


if __name__ == "__main__":
    main()
