"""@torch: LibTorch out of the PyPI wheel, untouched."""

TORCH_VERSION = "2.11.0"

# The wheel's include folder also holds google/ and other third-party headers
# that would shadow the system's.
_HEADER_FOLDERS = ["ATen", "c10", "caffe2", "fmt", "torch"]

_BUILD = """package(default_visibility = ["//visibility:public"])

config_setting(
    name = "cuda",
    define_values = {{"cuda": "true"}},
)

cc_library(
    name = "torch",
    hdrs = glob(["include/**/*.h", "include/**/*.cuh", "include/**/*.hpp"]),
    defines = ["USE_C10D_GLOO"] + select({{
        ":cuda": [
            "USE_C10D_NCCL",
            "SEMVQ_CUDA",
        ],
        "//conditions:default": [],
    }}),
    includes = [
        "include",
        "include/torch/csrc/api/include",
    ],
    linkopts = {search} + select({{
        ":cuda": {cuda_libs},
        "//conditions:default": {cpu_libs},
    }}),
    deps = select({{
        ":cuda": ["{cuda}"],
        "//conditions:default": [],
    }}),
)
"""

def _python_site(ctx):
    python = ctx.which("python3")
    if not python:
        return None
    result = ctx.execute([python, "-c", "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"])
    return result.stdout.strip() if result.return_code == 0 else None

def _version(ctx, path):
    file = ctx.path(path + "/version.py")
    if not file.exists or not ctx.path(path + "/lib/libtorch_cpu.so").exists:
        return None
    for line in ctx.read(file).split("\n"):
        if line.startswith("__version__"):
            return line.split("=")[1].strip(" '\"")
    return None

def _find(ctx):
    explicit = ctx.os.environ.get("TORCH_PATH")
    if explicit:
        version = _version(ctx, explicit)
        if not version or not version.startswith(TORCH_VERSION):
            fail("TORCH_PATH=%s holds LibTorch %s, but SemVQ needs %s; run ./setup.sh" %
                 (explicit, version or "nowhere (no version.py or lib/libtorch_cpu.so)", TORCH_VERSION))
        return explicit
    home = ctx.os.environ.get("HOME", "")
    cache = ctx.os.environ.get("SEMVQ_CACHE") or (ctx.os.environ.get("XDG_CACHE_HOME") or home + "/.cache") + "/semvq"
    tried = [_python_site(ctx), "%s/libtorch-%s/torch" % (cache, TORCH_VERSION)]
    for path in tried:
        if path and (_version(ctx, path) or "").startswith(TORCH_VERSION):
            return path
    fail("LibTorch %s was found neither by TORCH_PATH nor in %s; run ./setup.sh" %
         (TORCH_VERSION, " nor in ".join([path for path in tried if path])))

def _torch_repository_impl(ctx):
    path = _find(ctx)
    for folder in _HEADER_FOLDERS:
        ctx.symlink(path + "/include/" + folder, "include/" + folder)
    search = ["-L%s/lib" % path, "-Wl,-rpath,%s/lib" % path]

    # libtorch_cpu needs CUPTI and the CUDA runtime even on a CPU; setup.sh
    # puts the small wheels here when the system has no CUDA.
    if ctx.path(path + "/../nvidia/cu13/lib").exists:
        search.append("-Wl,-rpath-link,%s/../nvidia/cu13/lib" % path)

    # Never --as-needed: OpenCV reaches a reference libblas that exports the
    # same sgemm_ as libtorch_cpu. The loader searches breadth first, so a
    # direct dependency on libtorch_cpu makes the fast one win in any order.
    cpu_libs = ["-Wl,--push-state,--no-as-needed", "-ltorch_cpu", "-lc10", "-Wl,--pop-state"]
    cuda_libs = [
        "-Wl,--push-state,--no-as-needed",
        "-ltorch",
        "-ltorch_cpu",
        "-ltorch_cuda",
        "-lc10_cuda",
        "-lc10",
        "-Wl,--pop-state",
        "-Wl,--allow-shlib-undefined",
    ]
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.file("BUILD", _BUILD.format(
        search = repr(search),
        cpu_libs = repr(cpu_libs),
        cuda_libs = repr(cuda_libs),
        cuda = Label("@cuda//:cuda"),
    ))

torch_repository = repository_rule(
    implementation = _torch_repository_impl,
    environ = ["TORCH_PATH", "SEMVQ_CACHE", "XDG_CACHE_HOME"],
    local = True,
    doc = "LibTorch from TORCH_PATH, else an installed torch, else setup.sh's cache.",
)
