#!/usr/bin/env python3
"""Fails when a code block under a line `path` is not in that file."""

import pathlib
import re
import sys

# A line that is a path in backquotes, then a fenced block.
EXCERPT = re.compile(r"^`([\w./-]+)`\n\n```\w*\n(.*?)^```$", re.M | re.S)

here = pathlib.Path(__file__).resolve().parent
root = here.parent
checked, failures = 0, []
for page in sorted(here.glob("*.md")):
    for path, block in EXCERPT.findall(page.read_text()):
        checked += 1
        source = root / path
        if not source.is_file():
            failures.append(f"{page.name}: {path} does not exist")
        elif block.strip("\n") not in source.read_text():
            failures.append(f"{page.name}: this is not in {path}:\n{block}")
print("\n".join(failures))
print(f"{checked} excerpts, {len(failures)} stale")
sys.exit(1 if failures or checked == 0 else 0)
