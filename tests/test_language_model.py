"""What a reader talks to: lists, seeds, templates, and inputs of any length."""

import pytest
import torch
from engine import lively_gpt

from minialign.chat import load_chat
from minialign.language_model import LanguageModel


@pytest.fixture
def chat(toy_data):
    return LanguageModel(lively_gpt(), template=True)


@pytest.fixture
def base(toy_data):
    return LanguageModel(lively_gpt(), template=False)


def test_a_list_is_answered_as_its_prompts_are(chat):
    prompts = ["Why?", "Is the moon big?", "x"]
    together = chat.respond(prompts, max_new_tokens=8)
    assert (
        together == [chat.respond(prompt, max_new_tokens=8) for prompt in prompts] and len(set(together)) > 1
    )


def test_sampling_has_a_seed(chat):
    answers = [chat.respond("Why?", temperature=1.0, seed=seed, max_new_tokens=8) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("kind", ["chat", "base"])
def test_log_prob_is_that_of_the_response_in_its_template(kind, request):
    """For a chat model the end token counts, for a base model there is none."""
    language_model = request.getfixturevalue(kind)
    prompt, response = (
        (load_chat().encode_prompt("Why?"), load_chat().encode_response("So."))
        if kind == "chat"
        else (load_chat().encode_document("Why?"), load_chat().encode_response("So.", end=False))
    )
    log_probs = language_model.model(torch.tensor([prompt + response])).log_softmax(-1)[0]
    expected = sum(log_probs[len(prompt) + i - 1, token].item() for i, token in enumerate(response))
    assert language_model.log_prob("Why?", "So.") == pytest.approx(expected, abs=1e-4)


def test_long_and_empty_inputs(chat):
    with pytest.raises(ValueError, match="a prompt has 102 tokens, the context holds 48: shorten the prompt"):
        chat.respond("x" * 100)
    with pytest.raises(ValueError, match="there is nothing to continue"):
        chat.respond([])
