"""What the engine's tests share: small models that are far from uniform, ragged batches, and GPT-2 as
transformers builds it.
"""

from contextlib import contextmanager

import torch

from minialign.chat import Batch
from minialign.gpt import GPT, GPTConfig
from minialign.preferences import Preference
from minialign.tokenizer import load_tokenizer
from minialign.world.prompts import prompts_of

# the vocabulary of the fixture toy_data
TINY = GPTConfig(vocab_size=261, context=48, n_layer=2, n_head=2, n_embd=16)
# the course's vocabulary and context: for its experiments
SMALL = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=160, n_layer=1, n_head=2, n_embd=8)


def manners(number: int) -> list[Preference]:
    """Two comparisons on each of some prompts, in which a kind answer is preferred to a curt one."""
    return [
        Preference(prompt.text, kind, curt)
        for prompt in prompts_of("reward")[:number]
        for kind, curt in (("I hope this helps.", "No."), ("Happy to help!", "Why?"))
    ]


def lively_gpt(config: GPTConfig = TINY, seed: int = 0) -> GPT:
    """A GPT whose every parameter matters: freshly initialised ones are so near to uniform that a bug hardly
    shows.
    """
    model = GPT(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * 0.3 + parameter.data.round()  # the LayerNorm weights are 1
    return model


@contextmanager
def default_dtype(dtype: torch.dtype):
    """Another default for what is made anew; afterwards it is as it was."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def favour(model: GPT, token: int, logit: float) -> GPT:
    """Make `token` likely everywhere, by about `logit` nats: a part of every final state is its embedding."""
    with torch.no_grad():
        direction = torch.zeros(model.config.n_embd)
        direction[0] = 1.0
        model.ln_f.weight[0] = 0.1
        model.ln_f.bias[0] = 1.0
        model.token_embedding.weight[token] = logit * direction
    return model


def random_ids(*shape: int, vocab: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def batch_of(pairs, left: int = 0, pad: int = 260, width: int = 0) -> Batch:
    """(prompt ids, response ids) pairs as a Batch, with `left` columns of padding before and at least `width`
    in all.
    """
    width = max(width, left + max(len(x) + len(y) for x, y in pairs))
    ids = torch.full((len(pairs), width), pad)
    mask, response_mask = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for i, (x, y) in enumerate(pairs):
        begin, middle, end = left, left + len(x), left + len(x) + len(y)
        ids[i, begin:end] = torch.tensor([*x, *y])
        mask[i, begin:end] = True
        response_mask[i, middle:end] = True
    return Batch(ids, mask, response_mask)


def gpt2(model: GPT, **overrides):
    """The same model in transformers, which keeps its linear weights transposed ("Conv1D")."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    shape = dict(
        vocab_size=c.vocab_size, n_positions=c.context, n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd
    )
    no_dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    no_special = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    theirs = GPT2LMHeadModel(GPT2Config(**shape, **no_dropout, **no_special, **overrides))
    theirs = theirs.to(model.token_embedding.weight.dtype)
    theirs.load_state_dict(gpt2_names(model.state_dict(), c.n_layer))
    return theirs.eval()


def gpt2_names(ours: dict, n_layer: int) -> dict:
    """Our parameters (or their gradients) by the names, and in the layout, of GPT2LMHeadModel."""
    names = {"token_embedding": "wte", "position_embedding": "wpe", "ln_f": "ln_f"}
    for i in range(n_layer):
        parts = {
            "ln_1": "ln_1",
            "ln_2": "ln_2",
            "attention.qkv": "attn.c_attn",
            "attention.proj": "attn.c_proj",
        }
        for our, their in (parts | {"up": "mlp.c_fc", "down": "mlp.c_proj"}).items():
            names[f"blocks.{i}.{our}"] = f"h.{i}.{their}"
    theirs = {}
    for name, tensor in ours.items():
        module, kind = name.rsplit(".", 1)
        transposed = kind == "weight" and names[module].split(".")[-1].startswith("c_")
        theirs[f"transformer.{names[module]}.{kind}"] = tensor.T.contiguous() if transposed else tensor
    return theirs | {"lm_head.weight": ours["token_embedding.weight"]}


def same_parameters(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Bit for bit."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
