"""Entry point of ``python -m fedlas`` and of launchers, such as ``accelerate launch -m fedlas runs train``."""

import sys


def run() -> int:
    """Run the command line and return its exit code; Ctrl-C gives 130, also while modules are imported."""
    try:
        from fedlas.cli import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
