#!/usr/bin/env bash
# Runs torchrun_test with the Python that tests/parity/run.sh installs, whose
# torch is setup.sh's LibTorch.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$(tests/parity/run.sh --install-only)
exec bazel test --test_env=SEMVQ_PYTHON="$python" //tests/distributed:torchrun_test "$@"
