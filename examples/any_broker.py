"""The same program on every broker: a chain, a retry, a failure and its repair. Only the URL changes.

Run it, `python examples/any_broker.py`: its tasks are in the file `tasks.db` of this folder. Or on a server:
`GOTASKS_BROKER_URL=amqp://127.0.0.1 python examples/any_broker.py`, or `redis://127.0.0.1:6379/0`, or
`postgresql+psycopg://postgres@127.0.0.1/postgres`, or `amqp://127.0.0.1/?records=redis://127.0.0.1:6379/0`.
"""

import queue
import time

from gotasks import App, ArgsMap, Capability, context, reentrant

app = App("sqlite:///tasks.db")

#: What the last step was given.
shipped: queue.SimpleQueue[ArgsMap] = queue.SimpleQueue()


def charge(args: ArgsMap) -> ArgsMap:
    """Plain: it is never started twice. What it raises leads to the fatal queue, from where a person resumes it."""
    if args["card"] == "expired":
        raise ValueError("the card has expired")
    return {**args, "charge": f"ch_{args['order']}"}


def book(args: ArgsMap) -> ArgsMap:
    """Reentrant: it is tried again. At first the courier is always busy."""
    if context.current().tries == 0:
        raise ConnectionError("the courier is busy")
    return {**args, "courier": 7}


def ship(args: ArgsMap) -> None:
    """The end of the chain."""
    shipped.put(args)


checkout = app.register("checkout", charge, reentrant(book, max_times=3, sleepy_ms=50), ship)
orders = app.queue("orders")


def main() -> None:
    """Two orders, of which one fails and is mended."""
    good = orders.enqueue(checkout, {"order": 42, "card": "valid"})
    bad = orders.enqueue(checkout, {"order": 43, "card": "expired"})
    with app.worker("orders"):
        print("shipped:", shipped.get(timeout=30))
        while not (failed := {task.id: task for task in app.fatal.list()}.get(bad.id)):
            time.sleep(0.1)
        print("failed:", failed.failure.step, failed.failure.error)
        app.fatal.retry(bad.id, changes={"card": "valid"})
        print("shipped:", shipped.get(timeout=30))
        if Capability.RECORDS in app.capabilities:
            print("results:", good.wait(timeout=30), bad.wait(timeout=30))
    app.close()


if __name__ == "__main__":
    main()
