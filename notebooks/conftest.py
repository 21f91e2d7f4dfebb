"""`pytest --nbval notebooks` runs the course's own notebooks, in kernels like those of `make notebooks`, and
compares with tests/nbval_tolerance.py.
"""

from contextlib import ExitStack

from nbval import plugin
from nbval_tolerance import install

from minialign.course.runner import COURSE, shielded

install()


def pytest_configure(config):
    stack = ExitStack()
    folder = stack.enter_context(shielded())
    config.add_cleanup(stack.close)

    class Elsewhere(plugin.RunningKernel):
        """Not in notebooks/, where a matplotlibrc of the reader's may lie."""

        def __init__(self, kernel_name, cwd, **options):
            super().__init__(kernel_name, cwd=str(folder), **options)

    plugin.RunningKernel = Elsewhere


def pytest_ignore_collect(collection_path):
    """The reader's own notebooks beside the course's are not the product's."""
    return True if collection_path.suffix == ".ipynb" and not collection_path.match(COURSE) else None
