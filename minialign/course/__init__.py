"""The course, what the notebooks are made with: lessons, exercises, experiments, the build, the runner."""
