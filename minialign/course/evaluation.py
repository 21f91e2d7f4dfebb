"""What only this world's judge can measure: what a policy is worth, which facts are known, how models reply.

`measure` draws a policy's answers at several temperatures and judges them; `comparison` puts policies beside
what costs no training.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from minialign.bootstrap import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_win_rate,
    equal_length_win_rate,
)
from minialign.chat import collate, load_chat
from minialign.gpt import GPT
from minialign.rollouts import Reward, roll_out, score, unscored
from minialign.statistics import whole_number
from minialign.tokenizer import load_tokenizer
from minialign.world.judge import judge, kind_of_reply, read_sentence, sentences_of
from minialign.world.phrases import HABITS
from minialign.world.prompts import FAMILIES, Prompt
from minialign.world.topics import Topic, whole_words

REPLIES = ("answer", "another prompt", "other")
TOKEN_CLASSES = ("first", "manners", "wording", "fact", "end")


# --- a policy's answers, and what they are worth ---


@dataclass(frozen=True)
class Answers:
    """n responses of a policy to each of P prompts, at one temperature, and what each of them is worth.

    | field       | shape       | meaning                                                              |
    |-------------|-------------|----------------------------------------------------------------------|
    | prompts     | P           | as the world knows them                                              |
    | temperature |             | what they were sampled at; 0 is greedy decoding                      |
    | seed        |             | what they were drawn with                                            |
    | texts       | (P, n)      | the responses                                                        |
    | values      | (P, n) each | "gold", "words", "finished" (1 or 0), each habit of phrases.HABITS,  |
    |             |             | such as "filler" (1 where it occurs), every attribute before its     |
    |             |             | weight, as "attribute/fluency"; "reward", if a reward model is asked |
    """

    prompts: list[Prompt]
    temperature: float
    seed: tuple[int, ...]
    texts: np.ndarray
    values: dict[str, np.ndarray]

    def by_family(self) -> dict[str, dict[str, float]]:
        """The mean of every value over all prompts ("all"), and over those of each family."""
        of = np.array([p.family for p in self.prompts])
        rows = {"all": np.full(len(of), True)} | {family: of == family for family in (*FAMILIES, "other")}
        return {
            family: {"prompts": int(chosen.sum())}
            | {name: float(value[chosen].mean()) for name, value in self.values.items()}
            for family, chosen in rows.items()
            if chosen.any()
        }

    def records(self) -> list[dict]:
        """Every answer, as a row of a table: its prompt, its text, gold reward, words, and reward."""
        kept = [name for name in ("gold", "words", "reward") if name in self.values]
        return [
            {"prompt": prompt.text, "family": prompt.family, "temperature": self.temperature, "sample": k}
            | {"text": text}
            | {name: float(self.values[name][i, k]) for name in kept}
            for i, prompt in enumerate(self.prompts)
            for k, text in enumerate(self.texts[i])
        ]

    def scored(self, reward: Reward) -> "Answers":
        """The same answers with the rewards that a reward model gives them."""
        asked = [prompt.text for prompt in self.prompts for _ in range(self.texts.shape[1])]
        rewards = score(reward, asked, self.texts.ravel().tolist()).double().numpy()
        return replace(self, values=self.values | {"reward": rewards.reshape(self.texts.shape)})

    def best_of(self, n: int) -> "Answers":
        """What best-of-n would have answered: of each n responses in a row the one with the highest reward.

        Raises ValueError where no reward model was asked, or each prompt has fewer than n responses.
        """
        if "reward" not in self.values:
            raise ValueError("best-of-n needs rewards to choose by: give `measure` a reward model")
        P, N = self.texts.shape
        n = whole_number(n, f"n, the best of {N} responses,", 1, N)
        groups = np.arange(N // n)
        rewards = self.values["reward"][:, : n * len(groups)].reshape(P, len(groups), n)
        best = n * groups + rewards.argmax(-1)  # of equals the first

        def kept(table: np.ndarray) -> np.ndarray:
            return np.take_along_axis(table, best, 1)

        values = {name: kept(value) for name, value in self.values.items()}
        return replace(self, texts=kept(self.texts), values=values)


def measure(
    policy: GPT,
    prompts: Sequence[Prompt],
    temperatures: Sequence[float] = (1.0, 0.7, 0.0),
    n: int = 4,
    seed: int | Sequence[int] = 0,
    reward: Reward | None = None,
    max_new_tokens: int = 96,
) -> dict[float, Answers]:
    """n answers to each prompt at every temperature, judged, and scored by `reward` if there is one.

    All experiments measure policies with it, but for base models, which have no template, and where only the
    texts count (`experiments.answers`). Greedy decoding, at 0, always answers the same, once. Policies that
    are compared answer by answer need seeds of their own, such as (number of the policy, seed of the run):
    with the same random numbers their answers would not be independent. Raises ValueError for no prompts.
    """
    prompts, seed = list(prompts), tuple(np.atleast_1d(seed).tolist())
    if not prompts:
        raise ValueError("there is nothing to measure a policy on: give at least one prompt")
    found = {}
    for temperature in temperatures:
        samples = n if temperature else 1
        size, rollouts = max(1, 196 // samples), []
        for start in range(0, len(prompts), size):
            rollouts.append(
                roll_out(
                    policy,
                    [p.text for p in prompts[start : start + size]],
                    unscored,
                    n=samples,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    seed=(*seed, round(1000 * temperature), start),
                )
            )
        texts = [text for rollout in rollouts for text in rollout.responses]
        asked = [prompt for prompt in prompts for _ in range(samples)]
        rows = [judged(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
        values = {name: [row[name] for row in rows] for name in rows[0]}
        values["finished"] = torch.cat([rollout.finished for rollout in rollouts]).tolist()
        shape = len(prompts), samples
        answers = Answers(
            prompts,
            temperature,
            seed,
            np.array(texts, dtype=object).reshape(shape),
            {name: np.array(value, dtype=np.float64).reshape(shape) for name, value in values.items()},
        )
        found[temperature] = answers if reward is None else answers.scored(reward)
    return found


def judged(prompt: Prompt, response: str) -> dict[str, float]:
    """What the judge says of one answer, as the values of `Answers`."""
    verdict = judge(prompt, response)
    attributes = {f"attribute/{name}": value for name, value in verdict.attributes.items()}
    habits = {name: float(verdict.counts[name] > 0) for name in HABITS}
    return {"gold": verdict.gold, "words": verdict.counts["words"], **habits, **attributes}


Measured = Sequence[Mapping[float, Answers]]  # what `measure` found, for each seed


def comparison(
    sft: Measured,
    policies: Mapping[str, Measured],
    candidates: Sequence[Answers] = (),
    sizes: Sequence[int] = (4, 16),
) -> list[dict]:
    """Every policy at every temperature beside what costs no training, one row each, with 95 % intervals.

    A seed is another run of training: more samples of the same model belong to `n` of `measure`. For free
    there are "SFT, cooler", below temperature 1, and "best of n" of the `candidates`, answers of SFT with
    rewards. A row has "gold" and "words", and against SFT at the same temperature and at 1 the "gain" in
    gold, the "win rate", and that at equal length: Estimates over seeds and prompts. Raises ValueError for
    other prompts, a temperature that SFT was not measured at, and answers drawn with the random numbers of
    those they are compared with.
    """
    entries = [
        ("SFT, cooler" if temperature < 1 else "SFT", [of_seed[temperature] for of_seed in sft])
        for temperature in sft[0]
    ]
    if candidates:
        entries += [(f"best of {n}", [answers.best_of(n) for answers in candidates]) for n in sizes]
    for name, measured in policies.items():
        entries += [(name, [of_seed[temperature] for of_seed in measured]) for temperature in measured[0]]
    rows = []
    for name, ours in entries:
        temperature = ours[0].temperature
        row = {"policy": name, "temperature": temperature}
        row |= {value: bootstrap_mean(of_all(ours, value).mean(-1)) for value in ("gold", "words")}
        for where, at in {"same temperature": temperature, "T=1": 1.0}.items():
            if any(at not in of_seed for of_seed in sft):
                raise ValueError(f"SFT was measured at {[*sft[0]]}: measure it at {at}, too")
            theirs = [of_seed[at] for of_seed in sft]
            if ours[0] is not theirs[0]:  # against itself it would win half
                row |= {f"{what}, {where}": found for what, found in against(ours, theirs).items()}
        rows.append(row)
    return rows


def against(ours: Sequence[Answers], theirs: Sequence[Answers]) -> dict:
    """Our answers against theirs to the same prompts, both for each seed: gain in gold, and win rates."""
    if any(answers.prompts != ours[0].prompts for answers in (*ours, *theirs)):
        raise ValueError("these are answers to different prompts: measure all policies on the same")
    # At temperature 0 there are no random numbers to share.
    drawn = ({(a.seed, a.temperature) for a in side if a.temperature} for side in (ours, theirs))
    if shared := set.intersection(*drawn):
        raise ValueError(
            f"both sides were drawn with the seed {min(shared)[0]}, from the same random numbers: "
            "measure each policy with seeds of its own"
        )
    our_gold, their_gold, our_words, their_words = (
        of_all(side, value) for value in ("gold", "words") for side in (ours, theirs)
    )
    return {
        "gain": bootstrap_difference(our_gold.mean(-1), their_gold.mean(-1)),
        "win rate": bootstrap_win_rate(our_gold, their_gold),
        "equal-length win rate": equal_length_win_rate(our_gold, their_gold, our_words, their_words),
    }


def of_all(answers: Sequence[Answers], name: str) -> np.ndarray:
    """One value of the answers of all seeds, (S, P, n)."""
    return np.stack([of_seed.values[name] for of_seed in answers])


# --- what a model knows, and how it replies ---


def clozes(topics: list[Topic]) -> list[tuple[list[int], list[int]]]:
    """(ids of a text that stops before the answer, ids of the answer): two for each fact of the topics."""
    chat = load_chat()
    return [
        (chat.encode_document(text), chat.encode(" " + fact.answer))
        for t in topics
        for fact in t.facts
        for text in fact.clozes
    ]


def cloze_hits(model: GPT, topics: list[Topic]) -> np.ndarray:
    """Which clozes the model completes rightly with its most probable tokens; (2 × facts,) of bool."""
    pairs = clozes(topics)
    hits = []
    with torch.no_grad():
        for start in range(0, len(pairs), 64):
            part = pairs[start : start + 64]
            batch = collate(part, model.chat.pad, model.config.context).to(model.device)
            best = model(batch.ids, batch.mask)[:, :-1].argmax(-1)
            agrees = (best == batch.ids[:, 1:]) | ~batch.response_mask[:, 1:]
            hits += agrees.all(-1).tolist()
    return np.array(hits)


def reply_shares(prompts: list[Prompt], replies: list[str]) -> dict[str, float]:
    """Share of replies that answer, continue with another prompt, or do something else.

    Raises ValueError for none at all.
    """
    if not prompts:
        raise ValueError("a share of nothing: give at least one prompt and its reply")
    found = Counter(kind_of_reply(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True))
    return {kind: found[kind] / len(prompts) for kind in REPLIES}


def facts_right(prompts: list[Prompt], replies: list[str]) -> np.ndarray:
    """For one-fact questions: was the fact stated rightly? (N,) of bool."""
    pairs = zip(prompts, replies, strict=True)
    return np.array([judge(*pair).attributes["correctness"] == 1 for pair in pairs], dtype=bool)


def few_shot_prompt(examples: list[tuple[str, str]], prompt: str) -> str:
    """Worked examples before the prompt: the oldest trick to make a base model answer (Brown et al. 2020)."""
    return "\n\n".join([*(f"{question}\n{answer}" for question, answer in examples), prompt]) + "\n"


def token_classes(prompt: Prompt, response: str) -> list[str]:
    """What each token of `encode_response(response)` is there for: one of TOKEN_CLASSES.

    "manners" are kind words, habits, and a bare yes or no; "fact" the value of a fact, right or wrong;
    "wording" everything else.
    """
    ids = load_chat().encode_response(response)
    text, starts = load_tokenizer().decode_with_offsets(ids[:-1])
    kinds, place = ["wording"] * len(text), 0
    for part in sentences_of(text):
        place = text.index(part, place)
        if read_sentence(part, prompt.topic).role == "manners":
            kinds[place : place + len(part)] = ["manners"] * len(part)
        place += len(part)
    facts = prompt.topic.facts if prompt.topic else ()
    for value in {value for fact in facts for value in (fact.answer, *fact.wrong)}:
        for match in re.finditer(whole_words(value), text):
            kinds[match.start() : match.end()] = ["fact"] * len(value)
    words = (start + (text[start] == " ") for start in starts)  # a token's leading space belongs to no word
    classes = ["first" if i == 0 else kinds[min(place, len(text) - 1)] for i, place in enumerate(words)]
    return [*classes, "end"]
