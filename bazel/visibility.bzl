"""One-way dependencies, held by visibility.

    {protos, kernels} <- core <- data <- plugins <- trainer <- tools, tests, bench

A package opens itself with, for example,

    load("//bazel:visibility.bzl", "CORE_VIS")
    package(default_visibility = CORE_VIS)

Each group names who may NOT depend on the layer, because out-of-tree plugins,
whose repositories cannot be listed, may depend on everything.
"""

_PLUGIN_LAYER = ["encoders", "quantizers", "objectives", "tasks"]

_BELOW = {
    "protos": ["kernels"],
    "kernels": ["protos"],
    "core": ["protos", "kernels"],
    "data": ["protos", "kernels", "core"],
    "plugin": ["protos", "kernels", "core", "data"] + _PLUGIN_LAYER,
    "trainer": ["protos", "kernels", "core", "data"] + _PLUGIN_LAYER,
}

PROTOS_VIS = ["//bazel:protos_users"]
KERNELS_VIS = ["//bazel:kernels_users"]
CORE_VIS = ["//bazel:core_users"]
DATA_VIS = ["//bazel:data_users"]

# Encoders, quantizers, objectives, tasks and data sources: nobody below the
# trainer, other plugins included, may depend on one.
PLUGIN_VIS = ["//bazel:plugin_users"]
TRAINER_VIS = ["//bazel:trainer_users"]

def layer_groups():
    """Declares the package groups behind the constants; only for //bazel."""
    for layer, excluded in _BELOW.items():
        native.package_group(
            name = layer + "_users",
            packages = ["//..."] + ["-//%s/..." % folder for folder in excluded],
        )
