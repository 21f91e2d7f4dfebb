"""`python -m minialign.course` runs the notebooks."""

import sys

from minialign.course.runner import main

sys.exit(main())
