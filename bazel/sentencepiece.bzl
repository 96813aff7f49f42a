"""@sentencepiece: built from its PyPI source archive on the system's protobuf.

Debian's libsentencepiece.so exports the symbols of the protobuf 3.14 inside
it. In one process with the system's protobuf either library then calls into
the other and the process dies, whatever the link order. Upstream supports
building on an external protobuf, so that is what happens here.
"""

SENTENCEPIECE_VERSION = "0.2.0"

_BUILD = """package(default_visibility = ["//visibility:public"])

genrule(
    name = "protos",
    srcs = [
        "src/sentencepiece.proto",
        "src/sentencepiece_model.proto",
    ],
    outs = [
        "gen/sentencepiece.pb.cc",
        "gen/sentencepiece.pb.h",
        "gen/sentencepiece_model.pb.cc",
        "gen/sentencepiece_model.pb.h",
    ],
    cmd = "$(location @com_google_protobuf//:protoc) -I$$(dirname $(location src/sentencepiece.proto)) --cpp_out=$(@D)/gen $(SRCS)",
    tools = ["@com_google_protobuf//:protoc"],
)

cc_library(
    name = "sentencepiece",
    srcs = glob(
        [
            "src/*.cc",
            "src/*.h",
            "third_party/absl/**/*.cc",
            "third_party/absl/**/*.h",
            "third_party/darts_clone/*.h",
            "third_party/esaxx/*.hxx",
        ],
        exclude = [
            "src/*_main.cc",
            "src/*_test.cc",
            "src/init_test.cc",
            "src/test_main.cc",
            "src/testharness.cc",
            "src/sentencepiece_processor.h",
            "src/sentencepiece_trainer.h",
        ],
    ) + [
        "gen/config.h",
        ":protos",
    ],
    hdrs = [
        "src/sentencepiece_processor.h",
        "src/sentencepiece_trainer.h",
    ],
    copts = [
        "-w",
        "-D_USE_EXTERNAL_PROTOBUF",
        "-Iexternal/sentencepiece",
        "-Iexternal/sentencepiece/gen",
        "-I$(GENDIR)/external/sentencepiece/gen",
    ],
    includes = ["src"],
    linkopts = ["-pthread"],
    deps = ["@com_google_protobuf//:protobuf"],
)
"""

def _sentencepiece_repository_impl(ctx):
    home = ctx.os.environ.get("HOME", "")
    cache = ctx.os.environ.get("SEMVQ_CACHE") or (ctx.os.environ.get("XDG_CACHE_HOME") or home + "/.cache") + "/semvq"
    path = ctx.os.environ.get("SENTENCEPIECE_PATH") or "%s/sentencepiece-%s" % (cache, SENTENCEPIECE_VERSION)
    version = ctx.path(path + "/VERSION.txt")
    got = ctx.read(version).strip() if version.exists else "nothing"
    if got != SENTENCEPIECE_VERSION:
        fail("sentencepiece's source %s was not found in %s (it holds %s); run ./setup.sh, or name its folder by SENTENCEPIECE_PATH" %
             (SENTENCEPIECE_VERSION, path, got))
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.symlink(path + "/src", "src")
    ctx.symlink(path + "/third_party", "third_party")
    ctx.file("gen/config.h", """#ifndef CONFIG_H_
#define CONFIG_H_
#define VERSION "%s"
#define PACKAGE "sentencepiece"
#define PACKAGE_STRING "sentencepiece"
#endif
""" % SENTENCEPIECE_VERSION)
    ctx.file("BUILD", _BUILD)

sentencepiece_repository = repository_rule(
    implementation = _sentencepiece_repository_impl,
    environ = ["HOME", "SEMVQ_CACHE", "SENTENCEPIECE_PATH", "XDG_CACHE_HOME"],
    local = True,
)
