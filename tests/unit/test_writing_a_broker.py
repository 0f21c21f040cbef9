"""docs/writing-a-broker.md: its code is that of the plug-in which it leads through, and that one is tested."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tomli

from gotasks.broker import Broker, Capability, Limits
from gotasks.conformance.adapter import Adapter

ROOT = Path(__file__).parents[2]
PLUG_IN = ROOT / "contrib" / "gotasks-filesystem"
PAGE = (ROOT / "docs" / "writing-a-broker.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
EXCERPTS = [text.split("\n", 1) for kind, text in BLOCKS if kind == "python" and text.startswith("# ")]


def test_it_has_code() -> None:
    assert len(EXCERPTS) > 10


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda excerpt: excerpt[1].strip().partition("\n")[0][:60])
def test_an_excerpt_is_what_stands_in_the_file(excerpt: list[str]) -> None:
    path, code = excerpt
    content = (PLUG_IN / path.removeprefix("# ")).read_text()
    indented = textwrap.indent(code.strip("\n"), "    ")

    assert code.strip("\n") in content or indented in content


def test_the_toml_is_what_stands_in_the_file() -> None:
    content = tomli.loads((PLUG_IN / "pyproject.toml").read_text())
    for text in [text for kind, text in BLOCKS if kind == "toml"]:
        for table, values in tomli.loads(text).items():
            _is_part_of(values, content[table])


def _is_part_of(part: dict[str, Any], whole: dict[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, dict):
            _is_part_of(value, whole[name])
        else:
            assert whole[name] == value


def test_the_sketch_has_the_signatures_of_the_contract() -> None:
    sketches = [text for kind, text in BLOCKS if kind == "python" and "class MyBroker" in text]
    sketched = set()
    for sketch in sketches:
        namespace: dict[str, Any] = {"Broker": Broker}
        exec(f"from __future__ import annotations\n{sketch}", namespace)  # noqa: S102 - it's our own page
        ours = vars(namespace["MyBroker"])
        for name in ours.keys() & vars(Broker).keys() - {"__doc__", "__module__", "__abstractmethods__"}:
            if callable(getattr(Broker, name)):
                written = inspect.signature(getattr(namespace["MyBroker"], name))
                assert str(written) == str(inspect.signature(getattr(Broker, name))), name
                sketched.add(name)

    assert Broker.__abstractmethods__ | {"browse", "get", "cancel", "enqueue_on"} <= sketched


def test_it_names_every_method_capability_limit_and_hook() -> None:
    methods = {name for name, _ in inspect.getmembers(Broker, inspect.isfunction) if not name.startswith("_")}
    hooks = {name for name, _ in inspect.getmembers(Adapter, inspect.isfunction) if not name.startswith("_")}
    words = methods | hooks | {str(each.name) for each in Capability} | set(Limits.__struct_fields__)

    assert {word for word in words if word not in PAGE} == set()
