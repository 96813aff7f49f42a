#!/usr/bin/env bash
# Builds the GPU tests and benchmarks with --config=cuda and packs them, with the small libraries they need, into a
# folder (default gpu_pack/ in the repository) for a machine that has a GPU and torch but no Bazel. LibTorch, CUDA,
# NCCL and cuDNN are not packed: they are those of that machine's torch package.
#
#   tools/gpu/pack.sh [FOLDER]
#
# There: FOLDER/run_tests.sh and FOLDER/run_bench.sh.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$root/gpu_pack}
limit_mib=64
targets=(//bench/quantizers:bench //kernels:kernels_cuda_test)

fail() {
  printf 'tools/gpu/pack.sh: %s\n  next: %s\n' "$1" "$2" >&2
  exit 1
}

cd "$root"
bazel build --config=cuda ${BAZEL_FLAGS:-} "${targets[@]}" || fail "the build failed" "./setup.sh --cuda"

mkdir -p "$folder"
rm -rf "$folder"/{bin,lib,bench}
mkdir "$folder"/{bin,lib,bench}
for target in "${targets[@]}"; do
  path=${target#//}
  install -m 755 "bazel-bin/${path/://}" "$folder/bin/"
done
cp bench/quantizers/compare.py "$folder/bench/"
cp "$here"/{launch,run_tests,run_bench}.sh "$folder/"

# What glibc, the compiler or torch brings is there already.
theirs='^(ld-linux|lib(c|m|dl|rt|pthread|util|stdc\+\+|gcc_s|torch|c10|cuda|cublas|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|nccl|nvJitLink|nvrtc|nvshmem|shm|caffe2)[._-]|lib(torch|c10|cuda|cu|nv)[a-zA-Z0-9_]*\.so)'
for binary in "$folder"/bin/*; do
  ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | while read -r name path; do
    [[ $name =~ $theirs ]] || install -m 644 "$path" "$folder/lib/$name"
  done
done
strip "$folder"/bin/* "$folder"/lib/*

size=$(du -sm "$folder" | cut -f1)
((size <= limit_mib)) || fail "$folder has $size MiB; $limit_mib may be carried" "du -a $folder | sort -n"
echo "$folder: $size MiB"
