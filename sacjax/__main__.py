"""Run the command line: `python -m sacjax` does the same as `sacjax`."""

import sys

from sacjax.cli.main import main

sys.exit(main())
