#!/usr/bin/env python3
"""Checks what the compilers do not: layers, line lengths, banned words. Run by `./dev lint` and the tests.

Every finding is one line, file:line: message. Errors end with exit status 1; warnings are only printed."""

import os
import re
import subprocess
import sys

COLUMNS_MAX = 110
FUNCTION_LINES_MAX = 100
FILE_LINES_MAX = 700

# Which folders a folder may include; the CMake target graph (CMakeLists.txt) says the same of linking. A folder may
# always include itself. The protocol engines (smtp/proto, smtp/client) do no I/O, hence no net.
LAYERS = {
    "core": [],
    "sandbox": ["core"],
    "net": ["core"],
    "smtp/proto": ["core"],
    "smtp/client": ["core", "smtp/proto"],
    "policy": ["core", "net", "smtp/proto"],
    "nexthop": ["core", "net", "smtp/proto", "smtp/client", "policy"],
    "verify": ["core", "net", "smtp/proto", "smtp/client", "policy", "nexthop"],
    "queue": ["core", "net"],
    "scan": ["core", "net", "smtp/proto"],
    "relay": ["core", "net", "smtp/proto", "smtp/client", "queue", "policy", "nexthop"],
    "smtp/server": ["core", "net", "smtp/proto", "policy", "verify", "queue", "scan"],
    "admin": ["core"],
    "admin/cli": ["core", "smtp/proto", "queue", "admin"],
}
# These may include everything: they stand on top.
TOPS = ("daemon", "tests", "bench")

BANNED_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
URING_HOMES = re.compile(r"^net/ring[^/]*\.[ch]$")
FUNCTION_NAME = re.compile(r"(\w+)\(")


class Findings:
    def __init__(self):
        self.errors = 0
        self.warnings = 0

    def error(self, path, line, message):
        self.errors += 1
        print(f"{path}:{line}: {message}")

    def warning(self, path, line, message):
        self.warnings += 1
        print(f"{path}:{line}: warning: {message}")


def tracked_files():
    out = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True).stdout
    return [name for name in out.decode().split("\0") if name and os.path.isfile(name)]


def folder_of(path):
    """The layer that a file belongs to, the longest that fits; None for a file of no layer."""
    parts = path.split("/")[:-1]
    for length in range(len(parts), 0, -1):
        folder = "/".join(parts[:length])
        if folder in LAYERS or folder in TOPS:
            return folder
    return None


def check_include(path, number, quote, header, findings):
    if header == "liburing.h" or header.startswith("liburing/"):
        if not URING_HOMES.match(path):
            findings.error(path, number, "liburing is for net/ring*.c only: use net/loop.h")
        return
    if quote != '"' or "/" not in header:
        return
    home, target = os.path.dirname(path), os.path.dirname(header)
    if header.endswith("_priv.h") and home != target and folder_of(path) != "tests":
        findings.error(path, number, f"{header} is private to {target}/")
    layer, wanted = folder_of(path), folder_of(header)
    if wanted is None or layer is None or layer in TOPS or wanted == layer:
        return
    if wanted not in LAYERS.get(layer, []):
        findings.error(path, number, f"{layer}/ may not include {wanted}/ (links go down only)")


def check_functions(path, lines, findings):
    """A function's body as clang-format lays it out: a lone brace in column 1 opens it, another closes it."""
    opened, name = None, ""
    for number, line in enumerate(lines, 1):
        if line == "{":
            opened = number
        elif line == "}" and opened is not None:
            length = number - opened - 1
            if length > FUNCTION_LINES_MAX:
                findings.warning(path, opened, f"{name}() has {length} lines, more than {FUNCTION_LINES_MAX}")
            opened = None
        elif opened is None and line[:1].isalpha():
            found = FUNCTION_NAME.search(line)
            if found:
                name = found.group(1)


def check_c(path, lines, findings):
    if path.endswith(".c") and not (lines and lines[0].startswith("/*")):
        findings.error(path, 1, "no header comment: say in line 1 what the file is for")
    if len(lines) > FILE_LINES_MAX:
        findings.warning(path, FILE_LINES_MAX, f"{len(lines)} lines, more than {FILE_LINES_MAX}: probably two files")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            findings.error(path, number, f"{len(line)} columns, more than {COLUMNS_MAX}")
        if "\t" in line:
            findings.error(path, number, "a tab: indent with blanks")
        include = INCLUDE.match(line)
        if include:
            check_include(path, number, include.group(1), include.group(2), findings)
    check_functions(path, lines, findings)


def check_words(path, lines, findings):
    for number, line in enumerate(lines, 1):
        found = BANNED_WORDS.search(line)
        if found:
            findings.error(path, number, f"{found.group(1)}: do it now or file an issue")


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    findings = Findings()
    files = [f for f in tracked_files() if f.endswith((".c", ".h", ".def")) or os.path.basename(f) == "CMakeLists.txt"]
    for path in files:
        with open(path, encoding="utf-8", errors="replace") as f:
            lines = f.read().split("\n")
        if lines and lines[-1] == "":
            lines.pop()
        check_words(path, lines, findings)
        if path.endswith((".c", ".h")):
            check_c(path, lines, findings)
    if findings.errors:
        print(f"tidy: {findings.errors} errors, {findings.warnings} warnings in {len(files)} files")
        return 1
    print(f"tidy: ok, {len(files)} files, {findings.warnings} warnings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
