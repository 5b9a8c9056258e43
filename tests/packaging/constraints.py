"""Reads a constraints file that `make pins` has made."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ["server/constraints.txt", "server/build-constraints.txt"]


def pins(path: str) -> dict[str, list[str]]:
    """Returns the pins of a file: "name==version" (with its condition, if it has one), and the hashes of its files.

    Raises ValueError on a line that is not a pin, a hash or a comment, such as an index, a path or an option.
    """
    found: dict[str, list[str]] = {}
    pin = ""
    for line in (ROOT / path).read_text().splitlines():
        word = line.removesuffix("\\").strip()
        if re.fullmatch(r"[a-z0-9-]+==[0-9][^ ]*( ; .+)?", word):
            pin = word
            found[pin] = []
        elif re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word):
            found[pin].append(word)
        elif word and not word.startswith("#"):
            raise ValueError(line)
    return found
