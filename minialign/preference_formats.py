r"""The forms in which public sets write a preference, and the three texts that each of them means.

| form                 | prompt                           | chosen, and rejected likewise         |
|----------------------|----------------------------------|---------------------------------------|
| texts                | "Why?"                           | "So."                                 |
| messages, as in TRL  | [{"role": "user", "content": …}] | [{"role": "assistant", "content": …}] |
| … with the prompt    | none, or the same once more      | [{"role": "user", …}, {…}]            |
| marks, as in HH-RLHF | none, or the same once more      | "\n\nHuman: Why?\n\nAssistant: So."   |

Only a single prompt with a single response is read: what is longer is refused, not cut.
(HH-RLHF: Bai et al. 2022.)
"""

import re
from collections.abc import Mapping

import numpy as np

from minialign.faults import require_text

FIELDS = ("prompt", "chosen", "rejected")
MARK = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
PRINTED_MESSAGES = re.compile(r"""\s*\[\s*\{\s*['"](role|content)['"]\s*:""")


def three_texts(record) -> tuple[str, str, str]:
    """Prompt, chosen and rejected response of a record. Raises ValueError where they are not clear."""
    if not isinstance(record, Mapping):
        raise ValueError(f"this is no object with the fields {', '.join(FIELDS)}, but {record!r:.60}")
    if not record.keys() >= {"chosen", "rejected"}:
        raise _missing(next(field for field in FIELDS if field not in record), record)
    asked = _turns(record, "prompt", "user") if "prompt" in record else []
    talks = []
    for field in ("chosen", "rejected"):
        turns = _turns(record, field, "assistant")
        talk = turns if turns and turns[0][0] == "user" else asked + turns
        roles = [str(role) for role, _ in talk]
        if roles == ["assistant"]:
            raise _missing("prompt", record)
        if roles != ["user", "assistant"]:
            raise ValueError(
                f"{field} is a conversation ({', '.join(roles)}): only single turns are read, a prompt of "
                "the user and a response of the assistant"
            )
        talks.append([text for _, text in talk])
    (prompt, chosen), (other, rejected) = talks
    if {text.strip() for text in (prompt, other, *(text for _, text in asked))} != {prompt.strip()}:
        raise ValueError(f"the prompt is not the same in all fields: in 'chosen' it is {prompt[:60]!r}")
    if not prompt.strip():
        raise ValueError("the field 'prompt' is empty")
    return prompt, chosen, rejected


def _turns(record: Mapping, field: str, role: str) -> list[tuple[str, str]]:
    """(role, text) of each turn in a field; a text without marks is a single turn of `role`."""
    value = record[field]
    if isinstance(value, list | tuple | np.ndarray):
        for message in value:
            if not isinstance(message, Mapping) or not message.keys() >= {"role", "content"}:
                raise ValueError(
                    f"the field {field!r} is no text but a list, "
                    f"and {message!r:.60} in it is no message with role and content"
                )
            require_text(message["content"], f"a message in the field {field!r}")
        return [(message["role"], message["content"]) for message in value]
    require_text(value, f"the field {field!r}")
    if PRINTED_MESSAGES.match(value):
        raise ValueError(
            f"the field {field!r} is a list of messages printed as text: export it as JSON lines"
        )
    before, *marked = MARK.split(value)
    if not marked:
        return [(role, value)]
    turns = [(ROLES[mark], text.strip()) for mark, text in zip(marked[::2], marked[1::2])]
    if before.strip():
        turns.insert(0, (role, before))
    if field == "prompt" and turns[-1] == ("assistant", ""):
        turns.pop()  # the mark only says whose turn it is
    return turns


def _missing(field: str, record: Mapping) -> ValueError:
    others = "" if record.keys() < set(FIELDS) else f"; there are {', '.join(map(str, record)):.100}"
    return ValueError(f"the field {field!r} is missing{others}")
