"""A first program: a chain of two handlers, a queue, a task, and a worker.

Run it, `python examples/first.py`: its tasks are in the file `tasks.db` of this folder. Or on another broker,
`GOTASKS_BROKER_URL=redis://127.0.0.1:6379/0 python examples/first.py`. Ctrl-C (or SIGTERM) stops it cleanly.
"""

from gotasks import App, ArgsMap, metrics, reentrant

app = App("sqlite:///tasks.db", task_ttl=1000)


def charge(args: ArgsMap) -> ArgsMap | None:
    """Not safe to run twice, so it is plain: gotasks never starts it a second time."""
    return {**args, "charge": f"ch_{args['order']}"}


def receipt(args: ArgsMap) -> ArgsMap | None:
    """Safe to run twice, so it is reentrant: retried after an error, run again after a crash."""
    print(f"order {args['order']}: charged as {args['charge']}")
    return None  # the map goes on as it is


checkout = app.register("checkout", charge, reentrant(receipt, max_times=3, sleepy_ms=100))
orders = app.queue("orders", max_limit=10, monitor_interval=5, lease=30)


def main() -> None:
    """Enqueue, work, and go on working."""
    task = orders.enqueue("checkout", {"order": 42})
    orders.enqueue_many("checkout", [{"order": 43}, {"order": 44}])
    metrics.run_server(app, ":2121")

    with app.worker("orders"):
        print(task.id, task.wait(timeout=10), task.status())
    print("ready:", app.queue_len("orders"), app.stats("orders"), app.capabilities)

    print("working until SIGTERM or Ctrl-C", flush=True)
    app.run("orders")
    app.close()


if __name__ == "__main__":
    main()
