"""semvq_plugin: the build rules of one plugin folder."""

load("//bazel:visibility.bzl", "PLUGIN_VIS")

_REGISTRY = Label("//core/plugin:plugin")
_GTEST = Label("@gtest//:gtest_main")
_OPTIONS = Label("//protos:options_proto")  # (semvq.plugin_doc)

def semvq_plugin(
        name,
        srcs = None,
        hdrs = None,
        deps = [],
        proto = None,
        proto_deps = [],
        register = None,
        test_srcs = None,
        test_deps = [],
        test_data = [],
        test_size = "small",
        test_tags = None,
        visibility = None):
    """Declares the targets of the plugin in this folder.

    By convention a folder holds config.proto, <name>.h, <name>.cc, register.cc
    and <name>_test.cc; then `semvq_plugin(name = "fsq", deps = [...])` is the
    whole BUILD file. It emits

      <name>_proto, <name>_cc_proto   the typed config
      <name>                          the implementation; knows no registry
      plugin                          the implementation, registered (alwayslink);
                                      what plugins.bzl names
      <name>_test                     with googletest's main, if tests exist

    Every conformance*.pbtxt in the folder travels with the registered library
    as runfiles: tests/conformance merges it into its neutral experiment and
    checks the plugin there (without one, with its default config).

    Outside SemVQ three files do: BUILD, <name>.proto, and a <name>.cc that ends
    with its SEMVQ_REGISTER line. Without a register.cc, <name> itself is
    registered, so that `--//trainer:extra_plugins=@mine//<name>` links it, and
    `plugin` is another name for it.

    Args:
      name: the plugin's name; usually the folder's.
      srcs: implementation files; default [<name>.cc].
      hdrs: headers; default [<name>.h] where it exists.
      deps: libraries of the implementation. The config's C++ code and
        //core/plugin are always among them.
      proto: the config's schema; default config.proto, else <name>.proto.
      proto_deps: proto_library targets the schema imports.
      register: the file with SEMVQ_REGISTER; default register.cc where it exists.
      test_srcs: default [<name>_test.cc] where it exists; [] for no test.
      test_deps: further libraries of the test; the implementation's are there.
      test_data: files the test reads.
      test_size: small (60 s), medium, large.
      test_tags: tags of the test; in SemVQ's tree, default for data sources:
        sanitize, as they read what others wrote and are free of LibTorch.
      visibility: in SemVQ's tree, default: the trainer and what stands above it.
    """
    kind = native.package_name().split("/")[0]
    in_tree = native.repository_name() in ["@", ""] and kind in _IN_TREE_FOLDERS
    if test_tags == None:
        test_tags = ["sanitize"] if in_tree and kind == "data" else []
    if visibility == None:
        # A kind's own package may gather its plugins, as //quantizers:lib does.
        visibility = PLUGIN_VIS + ["//%s:__pkg__" % kind] if in_tree else ["//visibility:public"]
    if srcs == None:
        srcs = [name + ".cc"]
    if hdrs == None:
        hdrs = native.glob([name + ".h"], allow_empty = True)
    if proto == None:
        proto = "config.proto" if native.glob(["config.proto"], allow_empty = True) else name + ".proto"
    if register == None and native.glob(["register.cc"], allow_empty = True):
        register = "register.cc"
    if test_srcs == None:
        test_srcs = native.glob([name + "_test.cc"], allow_empty = True)

    native.proto_library(
        name = name + "_proto",
        srcs = [proto],
        visibility = visibility,
        deps = _unique(proto_deps + [_OPTIONS]),
    )
    native.cc_proto_library(
        name = name + "_cc_proto",
        visibility = visibility,
        deps = [":%s_proto" % name],
    )

    snippets = native.glob(["conformance*.pbtxt"], allow_empty = True)

    # A target may be named twice by the caller; Bazel refuses duplicates.
    lib_deps = _unique(deps + [":%s_cc_proto" % name, _REGISTRY])
    native.cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        visibility = visibility,
        data = [] if register else snippets,
        deps = lib_deps,
        alwayslink = not register,
    )
    if register:
        native.cc_library(
            name = "plugin",
            srcs = [register],
            visibility = visibility,
            data = snippets,
            deps = _unique([":" + name, ":%s_cc_proto" % name, _REGISTRY]),
            alwayslink = True,
        )
    elif name != "plugin":
        native.alias(
            name = "plugin",
            actual = ":" + name,
            visibility = visibility,
        )
    if test_srcs:
        native.cc_test(
            name = name + "_test",
            size = test_size,
            srcs = test_srcs,
            data = test_data,
            tags = test_tags,
            deps = _unique([":" + name] + lib_deps + test_deps + [_GTEST]),
        )

_IN_TREE_FOLDERS = ["encoders", "quantizers", "objectives", "tasks", "data"]

def _unique(deps):
    seen = {}
    for dep in deps:
        text = str(dep)

        # "//core/plugin" and "//core/plugin:plugin" are the same target.
        if ":" not in text:
            text += ":" + text.split("/")[-1]
        for prefix in ["@semvq//", "@@//", "@//"]:
            if text.startswith(prefix):
                text = "//" + text[len(prefix):]
        if text not in seen:
            seen[text] = dep
    return seen.values()
