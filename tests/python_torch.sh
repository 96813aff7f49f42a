#!/usr/bin/env bash
# Makes a Python whose torch is the LibTorch of setup.sh, without fetching that again, and prints its path:
#
#   tests/python_torch.sh FOLDER        FOLDER becomes the virtual environment
#
# Takes no time when FOLDER is one already. Where the machine has CUDA's libraries three packages are fetched
# (300 MB), else all that torch loads (2 GB).
set -Eeuo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SEMVQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/semvq}
torch_version=$(sed -n 's/^readonly LIBTORCH_VERSION=//p' "$root/setup.sh")
libtorch=$cache/libtorch-$torch_version
venv=$1
python=$venv/bin/python

fail() {
  printf 'tests/python_torch.sh: %s\n  next: %s\n' "$1" "$2" >&2
  exit 1
}

pip_install() {
  # The system's own pip: a virtual environment gets one only from another package of Debian.
  python3 -m pip --python "$python" --quiet --disable-pip-version-check install "$@" >&2 ||
    fail "pip could not install $*" "check the network, then run this again"
}

# The files are linked one by one: libraries look for others beside the folder they were opened in, and that must be
# the folder where pip puts them.
install() {
  local site name pin lost
  rm -rf "$venv"
  python3 -m venv --without-pip "$venv" ||
    fail "Python cannot make the virtual environment $venv" "./setup.sh, then run this again"
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  for name in torch torchgen functorch nvidia "torch-$torch_version.dist-info"; do
    [[ ! -e $libtorch/$name ]] || cp -rs "$libtorch/$name" "$site/$name"
  done
  # What Python's torch loads beyond LibTorch's CPU part, in the versions that its package pins.
  for name in cufile:nvidia-cufile==1.15.1.* cusparselt:cusparselt nvshmem:nvshmem cudnn:cudnn nccl:nccl; do
    lost=$(ldd "$libtorch/torch/lib/libtorch_cuda.so" | grep -i "lib${name%%:*}.*not found" || true)
    [[ -n $lost ]] || continue
    pin=${name#*:}
    [[ $pin == *==* ]] || pin=$(sed -n "s/^Requires-Dist: \(nvidia-$pin-cu13==[0-9.]*\).*/\1/p" \
      "$libtorch/torch-$torch_version.dist-info/METADATA")
    pip_install --no-deps "$pin"
  done
  if ldd "$libtorch/torch/lib/libtorch_cuda.so" | grep -qE 'lib(cublas|cufft|cusparse)\.so.*not found' &&
    [[ ! -d $libtorch/nvidia/cu13 ]]; then
    pip_install "cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.0.2"
  fi
  pip_install filelock fsspec jinja2 networkx numpy sympy typing-extensions 'setuptools<82'
  "$python" -c 'import torch' >&2 || fail "Python does not import torch" "remove $venv and run this again"
  echo "$torch_version" >"$venv/torch_version"
}

if [[ $(cat "$venv/torch_version" 2>/dev/null) != "$torch_version" ]]; then
  [[ -d $libtorch/torch ]] || fail "no LibTorch $torch_version in $cache" "./setup.sh"
  echo "Installing torch for Python into $venv" >&2
  install
fi
echo "$python"
