"""`python -m sacjax` is `sacjax`."""

import sys

from sacjax.cli.main import main

sys.exit(main())
