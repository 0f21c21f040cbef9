"""Broker URLs: parsed once, never shown with their secrets."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gotasks import App
from gotasks.discovery import open_broker
from gotasks.errors import GotasksError, InvalidURL
from gotasks.url import BrokerURL


def test_a_url_is_taken_apart() -> None:
    url = BrokerURL("PostgreSQL+psycopg://us%40er:p%3Aw%2F@Host-1:5433,[::1]:7,h3/db%20name?a=1&b=x%26y+z&c=")
    assert (url.scheme, url.driver) == ("postgresql", "psycopg")
    assert (url.user, url.password) == ("us@er", "p:w/")
    assert url.hosts == (("host-1", 5433), ("::1", 7), ("h3", None))
    assert url.path == "/db name"
    assert dict(url.params) == {"a": "1", "b": "x&y z", "c": ""}


@pytest.mark.parametrize(
    "text", ["memory://", "sqlite:///jobs.db", "unix:///run/redis.sock?db=3", "redis://h"]
)
def test_what_isnt_there_is_empty(text: str) -> None:
    url = BrokerURL(text)
    assert (url.driver, url.user, url.password) == (None, None, None)
    assert url.hosts == ((("h", None),) if text == "redis://h" else ())
    assert str(url) == text


def test_an_empty_password_is_a_password_and_none_is_none() -> None:
    assert BrokerURL("redis://:@h").password == ""
    assert BrokerURL("redis://user@h").password is None
    assert BrokerURL("redis://:secret@h").user is None


def test_urls_are_equal_by_their_text_and_cant_be_changed() -> None:
    one, other = BrokerURL("redis://:a@h"), BrokerURL("redis://:b@h")
    assert one == BrokerURL("redis://:a@h")
    assert one != other  # though they are shown alike
    assert len({one, other, BrokerURL("redis://:a@h")}) == 2
    with pytest.raises(AttributeError):
        one.password = "x"
    with pytest.raises(TypeError):
        one.params["a"] = "b"  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "redis",
        "//host",
        "127.0.0.1:6379",
        "://h",
        "redis://h:port",
        "redis://h:70000",
        "redis://[::1",
        "redis://,",
    ],
)
def test_what_isnt_a_broker_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidURL):
        BrokerURL(text)


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(InvalidURL, match="twice"):
        BrokerURL("redis://h?db=1&db=2")


# -- typed parameters ---------------------------------------------------------------------------


def test_parameters_are_read_by_type() -> None:
    url = BrokerURL("x://h?yes=On&no=false&n=7&s=1.5&t=text")
    assert (url.boolean("yes", default=False), url.boolean("no", default=True)) == (True, False)
    assert (url.integer("n", 1), url.seconds("s", 1.0), url.text("t", "")) == (7, 1.5, "text")
    assert (url.boolean("-", default=True), url.integer("-", 3), url.seconds("-", 2.5)) == (True, 3, 2.5)
    assert url.text("-", "default") == "default"


@pytest.mark.parametrize("value", ["", "-1", "1.5", "x", "1e3", "9" * 30, " 1"])
def test_what_isnt_a_whole_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidURL, match="n="):
        BrokerURL(f"x://h?n={quote_plus(value)}").integer("n", 1)


@pytest.mark.parametrize("value", ["", "0", "-1", "x", "inf", "nan", "1e3"])
def test_what_isnt_a_number_of_seconds_is_refused(value: str) -> None:
    with pytest.raises(InvalidURL, match="s="):
        BrokerURL(f"x://h?s={quote_plus(value)}").seconds("s", 1.0)


def test_a_parameter_that_isnt_known_is_refused_and_named() -> None:
    BrokerURL("x://h?a=1").only({"a", "b"})
    with pytest.raises(InvalidURL, match="'namespce'; it has namespace, timeout"):
        BrokerURL("x://h?namespce=1").only({"namespace", "timeout"})


# -- secrets ------------------------------------------------------------------------------------


def everything_shown_by(call: Callable[[], object]) -> str:
    """What a person sees of the result of a call, or of its error with its whole traceback."""
    try:
        result = call()
    except GotasksError as error:
        # Without the lines of source: the last line of each part, and what its values are.
        parts: list[str] = []
        seen: BaseException | None = error
        while seen is not None:
            parts += [str(seen), repr(seen), *traceback.format_exception_only(type(seen), seen)]
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        return "\n".join(parts)
    return f"{result} {result!r}"


SECRET = "Sq7xZ"

#: Passwords as people write them: with all that a URL gives a meaning to, encoded or not.
awkward = st.text("/?#@:%[]&=+ ,;\\'\"é0123456789", max_size=6)
users = st.sampled_from(["", "user", "us%40er"])
schemes = st.sampled_from(["redis", "rediss", "memory", "unix", "postgresql+psycopg", "nonsense"])


@given(schemes, users, awkward, awkward)
def test_an_encoded_password_is_kept_and_never_shown(scheme: str, user: str, before: str, after: str) -> None:
    password = before + SECRET + after
    text = f"{scheme}://{user}:{quote(password, safe='')}@host:6379/0?namespace=x"
    url = BrokerURL(text)
    assert url.password == password
    for call in (lambda: url, lambda: open_broker(text), lambda: App(text), lambda: App(text).dispatch):
        assert SECRET not in everything_shown_by(call)


@given(schemes, users, awkward, awkward)
@example("redis", "user", "pa/", "")
@example("redis", "user", "pa#", "")
@example("redis", "user", "pa?", "")
@example("redis", "", "[", "")
def test_a_password_that_should_have_been_encoded_isnt_shown_by_the_error(
    scheme: str, user: str, before: str, after: str
) -> None:
    text = f"{scheme}://{user}:{before}{SECRET}{after}@host:6379/0"
    for call in (lambda: BrokerURL(text), lambda: open_broker(text)):
        assert SECRET not in everything_shown_by(call)


@pytest.mark.parametrize(
    "name", ["password", "PASSWORD", "passwd", "pwd", "secret", "token", "ssl_key", "auth", "credential"]
)
def test_a_parameter_that_may_be_a_secret_isnt_shown(name: str) -> None:
    url = BrokerURL(f"redis://h?{name}={SECRET}&namespace=shown")
    assert SECRET not in f"{url} {url!r}"
    assert "namespace=shown" in str(url)


@given(awkward)
def test_a_url_inside_a_parameter_is_shown_without_its_password(before: str) -> None:
    inner = f"redis://user:{quote(before, safe='')}{SECRET}@host/0"
    url = BrokerURL(f"amqp://h?records={quote(inner, safe='')}")
    assert SECRET not in f"{url} {url!r}"
    assert url.params["records"] == inner


@pytest.mark.parametrize(
    "text",
    [
        f"redis:user:{SECRET}@host:6379",
        f"user:{SECRET}@host:6379/0",
        f"redis:/user:{SECRET}@h",
        f"redis://h?{SECRET}",
    ],
)
def test_what_only_looks_like_a_url_doesnt_show_a_password_either(text: str) -> None:
    for call in (lambda: BrokerURL(text), lambda: open_broker(text)):
        assert SECRET not in everything_shown_by(call)


def test_a_server_that_cant_be_reached_or_refuses_doesnt_show_the_password() -> None:
    broker = open_broker(f"redis://user:{SECRET}@127.0.0.1:1/0?connect_timeout=1")
    shown = everything_shown_by(lambda: broker.stats("orders"))
    assert SECRET not in shown
    assert "redis://user:***@127.0.0.1:1/0" in shown
    broker.close()


def test_a_driver_that_isnt_the_brokers_is_refused() -> None:
    BrokerURL("x+fast://h").only(set(), driver="fast")
    BrokerURL("x://h").only(set(), driver="fast")
    with pytest.raises(InvalidURL, match=r"x\+slow:// isn't supported: write x\+fast://"):
        BrokerURL("x+slow://h").only(set(), driver="fast")
    for url in ("redis+slow://h", "memory+x://"):
        with pytest.raises(InvalidURL, match=r"isn't supported: write (redis|memory)://"):
            open_broker(url)
