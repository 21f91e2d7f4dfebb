"""`python -m minialign.course` runs the notebooks."""

import sys

from minialign.files import DATA, PACKAGE

if DATA.parent == PACKAGE:  # installed, and perhaps without what the runner imports
    sys.exit("an installed package has no notebooks: clone the repository and run `make course` there")

from minialign.course.runner import main  # noqa: E402

sys.exit(main())
