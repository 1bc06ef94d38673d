"""Keys of every kind: all of them are keys that S3 takes, and each has led some client astray."""

KEYS = (
    "plain",
    "a b",
    "a+b",
    "a%20b",
    "%",
    "+",
    " ",
    "//x",
    "/x",
    "x/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "q?x=1&y#z",
    "a'\"<>&b",
    "]]>",
    "~",
    "é/ü",
    "日本",
    "\U0001f600",
    "k" * 1024,
    "a\nb",
    "a\tb",
    "a\rb",
    "a\x01b",
    "\x7f",
    "\x85",
)


def storable(server):
    """Those that the server can store: moto's routes know no line feed."""
    return [key for key in KEYS if server.kind != "moto" or "\n" not in key]
