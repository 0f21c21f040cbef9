"""What a bare client reaches on each server, in loops that do nothing else. They run in the venv of the clients."""
