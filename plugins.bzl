"""The one list of in-tree plugins: a new plugin adds its line here."""

PLUGINS = [
    # Sorted, one a line, for example "//encoders/vit:plugin".
]
