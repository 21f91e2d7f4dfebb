"""Notebook 02: the famous bugs of fine-tuning, each another response mask; one only looks like a bug."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from minialign import sft
from minialign.chat import load_chat
from minialign.course.evaluation import measure, reply_shares
from minialign.course.experiments import SEEDS, held_out_prompts
from minialign.course.experiments.fine_tuning import SHORT, encoded_pairs, with_template
from minialign.gpt import GPT
from minialign.logprobs import negative_log_likelihood
from minialign.sft import SFTConfig, sft_loss
from minialign.training import History, stop_if_interrupted
from minialign.world.demonstrations import demonstrate
from minialign.world.prompts import prompts_of
from minialign.world.reading import ASKING, sentences_of


def prompt_in_loss(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The prompt's tokens are trained on too."""
    return ids != load_chat().pad


def template_in_loss(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The <|assistant|> before the response is trained on too. It looks like an off-by-one and does no harm.

    Nobody ever samples this token: the template writes it.
    """
    return response_mask | response_mask.roll(-1, 1)


def mask_not_shifted(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The targets are moved up by one and the mask is not: `response_mask[:, :-1]` beside `ids[:, 1:]`.

    The first response token is never trained on, the end token still is (and the padding after it, which
    nobody samples): a model that cannot begin, but can stop.
    """
    return response_mask.roll(1, 1)


def mask_shifted_twice(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The mask is moved up by one, and then again: it begins with <|assistant|>, and the end token is out.

    The twin of `mask_not_shifted`: a model that can begin, but cannot stop.
    """
    return response_mask.roll(-1, 1)


def no_end_token(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The response is encoded without its end token.

    The same mask comes of a padding token that is the end token, where padding is masked out by its id.
    """
    return response_mask & (ids != load_chat().end)


BUGS: dict[str, Callable] = {
    "correct": lambda ids, response_mask: response_mask,
    "template in the loss": template_in_loss,
    "prompt in the loss": prompt_in_loss,
    "mask not shifted": mask_not_shifted,
    "mask shifted twice": mask_shifted_twice,
    "no end token": no_end_token,
}


def fine_tuned_with_bug(base: GPT, demonstrations, bug: str, config: SFTConfig) -> tuple[GPT, History]:
    """A copy of `base` fine-tuned with one of BUGS, and its history. The loss in it is the bug's own."""
    model = with_template(base)

    def loss(logits, ids, response_mask):
        return sft_loss(logits, ids, BUGS[bug](ids, response_mask))

    return model, sft.train_on_tokens(model, encoded_pairs(demonstrations), config, loss=loss)


def failures(base: GPT) -> list[dict]:
    """What each bug does to a model fine-tuned on 300 demonstrations: few steps (SHORT), without replay.

    Sampled at T = 1: does a reply stop by itself (`ended`), how long is it, does it answer (`answer`), does a
    prompt follow what it says, what is it worth? `losses` is the training loss that its author would have
    looked at, a mean of every ten steps in nats a token, and `held-out loss` the right loss, on other
    demonstrations.
    """
    rows, prompts = [], held_out_prompts()
    others = encoded_pairs(demonstrate(prompts, len(prompts), seed=77))
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), 300, seed=seed)
        for number, bug in enumerate(BUGS):
            model, history = fine_tuned_with_bug(base, written, bug, replace(SHORT, seed=seed))
            stop_if_interrupted(history)
            found = measure(model, prompts, (1.0,), n=1, seed=(seed, number))[1.0]
            texts = found.texts[:, 0].tolist()
            losses = history.column("loss")
            rows.append(
                {
                    "seed": seed,
                    "bug": bug,
                    "ended": float(found.values["finished"].mean()),
                    "words": float(found.values["words"].mean()),
                    "answer": reply_shares(prompts, texts)["answer"],
                    "prompt after answer": float(np.mean([prompt_follows(text) for text in texts])),
                    "gold": float(found.values["gold"].mean()),
                    "losses": [float(losses[i : i + 10].mean()) for i in range(0, len(losses), 10)],
                    "held-out loss": negative_log_likelihood(model, others),
                }
            )
    return rows


def prompt_follows(text: str) -> bool:
    """Does a sentence after the first one ask or instruct, as the base model's lists of prompts do?"""
    return any(ASKING.match(part) or part.endswith("?") for part in sentences_of(text)[1:])


TABLES = (failures,)
