"""``python -m fedlas``, and so what a launcher of several processes takes: ``accelerate launch -m fedlas train``."""

import sys

from fedlas.cli import main

if __name__ == "__main__":
    sys.exit(main())
