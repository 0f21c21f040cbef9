"""An extension of griffe, which reads the code for the reference: it takes `#:` comments for docstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Comments(griffe.Extension):
    """Takes the comment at the end of an attribute's lines, or above them, for its docstring."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called for each attribute."""
        if attr.docstring is None and attr.lineno and attr.endlineno and (text := _comment(attr)):
            attr.docstring = griffe.Docstring(text, lineno=attr.lineno, parent=attr)


def _comment(attr: griffe.Attribute) -> str:
    lines = attr.lines_collection[attr.filepath]
    own = lines[attr.lineno - 1 : attr.endlineno]  # type: ignore[operator]
    if found := re.search(r"#: (.+)$", "\n".join(own), re.MULTILINE):
        return found[1]
    above: list[str] = []
    for line in reversed(lines[: attr.lineno - 1]):  # type: ignore[operator]
        comment = line.strip()
        if not comment.startswith("#"):
            break
        above.insert(0, comment.lstrip("#: "))
        if comment.startswith("#:"):
            return " ".join(above)
    return ""
