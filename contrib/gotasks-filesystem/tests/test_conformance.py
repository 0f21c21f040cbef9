"""The conformance suite, row by row."""

import tempfile

from gotasks.conformance import BrokerSuite


class TestConformance(BrokerSuite):
    """On directories of its own below this one, which are gone afterwards."""

    broker_url = f"filesystem://{tempfile.gettempdir()}/gotasks-filesystem-tests"
    profile = "full"
