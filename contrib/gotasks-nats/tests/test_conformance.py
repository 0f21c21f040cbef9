"""The conformance suite, row by row."""

import pytest

from gotasks.conformance import BrokerSuite
from gotasks_nats.adapter import NatsAdapter


class TestConformance(BrokerSuite):
    """In streams of its own, which are gone afterwards."""

    profile = "core"

    @pytest.fixture(autouse=True)
    def on_server(self, server_url: str) -> None:
        type(self).adapter = NatsAdapter(server_url)
