"""What a RabbitMQ server is told of its client."""

from __future__ import annotations

from gotasks.broker import BrokerURL
from gotasks_rabbitmq.address import Address


def test_a_server_isnt_told_that_it_may_leave_a_channel_open_whose_lease_is_over() -> None:
    """RabbitMQ 4.3 does so for clients that understand `basic.cancel`; here that is read, not run."""
    told = Address.of(BrokerURL("amqp://host")).parameters("test").client_properties["capabilities"]
    assert "consumer_cancel_notify" not in told
    assert told["connection.blocked"]  # without which an alarm would look like a server that is gone
    assert told["basic.nack"]
