"""The notebooks' figures, a module for each: drawn from rows or numbers, shown with a text for the blind.

The text takes its numbers from what is drawn, so that it cannot say something else.
"""
