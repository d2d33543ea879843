"""`python -m connect_trio`."""

import sys

from connect_trio.cli import main

if __name__ == "__main__":
    sys.exit(main())
