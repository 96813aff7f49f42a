#!/usr/bin/env bash
# launch.sh BINARY [ARGUMENT ...]: runs a packed program on this machine's torch. PYTHON names the Python that has it.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
libraries=$("${PYTHON:-python3}" - <<'EOF'
import glob
import importlib.util
import os
import sys

spec = importlib.util.find_spec("torch")
if spec is None:
    sys.exit("launch.sh: this Python has no torch\n  next: PYTHON=/path/to/python ./run_tests.sh")
torch = spec.submodule_search_locations[0]
site = os.path.dirname(torch)
print(":".join([os.path.join(torch, "lib"), *sorted(glob.glob(os.path.join(site, "nvidia", "*", "lib")))]))
EOF
)
# Of its own libraries, only those this machine lacks in torch's.
export LD_LIBRARY_PATH=$libraries:$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$@"
