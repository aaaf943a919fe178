"""`python -m uwasp_cli`, where the command is not on the PATH."""

import sys

from uwasp_cli.command import main

if __name__ == "__main__":
    sys.exit(main())
