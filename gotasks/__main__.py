"""`python -m gotasks`: the command line."""

from gotasks.cli import main

if __name__ == "__main__":
    main(prog_name="gotasks")
