"""`python -m sacjax` is `sacjax`."""

import sys

from sacjax.cli import main

sys.exit(main())
