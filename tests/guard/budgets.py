"""Budgets: what a task may cost. Each is as it was measured; a test fails where one is exceeded by more than a tenth.

They count what the machine has no say in, for each task: calls of the broker, commands and bytes of Redis, statements,
transactions and bytes of databases, calls of our own functions. The end of a run says what has become cheaper by more
than a tenth: lower it here then, so that it stays so.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.guard.costs import Costs


def _row(**costs: float) -> Costs:
    return {what.replace("_", " "): value for what, value in costs.items()}


#: `functions` are calls of Python functions in `gotasks/`.
PRODUCER: Mapping[str, Costs] = {
    "enqueue, one by one": _row(functions=33),
    "enqueue, by 100": _row(functions=12.2),
}

#: Calls of the broker by a worker of ten slots whose handlers end together: two carry ten tasks.
WORKER: Mapping[str, Costs] = {
    "one step": _row(acquire=0.195, checkpoint=0, ack=0.2, functions=65.5),
    "three steps": _row(acquire=0.195, checkpoint=0.4, ack=0.2, functions=128),
}

#: `calls` are round trips; `commands` those that the server carries out, in its scripts too.
REDIS: Mapping[str, Costs] = {
    "enqueue, one by one": _row(calls=1, commands=6.01, bytes_sent=544, bytes_received=4),
    "enqueue, by 100": _row(calls=0.01, commands=2.05, bytes_sent=425, bytes_received=0.04),
    "one step, one by one": _row(calls=2, commands=19, bytes_sent=740, bytes_received=437),
    "one step, by 10": _row(calls=0.2, commands=9.1, bytes_sent=482, bytes_received=425),
    "three steps, by 10": _row(calls=0.4, commands=13.5, bytes_sent=1410, bytes_received=426),
}

#: Memory of the server.
KEPT_BY_REDIS: Mapping[str, Costs] = {
    "waiting": _row(bytes=739),
    "finished, its record kept": _row(bytes=728),
}

DATABASES: Mapping[str, Mapping[str, Costs]] = {
    "sqlite": {
        "enqueue, one by one": _row(statements=6, transactions=1),
        "enqueue, by 100": _row(statements=1.05, transactions=0.01),
        "one step, one by one": _row(statements=8, transactions=2),
        "one step, by 10": _row(statements=2.6, transactions=0.2),
        "three steps, by 10": _row(statements=5, transactions=0.4),
    },
    "postgresql": {
        "enqueue, one by one": _row(statements=1, transactions=1, bytes_sent=528, bytes_received=146),
        "enqueue, by 100": _row(statements=0.01, transactions=0.01, bytes_sent=434, bytes_received=52),
        "one step, one by one": _row(statements=2, transactions=2, bytes_sent=683, bytes_received=1115),
        "one step, by 10": _row(statements=0.2, transactions=0.2, bytes_sent=453, bytes_received=878),
        "three steps, by 10": _row(statements=0.4, transactions=0.4, bytes_sent=1339, bytes_received=983),
    },
    "mariadb": {
        "enqueue, one by one": _row(statements=2, transactions=1, bytes_sent=1070, bytes_received=150),
        "enqueue, by 100": _row(statements=0.02, transactions=0.01, bytes_sent=857, bytes_received=1.91),
        "one step, one by one": _row(statements=6, transactions=2, bytes_sent=2932, bytes_received=1690),
        "one step, by 10": _row(statements=0.6, transactions=0.2, bytes_sent=1112, bytes_received=604),
        "three steps, by 10": _row(statements=1, transactions=0.4, bytes_sent=2870, bytes_received=796),
    },
}
