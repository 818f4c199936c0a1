"""``python -m fedlas``, for a launcher of several processes: ``accelerate launch -m fedlas runs train``."""

import sys


def run() -> int:
    """Run the command line; Ctrl-C while it still imports ends it like Ctrl-C later."""
    try:
        from fedlas.cli import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
