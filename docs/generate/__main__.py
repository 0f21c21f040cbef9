"""`python -m docs.generate`: renew the generated pages and tables; `--check` only says which of them aren't current."""

from __future__ import annotations

import argparse
import sys

from docs.generate.files import renew, stale

parser = argparse.ArgumentParser(
    prog="python -m docs.generate", description="Renew what is generated in docs/."
)
parser.add_argument(
    "--check", action="store_true", help="change nothing, and end with 1 if something isn't current"
)
if parser.parse_args().check:
    if names := stale():
        sys.exit(f"not current: {', '.join(f'docs/{name}' for name in names)}; `make docs` renews them")
else:
    renew()
