"""`python -m supervisor` is `tars-supervisor`."""

import sys

from supervisor.main import main

sys.exit(main())
