"""RabbitMQ's management plugin for the tests: somebody who uses it, and TLS for it."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gotasks.conformance.server_process import free_port

__all__ = ["Console", "tls"]


class Console:
    """Works by the management plugin at `url`, as guest."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    def call(self, method: str, path: str, body: object = None) -> Any:
        assert self._parts.hostname is not None
        connection = HTTPConnection(self._parts.hostname, self._parts.port, timeout=30)
        user = base64.b64encode(b"guest:guest").decode()
        headers = {"Authorization": f"Basic {user}", "Content-Type": "application/json"}
        connection.request(method, f"/api/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, (method, path, text)
        return json.loads(text) if text else None

    def set(self, kind: str, pattern: str, definition: dict[str, Any], **more: Any) -> str:
        """Set a policy; where it is."""
        kinds = {"policy": "policies", "operator policy": "operator-policies"}
        path = f"{kinds[kind]}/%2F/{more.pop('name', f'p-{secrets.token_hex(6)}')}"
        self.call("PUT", path, {"pattern": pattern, "definition": definition, "apply-to": "queues", **more})
        return path

    def clear(self, path: str) -> None:
        self.call("DELETE", path)

    @contextmanager
    def policy(self, kind: str, pattern: str, definition: dict[str, Any], **more: Any) -> Iterator[str]:
        path = self.set(kind, pattern, definition, **more)
        try:
            yield path
        finally:
            self.clear(path)

    def user(self, password: str, tags: str, *, permitted: bool = True) -> str:
        name = f"user-{secrets.token_hex(6)}"
        self.call("PUT", f"users/{name}", {"password": password, "tags": tags})
        if permitted:
            none = {"configure": "^$", "write": "^$", "read": "^$"}
            self.call("PUT", f"permissions/%2F/{name}", none)
        return name


def tls(directory: Path) -> dict[str, str]:
    """Settings of a server that speaks TLS too, with a certificate that is its own authority; none without openssl."""
    program = shutil.which("openssl")
    if program is None:
        return {}
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    name = ("-subj", "/CN=gotasks test", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        [program, "req", "-x509", *kind, *name, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    certificate, key = str(directory / "cert.pem"), str(directory / "key.pem")
    files = {"cacertfile": certificate, "certfile": certificate, "keyfile": key}
    return {
        "listeners.ssl.1": f"127.0.0.1:{free_port()}",
        "management.ssl.ip": "127.0.0.1",
        "management.ssl.port": str(free_port()),
        **{
            f"{prefix}.{name}": path
            for prefix in ("ssl_options", "management.ssl")
            for name, path in files.items()
        },
    }
