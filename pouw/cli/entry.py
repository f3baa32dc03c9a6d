"""Where the command ``pouw`` begins: before anything that takes time is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """`pouw.cli.main.main`; an interrupt while that is imported is none of its errors yet."""
    try:
        from pouw.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return 130
    return run()
