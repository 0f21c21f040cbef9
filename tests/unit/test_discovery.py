"""Discovery: from the scheme of a URL to the class that an installed distribution offers for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gotasks import discovery
from gotasks.broker import BROKER_API
from gotasks.discovery import broker_class, installed, open_broker
from gotasks.errors import AmbiguousScheme, IncompatibleBroker, InvalidURL, MissingDriver, UnknownScheme
from gotasks.memory import MemoryBroker

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with a plug-in: a name, its entry points, the text of its module, what it requires."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(discovery, "_classes", {})
    modules: list[str] = []

    def make(name: str, entries: dict[str, str], source: str = "", requires: tuple[str, ...] = ()) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        extras = sorted({each.split("'")[-2] for each in requires if "extra" in each})
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {each}" for each in requires] + [
            f"Provides-Extra: {each}" for each in extras
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        points = "\n".join(f"{scheme} = {value}" for scheme, value in entries.items())
        (info / "entry_points.txt").write_text(f"[gotasks.brokers]\n{points}\n")
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        modules.append(module)

    yield make
    for module in modules:
        sys.modules.pop(module, None)


GOOD = "from gotasks.memory import MemoryBroker\nclass Good(MemoryBroker): pass\n"


def test_the_first_party_brokers_use_the_same_door() -> None:
    schemes = {entry.name for entry in installed()}
    assert {"memory", "redis", "rediss", "unix"} <= schemes
    assert broker_class("memory") is MemoryBroker
    assert broker_class("redis") is broker_class("unix")


def test_a_plug_in_is_found_by_its_scheme_up_to_the_plus(install: Install) -> None:
    install("gotasks-good", {"good": "gotasks_good:Good"}, GOOD)
    assert type(open_broker("good://")).__name__ == "Good"
    assert broker_class("good").__name__ == "Good"
    with pytest.raises(InvalidURL, match=r"good\+driver:// isn't supported: write good://"):
        open_broker("good+driver://")  # which is for the broker to say
    assert "good" in [entry.name for entry in installed()]


def test_nothing_is_imported_before_it_is_asked_for(install: Install) -> None:
    install("gotasks-good", {"good": "gotasks_good:Good"}, GOOD)
    assert installed()
    open_broker("memory://")
    assert "gotasks_good" not in sys.modules
    broker_class("good")
    assert "gotasks_good" in sys.modules


def test_a_class_is_loaded_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("gotasks-good", {"good": "gotasks_good:Good"}, GOOD)
    loads: list[str] = []
    load = EntryPoint.load

    def counted(entry: EntryPoint) -> object:
        loads.append(entry.name)
        return load(entry)

    monkeypatch.setattr(EntryPoint, "load", counted)
    assert broker_class("good") is broker_class("good")
    assert loads == ["good"]


@pytest.mark.parametrize("url, hint", [("rediz://h", "redis://?"), ("memmory://", "memory://?")])
def test_an_unknown_scheme_names_the_known_ones_and_the_nearest(url: str, hint: str) -> None:
    with pytest.raises(UnknownScheme, match=r"Known: .*memory://.*redis://") as caught:
        open_broker(url)
    assert f"Did you mean {hint}" in str(caught.value)


def test_an_unknown_scheme_that_is_near_to_none_has_no_hint() -> None:
    with pytest.raises(UnknownScheme) as caught:
        open_broker("zzzzzzzz://h")
    assert "Did you mean" not in str(caught.value)


def test_two_distributions_on_one_scheme_are_named_both(install: Install) -> None:
    install("gotasks-one", {"twice": "gotasks_one:Good"}, GOOD)
    install("gotasks-two", {"twice": "gotasks_two:Good"}, GOOD)
    with pytest.raises(AmbiguousScheme, match=r"gotasks-one .* and gotasks-two"):
        open_broker("twice://")
    open_broker("memory://")  # the others still work


def test_a_missing_driver_says_what_to_install(install: Install) -> None:
    install(
        "gotasks-lack",
        {"lack": "gotasks_lack:Broker", "other": "gotasks_lack:Broker"},
        "import no_such_driver\n",
        ("no_such_driver>=1; extra == 'all'", "more; extra == 'all'", "no_such_driver>=1; extra == 'lack'"),
    )
    with pytest.raises(MissingDriver) as caught:
        open_broker("lack://h")
    assert str(caught.value) == "lack:// needs the 'no_such_driver' package: pip install 'gotasks-lack[lack]'"


def test_a_missing_driver_that_no_extra_brings_is_named_itself(install: Install) -> None:
    install("gotasks-lack", {"lack": "gotasks_lack:Broker"}, "import no_such_driver\n")
    with pytest.raises(MissingDriver, match=r"pip install no_such_driver$"):
        open_broker("lack://h")


def test_a_driver_that_is_missed_when_the_broker_is_made_is_named_too(install: Install) -> None:
    source = GOOD + "    @classmethod\n    def from_url(cls, url):\n        import no_such_driver\n"
    install("gotasks-late", {"late": "gotasks_late:Good"}, source.replace(": pass", ":"))
    with pytest.raises(MissingDriver, match="no_such_driver"):
        open_broker("late://h")


def test_a_plug_in_whose_own_module_is_missing_is_a_bug_of_its_own(install: Install) -> None:
    install("gotasks-broken", {"broken": "gotasks_broken.inner:Broker"}, "")
    with pytest.raises(ModuleNotFoundError, match="gotasks_broken"):
        open_broker("broken://h")


@pytest.mark.parametrize("api, upgrade", [(BROKER_API + 1, "gotasks"), (BROKER_API - 1, "gotasks-old")])
def test_a_plug_in_for_another_contract_says_what_to_upgrade(
    install: Install, api: int, upgrade: str
) -> None:
    install("gotasks-old", {"old": "gotasks_old:Good"}, GOOD.replace("pass", f"api = {api}"))
    with pytest.raises(IncompatibleBroker, match=rf"version {api} .*upgrade {upgrade}$"):
        open_broker("old://h")


@pytest.mark.parametrize("value", ["gotasks_odd:text", "gotasks_odd:Odd", "gotasks_odd:make"])
def test_what_isnt_a_broker_class_is_refused(install: Install, value: str) -> None:
    install("gotasks-odd", {"odd": value}, "text = 'x'\nclass Odd: pass\ndef make(): pass\n")
    with pytest.raises(IncompatibleBroker, match="gotasks-odd"):
        open_broker("odd://h")
