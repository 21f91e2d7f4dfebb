"""What a reader talks to: a model with its way of being asked."""

from collections.abc import Sequence

from minialign.chat import collate
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs
from minialign.sampling import evaluating, generate, require_finite


class LanguageModel:
    """A GPT and its way of being asked: an assistant in its chat template, a base model with the bare text.

    `model` is the network, which algorithms train.
    """

    def __init__(self, model: GPT, template: bool = True):
        self.model, self.template = model, template

    def respond(
        self,
        prompt: str | Sequence[str],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int = 96,
    ) -> str | list[str]:
        """The response to a prompt, or the list of responses to a list of them. Temperature 0 is greedy."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        encoded = [self._encode(text) for text in prompts]
        options = dict(temperature=temperature, seed=seed, max_new_tokens=max_new_tokens, ends=[self._end])
        texts = [text.strip() for text in generate(self.model, encoded, **options).texts]
        return texts[0] if isinstance(prompt, str) else texts

    def log_prob(self, prompt: str, response: str) -> float:
        """log π(response | prompt) in nats.

        Of an assistant the end token counts; of a base model, which only goes on, it does not.
        """
        chat = self.model.chat
        pair = self._encode(prompt), chat.encode_response(response, end=self.template)
        batch = collate([pair], chat.pad, self.model.config.context)
        with evaluating(self.model):
            log_probs = sequence_log_probs(self.model, batch.to(self.model.device))
        require_finite(log_probs, "log-probabilities")
        return float(log_probs)

    def _encode(self, prompt: str) -> list[int]:
        chat = self.model.chat
        return chat.encode_prompt(prompt) if self.template else chat.encode_document(prompt)

    @property
    def _end(self) -> int:
        chat = self.model.chat
        return chat.end if self.template else chat.separator
