"""`pytest --nbval notebooks` runs kernels as `make notebooks` does, and compares with
tests/nbval_tolerance.py.
"""

import os

from nbval_tolerance import install

from minialign.course.runner import kernel_environment

install()
environment = kernel_environment()
os.environ.clear()
os.environ.update(environment)
