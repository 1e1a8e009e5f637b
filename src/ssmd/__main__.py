"""`python -m ssmd`: the command line."""

import sys

from ssmd.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
