"""`pytest --nbval notebooks` runs the course's own notebooks, in kernels like those of `make notebooks`, and
compares with tests/nbval_tolerance.py.
"""

from contextlib import ExitStack

from nbval_tolerance import install

from minialign.course.runner import COURSE, shielded

install()


def pytest_configure(config):
    stack = ExitStack()
    stack.enter_context(shielded())
    config.add_cleanup(stack.close)


def pytest_ignore_collect(collection_path):
    """The reader's own notebooks beside the course's are not the product's."""
    return True if collection_path.suffix == ".ipynb" and not collection_path.match(COURSE) else None
