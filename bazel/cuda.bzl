"""@cuda: nvcc, the CUDA runtime and NCCL, for --config=cuda alone."""

# Without CUDA the repository still loads, and says so when it is used.
_NO_NVCC = """#!/bin/sh
echo "no CUDA toolkit was found in CUDA_HOME or /usr/local/cuda; run ./setup.sh --cuda" >&2
exit 1
"""

_BUILD = """package(default_visibility = ["//visibility:public"])

sh_binary(
    name = "nvcc",
    srcs = ["nvcc.sh"],
)

cc_library(
    name = "cuda",
    hdrs = glob(["include/**"], allow_empty = True),
    includes = {includes},
    linkopts = {linkopts},
)
"""

def _cuda_repository_impl(ctx):
    home = ctx.os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    found = ctx.path(home + "/bin/nvcc").exists
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    includes = []
    linkopts = []
    if found:
        ctx.file("nvcc.sh", "#!/bin/sh\nexec %s/bin/nvcc \"$@\"\n" % home)
        ctx.symlink(home + "/include", "include/cuda")
        includes = ["include/cuda"]
        folders = ["%s/%s" % (home, lib) for lib in ["lib64", "lib"]]

        # NCCL comes apart from the toolkit, in places.
        nccl = ctx.os.environ.get("NCCL_HOME") or "/usr"
        if nccl not in [home, "/usr", "/usr/local"]:
            ctx.symlink(nccl + "/include", "include/nccl")
            includes.append("include/nccl")
            folders.append(nccl + "/lib")
        for folder in folders:
            if ctx.path(folder).exists:
                linkopts += ["-L" + folder, "-Wl,-rpath," + folder]

        # By their full names: PyPI's packages have no libcudart.so, only the
        # name the loader asks for.
        linkopts += ["-l:libcudart.so.13", "-l:libnccl.so.2"]
    else:
        ctx.file("nvcc.sh", _NO_NVCC)
    ctx.file("BUILD", _BUILD.format(includes = repr(includes), linkopts = repr(linkopts)))

cuda_repository = repository_rule(
    implementation = _cuda_repository_impl,
    environ = ["CUDA_HOME", "NCCL_HOME"],
    local = True,
    doc = "The CUDA toolkit of CUDA_HOME, else of /usr/local/cuda.",
)
