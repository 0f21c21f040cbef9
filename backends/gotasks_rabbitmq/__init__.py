"""RabbitMQ as a broker: `amqp://`, `amqps://`. Quorum queues; a checkpoint hands the task on in one transaction."""

from gotasks_rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
