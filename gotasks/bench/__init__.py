"""The bench: what a user's own server does, in some seconds, in a queue that nobody else has.

`gotasks bench URL` (in `gotasks/cli/bench.py`) is the door. To compare with other libraries there is `benchmarks/`.
"""
