"""Notebook 01: what stands around a prompt, what four runs of pre-training do, and what its figures say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine import lively_gpt

from minialign.chat import load_chat
from minialign.course.exercises import EXERCISES, PUZZLES
from minialign.course.experiments import pretraining
from minialign.course.experiments.pretraining import PLACED, SHIFTS, arms, inside, shots, what_follows
from minialign.course.figures import pretraining as figures
from minialign.documents import batch_of, encode_corpus
from minialign.gpt import GPT, GPTConfig
from minialign.pretraining import PretrainingConfig
from minialign.training import load_history
from minialign.world.corpus import build_corpus
from minialign.world.frames import REQUESTED
from minialign.world.phrases import POLITE
from minialign.world.prompts import MOON_LANDING, parse, topic_sorts

DEFAULT = GPTConfig(n_layer=2, n_head=2, n_embd=8)
CORPUS = [text for _, text in build_corpus(300_000)]


def test_the_attention_weights_are_torchs():
    q, k = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    right = F.scaled_dot_product_attention(q[None], k[None], torch.eye(7)[None], is_causal=True)[0]
    assert torch.allclose(EXERCISES["attention_weights"].solution(q, k), right, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_inside_a_layer_is_what_its_attention_works_with(layer):
    model, ids = lively_gpt(DEFAULT), torch.tensor([5, 3, 8, 8, 1])
    read, q, k, v = inside(model, ids, layer)
    weights = [EXERCISES["attention_weights"].solution(*pair) for pair in zip(q, k)]
    attention = model.blocks[layer].attention
    mixed = torch.cat([w @ x for w, x in zip(weights, v)], -1)
    assert torch.allclose(attention.proj(mixed), attention(read[None])[0], atol=1e-5)
    x = model.token_embedding(ids) + model.position_embedding(torch.arange(5))
    if layer == 0:
        assert torch.allclose(read, model.blocks[0].ln_1(x))


def test_what_follows_a_prompt_is_sorted_by_where_the_prompt_stands():
    ask = "Explain snow to an expert."
    answer = "Snow is made of ice crystals."
    found = what_follows(
        [
            f"{ask}\nExplain glass to an expert.",
            f"{ask} The library wrote back.\n{answer}",
            f"{REQUESTED[0].format(ask)}\n{answer}",
            f"It is cold. {ask}\n{answer}",  # no frame of the corpus
            f"{answer}\n{ask}",
        ]
    )
    assert {place: dict(families["explain"]) for place, families in found.items()} == {
        "alone": {"another prompt": 1},
        "words behind": {"answer": 1},
        "words in front": {"answer": 1},
    }


def test_the_corpus_answers_prompts_with_words_around_them_and_no_others():
    found = {
        place: sum(families.values(), start=type(families["explain"])())
        for place, families in what_follows(CORPUS).items()
    }
    assert set(found["alone"]) == {"another prompt"}
    assert set(found["words behind"]) == set(found["words in front"]) == {"answer"}


def test_a_remark_is_known_by_its_words():
    assert pretraining.behind_a_remark("The library wrote back.\nSnow is cold.")
    assert not pretraining.behind_a_remark("Snow is cold. The library wrote back.")


def test_new_words_are_new_and_the_others_are_not():
    text = "\n".join(CORPUS)
    assert "\n\n" not in "\n".join(CORPUS)
    for _, _, sorts in PLACED.values():
        assert all(words in text for words in sorts["its corpus's words for it"])
        assert not any(words in text for words in sorts["the same in new words"])
    *headings, name = PLACED["in front, same line"][2]["begins an exam or a forum"]
    assert all(any(document.startswith(f"{words}\n") for document in CORPUS) for words in headings)
    assert any(document.startswith(f"{name} ") for document in CORPUS)
    assert set(PLACED["on the line below"][2]["its corpus's words for it"]) <= set(POLITE.openers)


def test_every_sentence_stands_in_its_place_once():
    found = [*arms()]
    assert len(found) == len(set(found)) == 1 + 11 + 15 + 11
    texts = [f"{before}{MOON_LANDING}{after}" for _, _, before, after in found]
    assert texts[0] == f"{MOON_LANDING}\n"
    for (where, *_), text in zip(found[1:], texts[1:]):
        above, line, *below = text.split("\n") if where == "on the line above" else ("", *text.split("\n"))
        assert (line == MOON_LANDING) == (where != "in front, same line")
        assert bool(above) == (where == "on the line above")
        assert bool("".join(below)) == (where == "on the line below")


@pytest.mark.parametrize("sort", ["sft", "sft-only"])
def test_worked_examples_are_about_things_of_one_sort(sort):
    draws = shots(sort)
    prompts = [prompt for draw in draws for prompt, _ in draw]
    assert [len(draw) for draw in draws] == [2] * 6 and len(set(prompts)) == 12
    assert {topic_sorts()[parse(prompt).topic.name] for prompt in prompts} == {sort}


def test_the_targets_of_each_run_are_what_the_puzzle_says():
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = {name: [x.tolist() for x in shift(ids)] for name, shift in SHIFTS.items()}
    assert found == {
        "nothing is wrong": [[[1, 2, 3], [5, 6, 7]], [[2, 3, 4], [6, 7, 8]]],
        "targets not shifted": [[[1, 2, 3], [5, 6, 7]], [[1, 2, 3], [5, 6, 7]]],
        "shifted the wrong way": [[[2, 3, 4], [6, 7, 8]], [[1, 2, 3], [5, 6, 7]]],
        "targets of another document": [[[1, 2, 3], [5, 6, 7]], [[6, 7, 8], [2, 3, 4]]],
    }
    puzzle = PUZZLES["which run"]
    assert set(puzzle.answers.values()) == set(puzzle.options) == set(SHIFTS)
    assert set(puzzle.look) == set(puzzle.why) == set(puzzle.answers)


def test_a_run_that_copies_is_watched_getting_better_while_it_gets_worse():
    rows = encode_corpus(CORPUS[:60], load_chat())
    later, config = batch_of(rows[40:], load_chat().pad), PretrainingConfig(steps=60, warmup=5, muon=False)
    copies, right = (
        pretraining.watched(GPT(DEFAULT, seed=0), rows[:40], name, later, config)
        for name in ("targets not shifted", "nothing is wrong")
    )
    assert [row["step"] for row in copies if "real" in row] == [10, 20, 30, 40, 50, 60]
    assert copies[-1]["loss"] < right[-1]["loss"] and copies[-1]["real"] > right[-1]["real"]


def test_what_the_figures_say_comes_from_what_they_draw(alt_texts):
    figures.attention(["a", " b"], torch.tensor([[1.0, 0.0], [0.7, 0.3]]))
    assert "a on a 1.00, b on a 0.70" in alt_texts[-1]
    figures.mixture({"poems": 0.25, "lists": 0.75})
    assert "poems 25%, lists 75%" in alt_texts[-1]
    figures.losses([8.0, 5.0], [8.0, 4.0], 8.3)
    assert "ln V, 8.3 nats" in alt_texts[-1] and "ends at 6.00, after 2;" in alt_texts[-1]
    figures.turns({"poem": 0.5}, {"poem": [0.25, 0.75, 0.8]})
    assert "for each of 3 samples" in alt_texts[-1] and "poem 0.50 and 0.60" in alt_texts[-1]
    rows = [{"where": "alone", "says": "the prompt", "answer": a, "gold": 1.0} for a in (0.2, 0.4)]
    figures.without_training(rows)
    assert "alone, the prompt: 0.30. Gold reward, greedy: alone, the prompt: 1.00." in alt_texts[-1]
    figures.by_letter({"A": [(10, 8.0), (20, 3.0)]}, "the loss", 8.3)
    assert "begin at A 8 nats and end near A 3.0" in alt_texts[-1]


def test_a_table_shows_one_share_or_a_mean_with_its_range(capsys):
    figures.space_or_none({"no word": [0.0], "words": [0.2, 0.4]}, {"no word": [0.7], "words": [0.8, 1.0]})
    _, alone, words = capsys.readouterr().out.splitlines()
    assert alone.split() == ["no", "word", "0.00", "0.70"]
    assert words.split("  ")[-1] == "(0.80 to 1.00)" and "0.30  (0.20 to 0.40)" in words


def test_all_arms_of_the_notebook_have_a_colour():
    drawn = {says for _, says, _, _ in arms()}
    examples = {"about known things", "about unknown things"}
    examples |= {"known things, no empty lines", "known things, in its corpus's words"}
    assert drawn | examples == set(figures.ARMS)


def test_the_table_puts_ways_of_asking_beside_fine_tuning(capsys):
    table = load_history("by_demonstrations")
    figures.free_or_taught(table)
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 5 and "fine-tuned, 3,000 demonstrations" in lines[-1]
    gold = [float(line.split()[-1]) for line in lines]
    # "In gold, the base model asked in the right way is worth more than any of these fine-tuned ones."
    assert gold[1] > max(gold[3:]) and np.argmax(gold) == 1
