"""The course: what the notebooks are made with, and what makes them: lessons, exercises, experiments, the
build and the runner.
"""
