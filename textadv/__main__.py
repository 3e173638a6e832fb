"""`python -m textadv`: the command line."""

import sys

from textadv.cli import main

sys.exit(main())
