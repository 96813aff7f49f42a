"""nvcc_library: CUDA sources as a library that any cc rule can depend on."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

# Machine code for Hopper, and PTX that the driver compiles for anything from
# Ampere on.
_ARCHITECTURES = [
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_80,code=compute_80",
]

_FLAGS = [
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "--expt-relaxed-constexpr",
    "-Werror=all-warnings",
    "-Xcompiler=-fPIC,-Wall,-Wextra",
]

def _nvcc_library_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    own = CcInfo(compilation_context = cc_common.create_compilation_context(
        headers = depset(ctx.files.hdrs),
    ))
    context = cc_common.merge_cc_infos(
        cc_infos = [own] + [dep[CcInfo] for dep in ctx.attr.deps],
    ).compilation_context

    objects = []
    for source in ctx.files.srcs:
        object = ctx.actions.declare_file("_objs/%s/%s.o" % (ctx.label.name, source.basename))
        arguments = ctx.actions.args()
        arguments.add_all(_ARCHITECTURES + _FLAGS + ctx.attr.copts)
        arguments.add_all(context.defines, format_each = "-D%s")
        arguments.add_all(context.quote_includes, before_each = "-I")
        arguments.add_all(context.includes, before_each = "-I")
        arguments.add_all(context.system_includes, before_each = "-isystem")
        arguments.add("-I.")
        arguments.add("-c", source)
        arguments.add("-o", object)
        ctx.actions.run(
            executable = ctx.executable._nvcc,
            arguments = [arguments],
            inputs = depset([source], transitive = [context.headers]),
            outputs = [object],
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s for the GPU" % source.short_path,
            use_default_shell_env = True,
        )
        objects.append(object)

    linking, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = features,
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        linking_contexts = [dep[CcInfo].linking_context for dep in ctx.attr.deps],
        disallow_dynamic_library = True,
    )
    return [
        DefaultInfo(files = depset(objects)),
        CcInfo(compilation_context = context, linking_context = linking),
    ]

_nvcc_library = rule(
    implementation = _nvcc_library_impl,
    attrs = {
        "copts": attr.string_list(doc = "Further flags for nvcc."),
        "deps": attr.label_list(providers = [CcInfo]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "srcs": attr.label_list(allow_files = [".cu"], mandatory = True),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
        "_nvcc": attr.label(default = "@cuda//:nvcc", executable = True, cfg = "host"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def nvcc_library(name, deps = [], tags = [], **kwargs):
    """Compiles .cu files; keep them free of LibTorch's headers.

    The target is built only where something depends on it, which a cc_library
    does by

        deps = select({"//bazel:cuda": [":my_cuda"], "//conditions:default": []})

    Args:
      name: the target's name.
      deps: cc libraries whose headers the sources include. The CUDA runtime
        is always among them.
      tags: "manual" is always among them, so that `//...` needs no CUDA.
      **kwargs: srcs (.cu), hdrs, copts, visibility.
    """
    _nvcc_library(
        name = name,
        deps = deps + [Label("@cuda//:cuda")],
        tags = tags + ["manual"],
        **kwargs
    )
