"""The exercises, a module for each notebook: what is asked, its random inputs, and how people get it wrong.

The engine is the answer key: each solution is the engine's own function. A known mistake is a function too,
so that a check can recognise it by what it computes, and a test can make sure that it does.
"""

from minialign.course.exercises.direct_preference import DIRECT_PREFERENCE, DIRECT_PREFERENCE_PUZZLES
from minialign.course.exercises.emergent import EMERGENT
from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.exercises.fine_tuning import FINE_TUNING, FINE_TUNING_PUZZLES
from minialign.course.exercises.horizons import HORIZON_PUZZLES, HORIZONS
from minialign.course.exercises.patches import PATCHES, PATCHES_PUZZLES
from minialign.course.exercises.policy_gradients import POLICY_GRADIENT_PUZZLES, POLICY_GRADIENTS
from minialign.course.exercises.pretraining import PRETRAINING, PRETRAINING_PUZZLES
from minialign.course.exercises.puzzle import Puzzle
from minialign.course.exercises.race import RACE, RACE_PUZZLES
from minialign.course.exercises.reward_models import REWARD_MODEL_PUZZLES, REWARD_MODELS
from minialign.course.exercises.rlhf import RLHF, RLHF_PUZZLES
from minialign.course.exercises.sycophancy import SYCOPHANCY
from minialign.course.exercises.tastes import TASTES
from minialign.course.exercises.warm_up import WARM_UP, WARM_UP_PUZZLES

__all__ = ["EXERCISES", "PUZZLES", "Exercise", "Mistake", "Puzzle"]

EXERCISES: dict[str, Exercise] = (
    WARM_UP
    | PRETRAINING
    | FINE_TUNING
    | POLICY_GRADIENTS
    | REWARD_MODELS
    | RLHF
    | DIRECT_PREFERENCE
    | RACE
    | PATCHES
    | SYCOPHANCY
    | HORIZONS
    | TASTES
    | EMERGENT
)

PUZZLES: dict[str, Puzzle] = (
    WARM_UP_PUZZLES
    | PRETRAINING_PUZZLES
    | FINE_TUNING_PUZZLES
    | POLICY_GRADIENT_PUZZLES
    | REWARD_MODEL_PUZZLES
    | RLHF_PUZZLES
    | DIRECT_PREFERENCE_PUZZLES
    | RACE_PUZZLES
    | PATCHES_PUZZLES
    | HORIZON_PUZZLES
)
