"""The demo: every file of a directory runs through a chain of three steps, with trouble on purpose, and is counted.

`gotasks demo` (in `gotasks/cli/demo.py`) is the door. What it shows is checked against the files themselves.
"""
