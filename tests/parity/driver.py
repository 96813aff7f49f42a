"""Runs every check_*.py of this folder and prints one table.

A check is a module with `run(report)`; it calls report.measure() for what it
compared. See README.md.
"""

import importlib
import pathlib
import sys
import time
import traceback


class Report:
    """What the checks found."""

    def __init__(self):
        self.rows = []
        self.group = ""

    def measure(self, name, value, limit, unit="max abs difference", note=""):
        """Records a number that must not exceed `limit` (NaN always does)."""
        self.rows.append((self.group, name, value, limit, unit, note,
                          value <= limit))

    def require(self, name, holds, note=""):
        """Records a statement that must be true."""
        self.measure(name, 0 if holds else 1, 0, "violations", note)

    def print(self):
        header = ("check", "what", "got", "limit", "unit", "", "note")
        table = [(group, name, f"{value:.3g}", f"{limit:.3g}", unit,
                  "ok" if ok else "FAILED", note)
                 for group, name, value, limit, unit, note, ok in self.rows]
        widths = [max(len(row[i]) for row in [header, *table])
                  for i in range(len(header))]
        for row in [header, tuple("-" * w for w in widths), *table]:
            print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths))
                  + " |")

    def failures(self):
        return sum(not row[-1] for row in self.rows)


def main(names):
    here = pathlib.Path(__file__).parent
    found = sorted(p.stem[len("check_"):] for p in here.glob("check_*.py"))
    unknown = sorted(set(names) - set(found))
    if unknown:
        sys.exit(f"no check {', '.join(unknown)}; there are: "
                 f"{', '.join(found)}")
    report = Report()
    for name in names or found:
        report.group = name
        started = time.time()
        print(f"== {name}", flush=True)
        before = len(report.rows)
        try:
            importlib.import_module(f"check_{name}").run(report)
        except Exception:  # One broken check must not hide the others.
            traceback.print_exc()
            report.require("ran to its end", False, "see the trace above")
        if len(report.rows) == before:
            report.require("compared something", False)
        print(f"   {time.time() - started:.1f} s", flush=True)
    print()
    report.print()
    failed = report.failures()
    print(f"\n{len(report.rows) - failed} comparisons hold, {failed} do not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
