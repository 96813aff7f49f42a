"""@com_google_protobuf on the system's protoc and libprotobuf."""

_WELL_KNOWN = {
    "any": [],
    "api": ["source_context", "type"],
    "descriptor": [],
    "duration": [],
    "empty": [],
    "field_mask": [],
    "source_context": [],
    "struct": [],
    "timestamp": [],
    "type": ["any", "source_context"],
    "wrappers": [],
}

_BUILD = """package(default_visibility = ["//visibility:public"])

sh_binary(
    name = "protoc",
    srcs = ["protoc.sh"],
)

cc_library(
    name = "protobuf",
    linkopts = ["-lprotobuf", "-pthread"],
)

# Native proto rules look for this name as well.
alias(
    name = "protobuf_lite",
    actual = ":protobuf",
)

proto_lang_toolchain(
    name = "cc_toolchain",
    blacklisted_protos = [{well_known}],
    command_line = "--cpp_out=$(OUT)",
    runtime = ":protobuf",
)
"""

_PROTO = """
proto_library(
    name = "{name}_proto",
    srcs = ["include/google/protobuf/{name}.proto"],
    strip_import_prefix = "include",
    deps = [{deps}],
)
"""

def _system_protobuf_repository_impl(ctx):
    protoc = ctx.which("protoc")
    headers = "/usr/include/google/protobuf"
    if not protoc or not ctx.path(headers + "/any.proto").exists:
        fail("protobuf is missing (Debian packages protobuf-compiler, libprotobuf-dev); run ./setup.sh")
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.file("protoc.sh", "#!/bin/sh\nexec %s \"$@\"\n" % protoc)
    build = _BUILD.format(well_known = ", ".join([
        "\":%s_proto\"" % name
        for name in _WELL_KNOWN
    ]))
    for name, deps in _WELL_KNOWN.items():
        ctx.symlink(
            "%s/%s.proto" % (headers, name),
            "include/google/protobuf/%s.proto" % name,
        )
        build += _PROTO.format(
            name = name,
            deps = ", ".join(["\":%s_proto\"" % dep for dep in deps]),
        )
    ctx.file("BUILD", build)

system_protobuf_repository = repository_rule(
    implementation = _system_protobuf_repository_impl,
    local = True,
    doc = "protobuf as the system ships it; SemVQ never builds a second one.",
)
