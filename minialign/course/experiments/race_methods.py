"""Notebook 07: the methods of the race, what each may use, and how each turns the start into a policy.

All begin with the same policy and the same labels, and have the same seconds: the training of the reward
model is part of them. The learning rates are constant, so that half a run is a run of half the length: it is
nobody's usual schedule, and the same for all. Methods that sample do so for other prompts than the labels'.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from minialign import dpo, ppo, sft
from minialign.course.experiments import rlhf
from minialign.course.experiments.comparisons import preferences
from minialign.course.experiments.imitation import IMITATED, winners
from minialign.course.experiments.reward_models import trained
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPT
from minialign.labels import argmax_labels, sampled_labels
from minialign.ppo import PPOConfig
from minialign.preferences import Preference
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.sft import SFTConfig
from minialign.training import History, TrainingConfig, stop_if_interrupted
from minialign.world.prompts import prompts_of

# The numbers of steps are for 100 seconds of training on one core, as speeds were measured once; the table
# race_costs says what they take. SFT on chosen gets half: two of its last settings still rose, a little.
CONSTANT = dict(final_lr=1.0)
REWARD = RewardModelConfig(steps=124)  # two passes over the labels
RATES = (1e-4, 3e-4)
BETAS = (0.03, 0.1, 0.3, 1.0)
PER_PROMPT = 6  # labels of each prompt in the race, of those that are shipped


# --- what a run may use ---


def few_labels(pairs: Iterable[Preference]) -> list[Preference]:
    """The race's labels: of each prompt the first PER_PROMPT pairs. What is left shows what more would do."""
    found: dict[str, list[Preference]] = {}
    for pair in pairs:
        found.setdefault(pair.prompt, []).append(pair)
    return [pair for of_one in found.values() for pair in of_one[:PER_PROMPT]]


@dataclass
class Given:
    """What a run may use: the policy to start from, labels, and a reward model made of them.

    Reward models are made when they are asked for, one for each seed, with the learning rate `rate`;
    unless one is `shipped`.
    """

    start: GPT
    pairs: Sequence[Preference]
    rate: float = REWARD.learning_rate
    shipped: RewardModel | None = None
    made: dict[int, RewardModel] = field(default_factory=dict)

    def reward_model(self, seed: int) -> RewardModel:
        if self.shipped is not None:
            return self.shipped
        if seed not in self.made:
            self.made[seed] = reward_model(self.start, self.pairs, seed, self.rate)
        return self.made[seed]


def reward_model(start: GPT, pairs: Sequence[Preference], seed: int, rate: float) -> RewardModel:
    """What RLHF makes of labels first: the course's reward model, which reads its own likelihood as well."""
    return trained(start, pairs, replace(REWARD, seed=seed, learning_rate=rate))[0]


def given(start: GPT, rate: float) -> Given:
    """What the methods of the race may use."""
    return Given(start, few_labels(preferences("comparisons")), rate)


def given_more(start: GPT, shipped: RewardModel) -> Given:
    """What the controls may use: all the labels that are shipped, or the reward model made of them."""
    return Given(start, preferences("comparisons"), shipped=shipped)


# --- how each method trains, in place ---


def policy_prompts() -> list[str]:
    """The prompts of methods that sample; the labels are about others."""
    return [p.text for p in prompts_of("policy")]


def imitate(policy: GPT, given: Given, config: SFTConfig, imitated: str, **options) -> History:
    return sft.train(policy, winners(given.pairs, imitated), config, **options)


def optimise(policy: GPT, given: Given, config: PPOConfig, arm: rlhf.Arm = rlhf.ARM, **options) -> History:
    """PPO as the course runs it; rollouts that warm its critic up are part of its steps."""
    reward = given.reward_model(config.seed)
    options |= dict(reference=given.start, critic=arm.critic(reward))
    return ppo.train(policy, policy_prompts(), reward.score, arm.applied(config), **options)


def prefer(policy: GPT, given: Given, config: DPOConfig, **options) -> History:
    return dpo.train(policy, given.pairs, config, reference=given.start, **options)


def prefer_online(policy: GPT, given: Given, config: OnlineDPOConfig, **options) -> History:
    """The reward model labels: always the better sample is chosen."""
    labels = argmax_labels(given.reward_model(config.seed).score)
    return dpo.train_online(policy, policy_prompts(), labels, config, reference=given.start, **options)


def prefer_online_sampled(policy: GPT, given: Given, config: OnlineDPOConfig, **options) -> History:
    """The reward model labels as people do: the better sample is chosen more often.

    Its scores were normalised; as log-odds, which the labels are drawn with, they are what it learned.
    """
    reward = given.reward_model(config.seed)

    def log_odds(prompts: list[str], responses: list[str]):
        return reward.score(prompts, responses) / float(reward.gain)

    labels = sampled_labels(log_odds, config.seed)
    return dpo.train_online(policy, policy_prompts(), labels, config, reference=given.start, **options)


@dataclass(frozen=True)
class Method:
    """How a method trains, for how many steps in the budget, and the settings that are tried.

    With `needs_reward`, the training of the reward model is part of its cost. With `more` it is a control,
    which may use all the labels that are shipped.
    """

    train: Callable[..., History]
    config: TrainingConfig
    settings: tuple[dict, ...]
    needs_reward: bool = False
    more: bool = False


def every(**knobs: Sequence) -> tuple[dict, ...]:
    """All combinations of the knobs' values, as settings."""
    return tuple(dict(zip(knobs, values)) for values in product(*knobs.values()))


TILTED = every(beta=BETAS, learning_rate=RATES)
RETUNED = every(beta=BETAS[1:3], learning_rate=RATES)  # of the controls
COPIED = every(imitated=IMITATED, learning_rate=RATES)
PPO = PPOConfig(steps=27, **CONSTANT)
DPO = DPOConfig(steps=200, **CONSTANT)
ONLINE = OnlineDPOConfig(steps=39, **CONSTANT)
METHODS = {
    "SFT on chosen": Method(imitate, SFTConfig(steps=333, **CONSTANT), COPIED),
    "PPO": Method(optimise, PPO, TILTED, needs_reward=True),
    "GRPO": Method(partial(optimise, arm=rlhf.CRITIC_FREE), PPO, TILTED, needs_reward=True),
    "DPO": Method(prefer, DPO, TILTED),
    "online DPO": Method(prefer_online, ONLINE, TILTED, needs_reward=True),
    "online DPO, sampled labels": Method(prefer_online_sampled, ONLINE, TILTED, needs_reward=True),
    "PPO, all labels": Method(optimise, PPO, RETUNED, needs_reward=True, more=True),
    "DPO, all labels": Method(prefer, DPO, RETUNED, more=True),
}
RECIPE = f"{PER_PROMPT} labels a prompt {REWARD!r} {rlhf.ARM!r} {rlhf.CRITIC_FREE!r} " + " ".join(
    f"{name}: {method.config!r} {method.settings}" for name, method in METHODS.items()
)


# --- a run ---


def entry(method: str, setting: dict, seed: int = 0) -> tuple[Callable[..., History], TrainingConfig]:
    """A method with one setting of its knobs: what trains it, and the config.

    A knob that is not in the config goes to the function.
    """
    train, config = METHODS[method].train, METHODS[method].config
    known = {name: value for name, value in setting.items() if hasattr(config, name)}
    others = {name: value for name, value in setting.items() if name not in known}
    return partial(train, **others), replace(config, seed=seed, **known)


def steps_of(config: TrainingConfig, share: float) -> int:
    """How many steps a share of a run is."""
    return max(1, round(share * config.steps))


def run(
    given: Given,
    method: str,
    setting: dict,
    seed: int,
    until: float = 1.0,
    shares: Sequence[float] = (),
    show: Callable[[GPT, dict], None] = lambda policy, place: None,
) -> tuple[GPT, History]:
    """One run of a method up to the share `until` of its steps: its policy, and the history.

    After each of `shares` it calls `show(policy, place)`, the place saying the method, seed, setting, step
    and share: what a row about this policy begins with.
    """
    train, config = entry(method, setting, seed)
    policy = copy.deepcopy(given.start)
    at = {steps_of(config, share): share for share in shares if share <= until}

    def on_step(metrics: dict) -> None:
        if (step := metrics["step"]) in at:
            show(policy, {"method": method, "seed": seed, **setting, "step": step, "share": at[step]})

    history = train(policy, given, replace(config, steps=steps_of(config, until)), on_step=on_step)
    stop_if_interrupted(history)
    return policy, history
