"""Libraries of the system, found by pkg-config."""

_BUILD = """package(default_visibility = ["//visibility:public"])

cc_library(
    name = "{name}",
    hdrs = glob(["include/**"], allow_empty = True),
    includes = {includes},
    linkopts = {linkopts},
)
"""

_MAIN = """
cc_library(
    name = "{name}_main",
    linkopts = {linkopts},
    deps = [":{name}"],
)
"""

def _run(ctx, arguments, package):
    tool = ctx.which("pkg-config")
    if not tool:
        fail("pkg-config is not installed; run ./setup.sh")
    result = ctx.execute([tool] + arguments)
    if result.return_code != 0:
        fail("@%s: the system library is missing (Debian package %s); run ./setup.sh\n%s" %
             (ctx.name, package, result.stderr))
    return result.stdout

def _pkg_config(ctx, arguments, package):
    words = _run(ctx, arguments, package).replace("\n", " ").split(" ")
    return [word for word in words if word]

def _expand(ctx, pattern, package):
    if not pattern.endswith("*"):
        return [pattern]
    prefix = pattern[:-1]
    lines = _run(ctx, ["--list-all"], package).split("\n")
    found = sorted([line.split(" ")[0] for line in lines if line.startswith(prefix)])
    if not found:
        fail("@%s: no pkg-config module is named %s (Debian package %s); run ./setup.sh" %
             (ctx.name, pattern, package))
    return found

def _as_needed(flags):
    return ["-Wl,--push-state,--as-needed"] + flags + ["-Wl,--pop-state"] if flags else []

def _system_library_impl(ctx):
    package = ctx.attr.package
    modules = []
    for pattern in ctx.attr.modules:
        modules += _expand(ctx, pattern, package)

    includes = []
    for flag in _pkg_config(ctx, ["--cflags-only-I"] + modules, package):
        source = flag[2:]

        # Folders beside /usr/include's own are linked into the repository, so
        # that they reach the compiler by -isystem and as declared inputs.
        if source == "/usr/include" or not flag.startswith("-I"):
            continue
        target = "include/" + source.strip("/").replace("/", "_")
        if target not in includes:
            ctx.symlink(source, target)
            includes.append(target)

    libs = _pkg_config(ctx, ["--libs"] + modules, package)
    if ctx.attr.libraries:
        libs = [flag for flag in libs if not flag.startswith("-l")]
        libs += ["-l" + library for library in ctx.attr.libraries]

    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    build = _BUILD.format(
        name = ctx.name,
        includes = repr(includes),
        linkopts = repr(_as_needed(libs)),
    )
    if ctx.attr.main_module:
        main = [
            flag
            for flag in _pkg_config(ctx, ["--libs", ctx.attr.main_module], package)
            if flag not in libs
        ]
        build += _MAIN.format(name = ctx.name, linkopts = repr(_as_needed(main)))
    ctx.file("BUILD", build)

system_library = repository_rule(
    implementation = _system_library_impl,
    attrs = {
        "libraries": attr.string_list(
            doc = "Link these instead of all that pkg-config names.",
        ),
        "main_module": attr.string(
            doc = "A pkg-config module with a main function: target <name>_main.",
        ),
        "modules": attr.string_list(
            mandatory = True,
            doc = "pkg-config modules; a trailing * takes all with that prefix.",
        ),
        "package": attr.string(
            mandatory = True,
            doc = "The Debian package, for messages.",
        ),
    },
    environ = ["PKG_CONFIG_PATH"],
    local = True,
    doc = "One cc_library, named after the repository, on a library of the system.",
)
