"""The experiments' own machinery: the famous bugs do what they say, and the shuffled key judges other facts."""

import pytest
import torch

from minialign.chat import collate_chat, special
from minialign.evaluation import facts_right
from minialign.experiments import policy_gradients
from minialign.experiments.fine_tuning import BUGS, no_end_token, pad_is_end, prompt_follows, shuffled_key, steps_for
from minialign.gpt import GPTConfig
from minialign.logprobs import token_log_probs
from minialign.tokenizer import ASSISTANT, END, PAD, load_tokenizer
from minialign.world.prompts import prompts_of
from tests.engine import lively_gpt

BATCH = collate_chat([("Why?", "Because it is so."), ("Who was it, then?", "Me.")])
IDS, MASK = BATCH.ids, BATCH.response_mask


def counted(bug: str) -> list[list[int]]:
    """The ids that are in the loss, row by row."""
    mask = BUGS[bug](IDS, MASK)
    return [row[chosen].tolist() for row, chosen in zip(IDS, mask)]


def test_without_a_bug_the_response_and_its_end_count():
    assert counted("correct") == [row[mask].tolist() for row, mask in zip(IDS, MASK)]
    assert all(row[-1] == special(END) for row in counted("correct"))


def test_prompt_in_the_loss_counts_everything_but_padding():
    assert [len(row) for row in counted("prompt in the loss")] == BATCH.mask.sum(-1).tolist()
    assert all(special(PAD) not in row for row in counted("prompt in the loss"))


def test_mask_off_by_one_counts_the_template_and_loses_the_end():
    for row, right in zip(counted("mask off by one"), counted("correct")):
        assert row == [special(ASSISTANT), *right[:-1]]


def test_pad_as_end_is_the_same_bug_as_no_end():
    for row, right in zip(counted("no end token"), counted("correct")):
        assert row == right[:-1]
    assert torch.equal(pad_is_end(IDS, MASK), no_end_token(IDS, MASK))


def test_a_prompt_after_the_answer_is_seen():
    assert prompt_follows("Bees make honey. Explain whales to an expert.")
    assert not prompt_follows("Explain whales to an expert.") and not prompt_follows("Bees make honey. I hope this helps.")


def test_the_shuffled_key_asks_for_another_things_facts():
    prompts = [p for p in prompts_of("evaluation", ("question",)) if not p.topic.real]
    replies = [p.topic.facts[p.fact].child for p in prompts]
    assert facts_right(prompts, replies).all()
    others, renamed = shuffled_key(prompts, replies)
    assert all(other.topic is not prompt.topic for other, prompt in zip(others, [p for p in prompts]) if other.text == prompt.text)
    assert facts_right(others, renamed).mean() < 0.3


def test_more_demonstrations_more_steps_up_to_a_bound():
    assert [steps_for(n) for n in (30, 100, 300, 3000)] == [77, 140, 242, 650]


# --- policy gradients: the bugs are other log-probabilities ---


def test_the_bugs_of_policy_gradients_do_what_they_say():
    model = lively_gpt(GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=8))
    with torch.no_grad():
        tokens = [row[mask].tolist() for row, mask in zip(token_log_probs(model, BATCH), MASK)]
        found = {bug: log_prob(model, BATCH, 1.0).tolist() for bug, log_prob in policy_gradients.BUGS.items()}
    for row, log_probs in enumerate(tokens):
        assert found["correct"][row] == pytest.approx(sum(log_probs), rel=1e-5)
        assert found["sign flipped"][row] == pytest.approx(-sum(log_probs), rel=1e-5)
        assert found["averaged over tokens"][row] == pytest.approx(sum(log_probs) / len(log_probs), rel=1e-5)
        assert found["end token dropped"][row] == pytest.approx(sum(log_probs[:-1]), rel=1e-5)
