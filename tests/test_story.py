"""The story that the README opens with, shortened: it runs from top to bottom and fits on a page."""

import inspect
import math

from minialign.course import story


def test_the_story_runs(capsys):
    golds = story.story(size=0.02)
    assert list(golds) == ["base", "SFT", "PPO", "DPO"] and all(map(math.isfinite, golds.values()))
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "gold reward" in line]
    assert told == list(golds)


def test_it_fits_on_a_page():
    assert len(inspect.getsource(story).splitlines()) <= 60
