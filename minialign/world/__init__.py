"""A world small enough to know all about: its facts, its texts, its people, and a judge who is always right.

Plain Python and numpy: nothing in here has ever seen a model.
"""
