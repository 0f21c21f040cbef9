"""One script for each peer. Each runs in a venv of its own and shares nothing with the others but `kit`."""
