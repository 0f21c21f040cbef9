"""Which policies of a RabbitMQ server would lose tasks, and what `management=` may say of where to ask for them."""

from __future__ import annotations

import base64
import re
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gotasks.broker import BrokerURL
from gotasks.errors import BrokerUnavailable, ConfigurationError, InvalidURL
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.management import Management
from gotasks_rabbitmq.policies import Policy, hazard

SECRET = "Sq7xZ"


def management(url: str) -> Management:
    found = Address.of(BrokerURL(url)).management
    assert found is not None
    return found


# -- policies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["^[[:alpha:]]+$", r"^\Qgt:\E", "(?<name>x)", "x{,2}y", "(*ANY)x"])
def test_a_pattern_that_python_reads_otherwise_may_match(pattern: str) -> None:
    policy = Policy(name="p", pattern=pattern, definition={"expires": 1000})
    sentence = hazard("policy", [policy], "gt:orders")
    assert sentence is not None
    assert "policy 'p' may lose tasks of queue 'gt:orders'" in sentence
    assert f"change its pattern {pattern!r}, which can't be read here, or" in sentence


def test_any_one_of_those_with_equal_priorities_may_be_applied() -> None:
    loses = Policy(name="p", pattern="", definition={"max-length": 1}, priority=1)
    harmless = Policy(name="q", pattern="", definition={"overflow": "drop-head"}, priority=1)
    for policies in ([loses, harmless], [harmless, loses]):
        assert hazard("policy", policies, "gt:orders") is not None


def test_a_limit_of_deliveries_that_is_off_loses_nothing() -> None:
    """RabbitMQ 4 allows it in a policy; here that is read, not run."""
    off = Policy(name="p", pattern="", definition={"delivery-limit": -1}, priority=1)
    limited = Policy(name="q", pattern="", definition={"delivery-limit": 20})
    assert hazard("policy", [limited, off], "gt:orders") is None
    for apply_to, refused in {"quorum_queues": True, "classic_queues": False, "streams": False}.items():
        policy = Policy(name="q", pattern="", definition={"delivery-limit": 20}, apply_to=apply_to)
        assert (hazard("policy", [policy], "gt:orders") is not None) is refused


# -- who answers ------------------------------------------------------------------------------------------


@contextmanager
def answering(text: str) -> Iterator[int]:
    """Something that gives this answer to whatever is asked; its port. What is asked after it is an error."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(text.replace("\n", "\r\n").encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    "answer, says",
    [
        ("+OK\n", "BrokerUnavailable: {} can't be asked for policies"),
        ("HTTP/1.1 503 Busy\n\n", "BrokerUnavailable: {} tells no policies: it answers with 503"),
        (
            "HTTP/1.1 200 OK\n\n<html>",
            "ConfigurationError: {} doesn't answer /api/policies/%2F as RabbitMQ's",
        ),
        ('HTTP/1.1 200 OK\n\n[{"name": 1}]', "ConfigurationError: {} doesn't answer /api/policies/%2F"),
        ("HTTP/1.1 301 Moved\nLocation: http://127.0.0.1:1/\n\n", "management plugin does (status 301)"),
        ("HTTP/1.1 403 No\n\n<html>", "ConfigurationError: {} refuses its user or password: give"),
    ],
)
def test_what_isnt_the_plugin_is_told_of(answer: str, says: str) -> None:
    with answering(answer) as port:
        asked = management(f"amqp://host/?management=http://me:{SECRET}@127.0.0.1:{port}")
        with pytest.raises((BrokerUnavailable, ConfigurationError)) as caught:
            asked.policies()
        shown = "".join(traceback.format_exception(caught.value))
        assert says.format(f"http://me:***@127.0.0.1:{port}") in shown
        assert SECRET not in shown


# -- the URL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query, says",
    [
        ("management=127.0.0.1", "management= takes http://"),
        ("management=ftp://host", "management= takes http://"),
        ("management=http://", "management= takes http://"),
        ("management=http://a,b", "management= takes http://"),
        (f"management=http://me:{SECRET}%2523@host:port", "management= takes http://"),
        (f"management=http%3A%2F%2Fme%3A{SECRET}%40host%3Fx%3D1", "has no parameter 'x'"),
        (f"management=http%3A%2F%2Fme%3A{SECRET}%40host%2F%40", "management= takes http://"),
    ],
)
def test_what_a_url_may_not_say(query: str, says: str) -> None:
    with pytest.raises(InvalidURL, match=re.escape(says)) as caught:
        management(f"amqp://me:{SECRET}@host/?{query}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_password_that_tls_hides_isnt_sent_without_it() -> None:
    with pytest.raises(InvalidURL, match="unencrypted: take https://"):
        management("amqps://me:secret@host/?management=http://host:15672")
    management("amqps://me:secret@host/?management=http://other:own@host:15672")
    management("amqps://me:secret@host/?management=https://host:15671")
    management("amqp://me:secret@host/?management=http://host:15672")


def test_no_secret_is_shown() -> None:
    url = BrokerURL(f"amqp://me:{SECRET}@host/?management=http://you:{SECRET}@host:15672&namespace=x")
    address = Address.of(url)
    secrets = (SECRET, base64.b64encode(f"you:{SECRET}".encode()).decode())
    for shown in (str(url), repr(url), repr(address), repr(address.management), address.shown):
        assert not any(each in shown for each in secrets)
    assert "management=http://you:***@host:15672" in address.shown
