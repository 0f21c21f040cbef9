"""gotasks: chains of handlers that survive a crash, on the broker of your choice."""

from gotasks import context, metrics
from gotasks.app import App
from gotasks.args import ArgsMap, from_args_map, to_args_map
from gotasks.broker import Broker, Capability
from gotasks.errors import GotasksError
from gotasks.handle import TaskHandle
from gotasks.job import Job, Retry, reentrant, step
from gotasks.queue import Queue
from gotasks.settings import AckWhen
from gotasks.task import Status

__all__ = [
    "AckWhen",
    "App",
    "ArgsMap",
    "Broker",
    "Capability",
    "GotasksError",
    "Job",
    "Queue",
    "Retry",
    "Status",
    "TaskHandle",
    "context",
    "from_args_map",
    "metrics",
    "reentrant",
    "step",
    "to_args_map",
]

__version__ = "0.1.0"
