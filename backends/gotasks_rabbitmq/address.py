"""Address: what a broker URL says of the server, and of how to speak with it."""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import pika

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL
from gotasks_rabbitmq.management import Management

#: Seconds until a call that isn't answered is given up.
DEFAULT_TIMEOUT = 10.0

#: A peer that is gone without a word is noticed after two to three of these. Seconds.
DEFAULT_HEARTBEAT = 10

#: What the server allows a delivery to be unsettled, unless it's told otherwise (since 3.8.15). Seconds.
DEFAULT_CONSUMER_TIMEOUT = 1800.0

_PARAMS = frozenset(
    {
        "namespace",
        "timeout",
        "connect_timeout",
        "heartbeat",
        "consumer_timeout",
        "queue_type",
        "management",
        "records",
    }
)
#: What the server is told that we understand: what pika does, but for `consumer_cancel_notify`. With that RabbitMQ 4.3
#: leaves a channel open when a delivery on it was held for too long; but its end is what ends a lease.
_UNDERSTOOD = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "exchange_exchange_bindings": True,
    "publisher_confirms": True,
}

_TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True, kw_only=True)
class Address:
    """A server, a virtual host on it, and a namespace there. `shown` is for errors: it has no secret."""

    shown: str
    namespace: str
    timeout: float  #: seconds; of one call
    consumer_timeout: float | None  #: seconds; the longest that the server leaves a task with its holder
    connect_timeout: float
    management: Management | None  #: where the server's policies can be looked at
    _host: str
    _port: int
    _virtual_host: str
    _user: str
    _password: str
    _heartbeat: int
    _tls: dict[str, Any] | None

    @classmethod
    def of(cls, url: BrokerURL) -> Address:
        """What the URL says. Raises InvalidURL."""
        secure = url.scheme == "amqps"
        url.only(_PARAMS | (_TLS if secure else frozenset()))
        if len(url.hosts) > 1:
            raise InvalidURL(f"{url.scheme}:// takes one host")
        host, port = url.hosts[0] if url.hosts else ("127.0.0.1", None)
        namespace = url.text("namespace", "gt")
        # Without ":" and ".", so that no two names of a namespace and a queue are joined to the same text.
        if not re.fullmatch("[A-Za-z0-9_-]{1,64}", namespace):
            raise InvalidURL("namespace= takes 1 to 64 letters, digits, - and _")
        if url.text("queue_type", "quorum") != "quorum":
            raise InvalidURL(
                "queue_type= takes quorum: classic queues count no deaths, and a crash of the server loses tasks there"
            )
        user = url.user if url.user is not None else "guest"
        password = url.password if url.password is not None else "guest"
        virtual_host = url.path[1:] or "/"
        tls = _tls(url) if secure else None
        timeout = url.seconds("timeout", DEFAULT_TIMEOUT)
        connect_timeout = url.seconds("connect_timeout", DEFAULT_TIMEOUT)
        management = None
        if "management" in url.params:
            management = Management(
                url.params["management"],
                user=user,
                password=password,
                virtual_host=virtual_host,
                timeout=min(connect_timeout, timeout / 2),  # so that it's told before the call is given up
                context=partial(_context, tls),
                secure=secure,
            )
        patience = url.text("consumer_timeout", f"{DEFAULT_CONSUMER_TIMEOUT:g}")
        return cls(
            shown=str(url),
            namespace=namespace,
            timeout=timeout,
            connect_timeout=connect_timeout,
            management=management,
            consumer_timeout=None
            if patience == "none"
            else url.seconds("consumer_timeout", DEFAULT_CONSUMER_TIMEOUT),
            _host=host,
            _port=port or (5671 if secure else 5672),
            _virtual_host=virtual_host,
            _user=user,
            _password=password,
            _heartbeat=url.integer("heartbeat", DEFAULT_HEARTBEAT, least=1),
            _tls=tls,
        )

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    def parameters(self, purpose: str) -> Any:
        """The parameters of a pika connection; `purpose` is shown on the server beside this process."""
        return pika.ConnectionParameters(
            host=self._host,
            port=self._port,
            virtual_host=self._virtual_host,
            credentials=pika.PlainCredentials(self._user, self._password),
            heartbeat=self._heartbeat,
            # What isn't answered is given up by the caller's clock; a server that blocks keeps its connections.
            blocked_connection_timeout=None,
            connection_attempts=1,
            socket_timeout=self.connect_timeout,
            stack_timeout=self.connect_timeout,
            ssl_options=self._ssl_options(),
            client_properties={
                "connection_name": f"gotasks {purpose} {socket.gethostname()}:{os.getpid()} {sys.argv[0][-60:]}",
                "capabilities": _UNDERSTOOD,
            },
        )

    def _ssl_options(self) -> Any:
        if self._tls is None:
            return None
        return pika.SSLOptions(_context(self._tls), self._host)


def _context(tls: dict[str, Any] | None) -> ssl.SSLContext:
    """What TLS is spoken with; None: as the machine does it."""
    if tls is None:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=tls["ca"])
    context.check_hostname = tls["check_hostname"]
    context.verify_mode = tls["reqs"]
    if tls["cert"] is not None:
        context.load_cert_chain(tls["cert"], tls["key"])
    return context


def _tls(url: BrokerURL) -> dict[str, Any]:
    reqs = url.text("ssl_cert_reqs", "required")
    if reqs not in _REQS:
        raise InvalidURL("ssl_cert_reqs= takes none, optional or required")
    return {
        "ca": url.params.get("ssl_ca_certs"),
        "cert": url.params.get("ssl_certfile"),
        "key": url.params.get("ssl_keyfile"),
        "reqs": _REQS[reqs],
        "check_hostname": reqs != "none" and url.boolean("ssl_check_hostname", default=True),
    }
