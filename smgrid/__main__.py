"""`python -m smgrid` is the command line."""

import sys

from smgrid.cli import main

sys.exit(main())
