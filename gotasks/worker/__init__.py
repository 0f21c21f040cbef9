"""The worker: one process that acquires tasks and runs their chains. `worker.py` wires the parts and stops them."""
