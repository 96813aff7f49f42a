#!/usr/bin/env bash
# Runs torchrun_test with a Python of its own, whose torch is setup.sh's LibTorch. Arguments go to bazel test.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cache=${SEMVQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/semvq}
python=$(tests/python_torch.sh "$cache/torchrun")
exec bazel test --test_env=SEMVQ_PYTHON="$python" "$@" //tests/distributed:torchrun_test
