"""`python -m epp` is the command `epp`."""

import sys

from epp.cli import main

sys.exit(main())
