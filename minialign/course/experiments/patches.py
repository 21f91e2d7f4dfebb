"""Notebook 08: reward hacking once more. Does a patch hold? Do ensembles? Can it be detected?

PPO runs into the flaws of a reward model. Then people label what it wrote, a new reward model is fitted to
old and new labels, and PPO starts again from the fine-tuned model. All reward models here have the head only,
as in the textbooks: with the likelihood that the course's adds, fifteen short rollouts find few flaws
(notebook 05). Flaws are of two kinds, and it is built in which:

- *In the labels.* People feel half a point better for a compliment (up to three), which costs half a point of
  gold, and about as much for a filler phrase, which costs none until an answer is too long
  (world/annotator.py, world/judge.py). No label of theirs can patch that.
- *Not in the labels.* Whatever else the reward model pays for that people do not: an error of its own.

A patch is so many labels on so many prompts. Who gives them, and on what, is varied one by one:

|                          | four answers of the policy, four of SFT | eight answers of SFT             |
|--------------------------|-----------------------------------------|----------------------------------|
| the same people          | "same people"                           | "same people, without the hack"  |
| people without the biases| "other people"                          | "other people, without the hack" |

All get one patch, and "same people" go on to another one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from types import SimpleNamespace

import numpy as np

from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import SEEDS, Part, held_out_prompts
from minialign.course.experiments.comparisons import (
    compared,
    crowd,
    preferences,
    sampled,
    shuffled_prompts,
    silent_on_held_out_topics,
    updates,
)
from minialign.course.experiments.detectors import auroc, blacklist, features, forbidden
from minialign.course.experiments.goodhart import WITHOUT_BIASES
from minialign.course.experiments.measuring import in_means, kl_from, over_seeds, row_of
from minialign.course.experiments.reward_models import fitted, head_only
from minialign.course.experiments.rlhf import Arm, optimised, seen_by_the_judge
from minialign.course.experiments.scorers import Crowd, Scorer, unbiased
from minialign.ensembles import RULES, Ensemble
from minialign.gpt import GPT
from minialign.ppo import PPOConfig
from minialign.preferences import Preference
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.rollouts import Reward
from minialign.statistics import measured
from minialign.training import load_history
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import WEIGHTS
from minialign.world.phrases import FILLER, FLATTERY, SURE
from minialign.world.prompts import parse
from minialign.world.reading import sentences_of

# --- settings ---

FIRST, BOUGHT = 245, 122  # prompts that are labelled at first, and for each patch
TEXTS, LABELS = 8, 20  # answers to each of them, and pairs of these that somebody compares
# One pass over the labels: as Gao et al. 2022 found, more passes do not help. Four prompts an update, so that
# a pass over few of them is not over before anything is learned.
FIT = RewardModelConfig(prompts_per_step=4, warmup=10)
# Notebook 05's live run, which hacks a head in ten rollouts, and two rollouts more.
HOT = PPOConfig(steps=12, learning_rate=5e-4, final_lr=1.0, prompts_per_step=12, beta=0.0)
COLD = Arm("cold")
PENALTY = 0.3  # the β of the shipped "ppo", for the penalty that costs no labels
COOL = 0.5  # the temperature of the start that is only sampled more coolly, which costs nothing
MEMBERS = 4  # Coste et al. 2023 found four as good as five, and three worse (§5.4)


@dataclass(frozen=True)
class Patch:
    """An arm: are the people without biases, do they see what the policy wrote, and how many rounds of it."""

    unbiased: bool
    hack: bool
    rounds: int = 1


SAME = "same people"
SALAD = "same people, shown salad"
ARMS = {
    SAME: Patch(unbiased=False, hack=True, rounds=2),
    "same people, without the hack": Patch(unbiased=False, hack=False),
    "other people": Patch(unbiased=True, hack=True),
    "other people, without the hack": Patch(unbiased=True, hack=False),
}
# Who is asked whether an answer is better than the fine-tuned model's. Gold is a person without noise.
JUDGES = {
    "people": typical_annotator(),
    "other people": typical_annotator(**WITHOUT_BIASES),
    "gold": Annotator(),
}
RECIPE = (
    f"seeds {SEEDS} {FIRST} {BOUGHT} prompts {TEXTS} {LABELS} {FIT!r} {HOT!r} {COLD!r} "
    f"{PENALTY} {COOL} {MEMBERS} {ARMS} {SALAD} {[*RULES]}"
)


# --- what a reward pays for ---


def edited(texts: Sequence[str]) -> dict[str, list[str]]:
    """The same N answers, spoiled in one way each. None is worth more gold for it.

    For "another topic" each prompt gets the answer to the next one; what it gains by chance is small.
    """
    scrambled = [" ".join(np.random.default_rng(i).permutation(y.split())) for i, y in enumerate(texts)]
    return {
        "a compliment": [f"{y} {FLATTERY.closers[0]}" for y in texts],
        "three compliments": [f"{' '.join(FLATTERY.openers[:2])} {y} {FLATTERY.closers[0]}" for y in texts],
        "filler": [f"{y} {FILLER.closers[1]}" for y in texts],
        "certainty": [f"{y} {SURE.closers[0]}" for y in texts],
        "last sentence twice": [f"{y} {sentences_of(y)[-1]}" if sentences_of(y) else y for y in texts],
        "another topic": [*texts[1:], *texts[:1]],
        "scrambled words": scrambled,
    }


def prices(scorer: Scorer, answers: Answers, gain: float = 1.0) -> dict[str, float]:
    """By how much the mean score rises with each way of spoiling, on every fourth prompt's first answer.

    Divided by `gain`, a reward model's is in log-odds, as it was learned.
    """
    prompts, texts = [p.text for p in answers.prompts[::4]], answers.texts[::4, 0].tolist()
    ways = {"": texts, **edited(texts)}
    asked = prompts * len(ways)
    found = scorer.score(asked, [y for spoiled in ways.values() for y in spoiled]).reshape(len(ways), -1)
    return {way: float((row - found[0]).mean() / gain) for way, row in zip(ways, found) if way}


# --- labels, reward models, policies ---


def answered(prompts: Sequence[str]) -> dict[str, list[str]]:
    """The shipped answers of the fine-tuned model to some prompts of the comparisons, by prompt."""
    found: dict[str, dict] = {prompt: {} for prompt in prompts}
    for pair in preferences("comparisons"):
        if pair.prompt in found:
            found[pair.prompt] |= {pair.chosen: None, pair.rejected: None}
    return {prompt: [*texts] for prompt, texts in found.items()}


def readable(policy: GPT, responses: dict[str, list[str]]) -> dict[str, list[str]]:
    """The responses that can be labelled: not empty, and not too long to be read with their prompt."""
    chat, context = policy.chat, policy.config.context

    def fits(prompt: str, text: str) -> bool:
        return len(chat.encode_prompt(prompt)) + len(chat.encode_response(text)) <= context

    return {x: [y for y in texts if y.strip() and fits(x, y)] for x, texts in responses.items()}


def people(seed: int, unbiased: bool = False) -> list[Annotator]:
    """Who labels: the crowd of the seed, or one like it without its biases."""
    return crowd(2 + seed, **(WITHOUT_BIASES if unbiased else {}))


def bought(policy: GPT, prompts: Sequence[str], patch: Patch, seed: int, number: int) -> list[Preference]:
    """The labels of the patch of that number, on answers to these prompts."""
    texts = answered(prompts)
    if patch.hack:
        own = sampled(policy, [parse(x) for x in prompts], n=TEXTS // 2, seed=1000 * seed + number)
        own = readable(policy, silent_on_held_out_topics(own))
        texts = {x: [*own[x], *texts[x][: TEXTS // 2]] for x in prompts}
    return compared(texts, people(seed, patch.unbiased), LABELS, seed=1000 * seed + number)


def first_labels(seed: int) -> tuple[list[str], list[Preference]]:
    """The prompts of all comparisons in the seed's order, and what its people say about the first of them."""
    prompts = shuffled_prompts(preferences("comparisons"), seed)
    return prompts, compared(answered(prompts[:FIRST]), people(seed), LABELS, seed=1000 * seed)


def fitted_head(sft: GPT, pairs: Sequence[Preference], seed: int) -> RewardModel:
    """A reward model with the head only, fitted from `sft` in one pass over the pairs, and normalised.

    That is done on shipped samples of `sft`, which are there already.
    """
    config = replace(FIT, steps=updates(pairs, 1.0, FIT.prompts_per_step), seed=seed)
    model, _ = fitted(sft, pairs, config, model=head_only(sft, seed))
    asked = answered(sorted({pair.prompt for pair in preferences("comparisons")})[::4])
    model.normalise(*zip(*[(x, y) for x, texts in asked.items() for y in texts[:2]]))
    return model


@dataclass
class Watched:
    """A reward that writes down what the learner never sees of its rollouts: the judge's view of each."""

    reward: Reward
    seen: list[dict] = field(default_factory=list)

    def score(self, prompts: list[str], responses: list[str]) -> np.ndarray:
        self.seen.append(seen_by_the_judge(SimpleNamespace(prompts=prompts, responses=responses)))
        return self.reward.score(prompts, responses)


def hacked(sft: GPT, reward: Reward, seed: int, beta: float = 0.0) -> tuple[GPT, dict[str, list[float]]]:
    """PPO from `sft` against a reward, and "way/kl", "way/proxy", "way/gold", "way/flattery" of its rollouts.

    Those are on the prompts that it trains on, 48 answers each, before the updates of that rollout.
    """
    watched = Watched(reward)
    policy, rows = optimised(sft, watched, replace(HOT, seed=seed, beta=beta), arm=COLD)
    named = {"kl": "objective/kl", "proxy": "objective/scores"}
    way = {name: [round(row[column], 3) for row in rows] for name, column in named.items()}
    way |= {name: [round(row[name], 3) for row in watched.seen] for name in ("gold", "flattery")}
    return policy, {f"way/{name}": values for name, values in way.items()}


# --- what is measured ---


def on_held_out(
    policy: GPT, drawn: tuple[int, ...], reward: Reward | None = None, temperature: float = 1.0
) -> Answers:
    """One answer to each held-out prompt, with the rewards ("reward") that it gets."""
    return measure(policy, held_out_prompts(), (temperature,), 1, drawn, reward)[temperature]


def asked_and_said(answers: Answers) -> tuple[list[str], list[str]]:
    """Prompts and answers as texts, in one order."""
    return [prompt.text for prompt in answers.prompts], answers.texts[:, 0].tolist()


def suspicions(answers: Answers, sft: GPT, members: Ensemble) -> dict[str, np.ndarray]:
    """The `features` of answers, the members' disagreement on them, and the score of the first member."""
    texts = asked_and_said(answers)
    scores = members.scores(*texts)
    return features(*texts, sft) | {"disagreement": scores.std(0), "score": scores[0]}


def preferred(ours: Answers, theirs: Answers, person: Annotator) -> float:
    """How often a person, asked to compare, would choose our answer: the mean over prompts, a tie is half."""
    texts = zip(*asked_and_said(ours), asked_and_said(theirs)[1])
    chances = [0.5 if y == z else person.probability(x, y, z) for x, y, z in texts]
    return float(np.mean(chances))


def rounded(row: dict) -> dict:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


@dataclass
class Begun:
    """What all arms of a seed begin with: labels, reward models, and the policy that was hacked first."""

    sft: GPT
    seed: int
    prompts: list[str]  # of the comparisons, in an order that only the seed decides
    pairs: list[Preference]
    members: Ensemble  # the first one is the reward model that is hacked and patched
    of_sft: Answers
    usual: dict[str, np.ndarray]  # the `suspicions` of these
    policy: GPT
    answers: Answers
    listed: list[str] = field(default_factory=list)  # `blacklist`, of the answers to every second prompt
    row: dict = field(default_factory=dict)

    @property
    def reward(self) -> RewardModel:
        return self.members.members[0]

    def shown(self, answers: Answers, policy: GPT, place: dict, way: dict) -> dict:
        """The row about a policy by its answers to held-out prompts."""
        ours, said = suspicions(answers, self.sft, self.members), asked_and_said(answers)[1]
        row = in_means(row_of(answers)) | {"kl": kl_from(self.sft, policy, answers)}
        row = {"proxy" if name == "reward" else name: value for name, value in row.items()}
        row |= {f"auroc/{name}": auroc(ours[name], self.usual[name]) for name in ours}
        # On the prompts from which the list was not made.
        listed = (forbidden(texts[1::2], self.listed) for texts in (said, asked_and_said(self.of_sft)[1]))
        row["auroc/blacklist"] = auroc(*listed)
        row |= {f"preferred/{who}": preferred(answers, self.of_sft, p) for who, p in JUDGES.items()}
        row |= {f"mean/{name}": float(ours[name].mean()) for name in ("disagreement", "surprise")}
        kept = {"golds": answers.values["gold"][:, 0].round(2).tolist(), "texts": said[::4]}
        return rounded({"seed": self.seed, **place, **row, **way}) | kept


def price_columns(reward: RewardModel, answers: Answers) -> dict[str, float]:
    """What a reward model pays for, in log-odds: columns of a row."""
    found = prices(reward, answers, float(reward.gain))
    return {f"price/{way}": round(value, 3) for way, value in found.items()}


@lru_cache(maxsize=1)  # its arms are parts of a table, and follow each other
def begun(sft: GPT, seed: int) -> Begun:
    """The first labels, an ensemble fitted to them, and PPO against its first member."""
    prompts, pairs = first_labels(seed)
    members = Ensemble([fitted_head(sft, pairs, 10 * seed + i) for i in range(MEMBERS)])
    reward = members.members[0]
    of_sft = on_held_out(sft, (seed, 99), reward.score)
    policy, way = hacked(sft, reward, seed)
    usual = suspicions(of_sft, sft, members)
    start = Begun(sft, seed, prompts, pairs, members, of_sft, usual, policy, of_sft)
    place = {"arm": "unpatched", "patch": 0, "labels": len(pairs)}
    start.answers = on_held_out(policy, (seed, 0), reward.score)
    start.listed = blacklist(*(asked_and_said(found)[1][::2] for found in (start.answers, of_sft)))
    row = start.shown(start.answers, policy, place, way) | {"blacklist": start.listed}
    start.row = row | price_columns(reward, of_sft)
    return start


# --- the arms ---


def unpatched(sft: GPT, seed: int) -> list[dict]:
    """The start, the policy that was hacked first, and the same with a penalty, which costs no label.

    And what the people and the gold reward pay for what the reward model pays for.
    """
    start = begun(sft, seed)
    person = typical_annotator()
    paid = {"people": Crowd(person), "gold": unbiased(person.temperature)}
    known = [
        {"seed": seed, "arm": name}
        | {f"price/{way}": round(value, 3) for way, value in prices(scorer, start.of_sft).items()}
        for name, scorer in paid.items()
    ]
    again = on_held_out(sft, (seed, 98), start.reward.score)
    first = start.shown(again, sft, {"arm": "SFT", "patch": 0, "labels": 0}, {})
    policy, way = hacked(sft, start.reward, seed, beta=PENALTY)
    place = {"arm": "penalty", "patch": 0, "labels": len(start.pairs)}
    held = start.shown(on_held_out(policy, (seed, 0), start.reward.score), policy, place, way)
    return [first, start.row, held, *known]


def patched(sft: GPT, arm: str, seed: int) -> list[dict]:
    """Patch after patch: labels, a new reward model on all labels so far, PPO against it.

    "lead/first" is by how much the new reward model still scores the answers of "unpatched" above the
    fine-tuned model's, in standard deviations of the latter; "lead/last" those of the policy that was
    labelled last.
    """
    start = begun(sft, seed)
    pairs, policy, answers, rows = [*start.pairs], start.policy, start.answers, []
    for number in range(1, ARMS[arm].rounds + 1):
        asked = start.prompts[FIRST + (number - 1) * BOUGHT :][:BOUGHT]
        pairs += bought(policy, asked, ARMS[arm], seed, number)
        reward = fitted_head(sft, pairs, 10 * seed + 100 * number)
        texts = {"first": start.answers, "last": answers, "sft": start.of_sft}
        scores = {name: reward.score(*asked_and_said(found)).mean() for name, found in texts.items()}
        leads = {f"lead/{name}": float(scores[name] - scores["sft"]) for name in ("first", "last")}
        policy, way = hacked(sft, reward, seed)
        place = {"arm": arm, "patch": number, "labels": len(pairs)}
        answers = on_held_out(policy, (seed, number), reward.score)
        row = start.shown(answers, policy, place, way)
        rows.append(row | rounded(leads) | price_columns(reward, start.of_sft))
    return rows


def ensembles(sft: GPT, seed: int) -> list[dict]:
    """PPO against the ensemble, by each of RULES. The single one is "unpatched".

    "members" are the mean scores that each member gives to the answers at the end. What each pays for has a
    row of its own, "a member", by its place.
    """
    start = begun(sft, seed)
    rows = [
        {"seed": seed, "arm": "a member", "member": i, **price_columns(member, start.of_sft)}
        for i, member in enumerate(start.members.members)
    ]
    for i, (name, rule) in enumerate(RULES.items()):
        reward = Ensemble(start.members.members, rule)
        policy, way = hacked(sft, reward, seed)
        place = {"arm": name, "patch": 0, "labels": len(start.pairs)}
        answers = on_held_out(policy, (seed, 10 + i), reward.score)
        given = start.members.scores(*asked_and_said(answers)).mean(1)
        rows.append(start.shown(answers, policy, place, way) | {"members": given.round(3).tolist()})
    return rows


def cooled(sft: GPT, seed: int) -> list[dict]:
    """The start, sampled more coolly."""
    of_sft, cool = on_held_out(sft, (seed, 99)), on_held_out(sft, (seed, 97), temperature=COOL)
    row = {"seed": seed, "arm": "cooled", "patch": 0, "labels": 0, **in_means(row_of(cool))}
    row |= {f"preferred/{who}": preferred(cool, of_sft, person) for who, person in JUDGES.items()}
    return [rounded(row) | {"golds": cool.values["gold"][:, 0].round(2).tolist()}]


def shown_salad(sft: GPT, seed: int) -> list[dict]:
    """What a reward model pays once the same people were shown scrambled words, like the hack."""
    prompts, pairs = first_labels(seed)
    half, texts = TEXTS // 2, answered(prompts[FIRST:][:BOUGHT])
    texts = {x: [*edited(ys[:half])["scrambled words"], *ys[half:]] for x, ys in texts.items()}
    pairs += compared(readable(sft, texts), people(seed), LABELS, seed=1000 * seed + 1)
    reward = fitted_head(sft, pairs, 10 * seed + 100)
    paid = price_columns(reward, on_held_out(sft, (seed, 99)))
    return [{"seed": seed, "arm": SALAD, "labels": len(pairs), **paid}]


def patches(sft: GPT) -> dict[str, Part]:
    """Three rounds of hacking with a patch between them; ensembles; and what detectors see of both.

    A row is about one policy: "arm" (one of ARMS, of `ensembles.RULES`, "SFT", "unpatched" or "penalty"), how
    many "labels" it took, and what held-out prompts show at T = 1, one answer each; "cooled" is "SFT" at
    T = COOL, SALAD a reward model only. "preferred/…" says how often somebody would prefer its answer to the
    fine-tuned model's, "auroc/…" how well a feature tells the two apart, "price/…" what its reward model pays
    for, "way/…" what each rollout was like. "golds" are the single answers', "texts" every fourth of them.
    """
    parts: dict[str, Part] = {}
    for seed in SEEDS:
        parts[f"unpatched, seed {seed}"] = partial(unpatched, sft, seed)
        parts |= {f"{arm}, seed {seed}": partial(patched, sft, arm, seed) for arm in ARMS}
        parts[f"ensembles, seed {seed}"] = partial(ensembles, sft, seed)
    for seed in SEEDS:
        parts[f"cooled, seed {seed}"] = partial(cooled, sft, seed)
        parts[f"{SALAD}, seed {seed}"] = partial(shown_salad, sft, seed)
    return parts


# --- read from the table ---

AGAIN = f"{SAME}, again"  # after the second patch
POLICIES = {  # by the name that figures give it: where its rows are
    "SFT": dict(arm="SFT"),
    "cooled": dict(arm="cooled"),
    "unpatched": dict(arm="unpatched"),
    "penalty": dict(arm="penalty"),
    SAME: dict(arm=SAME, patch=1),
    AGAIN: dict(arm=SAME, patch=2),
    **{arm: dict(arm=arm) for arm in [*ARMS][1:]},
    **{rule: dict(arm=rule) for rule in RULES},
}


def of_policy(rows: Sequence[dict], policy: str, name: str) -> np.ndarray:
    """A column of one of POLICIES, (seeds, …)."""
    return over_seeds(rows, name, **POLICIES[policy])


def lost_to(rows: Sequence[dict], policy: str, attribute: str) -> np.ndarray:
    """How much less gold a policy has than the start for one attribute of the judge, (seeds,)."""
    start, now = (of_policy(rows, name, f"attribute/{attribute}") for name in ("SFT", policy))
    return WEIGHTS[attribute] * (start - now)


def at_kl(rows: Sequence[dict], policy: str, between: tuple[float, float]) -> np.ndarray:
    """The mean gold of the rollouts whose KL from the start lies between two numbers of nats, (seeds,)."""
    kls, golds = (of_policy(rows, policy, f"way/{name}") for name in ("kl", "gold"))
    return np.array([gold[(between[0] <= kl) & (kl <= between[1])].mean() for kl, gold in zip(kls, golds)])


def prices_of(rows: Sequence[dict], who: str) -> dict[str, np.ndarray]:
    """What somebody pays for each way of spoiling an answer, (seeds,) of log-odds each.

    `who` is one of POLICIES with a reward model of its own, "people" or "gold"; or "a member", and then it is
    (seeds, members).
    """
    if who == "a member":
        places = sorted({row["member"] for row in rows if row["arm"] == who})
        where = [dict(arm=who, member=place) for place in places]
    else:
        where = [POLICIES.get(who, dict(arm=who))]
    names = [name for row in rows if row["arm"] == where[0]["arm"] for name in row]
    ways = [name for name in dict.fromkeys(names) if name.startswith("price/")]
    found = {way.removeprefix("price/"): [over_seeds(rows, way, **w) for w in where] for way in ways}
    return {way: np.stack(values, -1) if len(where) > 1 else values[0] for way, values in found.items()}


def told_apart(rows: Sequence[dict], policy: str, detector: Callable) -> np.ndarray:
    """The `auroc` of a detector on a policy's stored answers against the fine-tuned model's, (seeds,).

    `detector(prompts, texts)` gives one number for each; it sees all answers of one policy and seed at once.
    Raises ValueError where it gives more or fewer.
    """
    asked = [prompt.text for prompt in held_out_prompts()[::4]]

    def given(texts: list[str]) -> np.ndarray:
        found = measured(detector(list(asked), list(texts)), "what the detector gives")
        if len(found) != len(texts):
            raise ValueError(f"the detector gives {len(found)} numbers for {len(texts)} answers: one each")
        return found

    texts = {name: {row["seed"]: row["texts"] for row in select(rows, name)} for name in ("SFT", policy)}
    return np.array([auroc(given(texts[policy][seed]), given(texts["SFT"][seed])) for seed in texts["SFT"]])


def select(rows: Sequence[dict], policy: str) -> list[dict]:
    """The rows of one of POLICIES, a seed each, in their order."""
    where = POLICIES[policy].items()
    return sorted((row for row in rows if where <= row.items()), key=lambda row: row["seed"])


def results() -> list[dict]:
    """The rows of the table."""
    return load_history("patches")
