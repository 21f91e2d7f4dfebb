"""What is wrong with a reader's data, told so that it can be mended: in one line, several faults at once."""


def require_text(text, what: str) -> None:
    """Raise ValueError unless `text` is a string of whole characters; `what` is what the error calls it.

    JSON and JavaScript can cut an emoji in half, and no file can be written with one half.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} is no text but {text!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.start + 20]
        raise ValueError(
            f"{what} holds half a character (a lone surrogate, in {near!r}): remove it"
        ) from None


def one_error(faults: list[str]) -> ValueError:
    """All faults in one error: a single one as it is, else their number and the first five, a line each."""
    if len(faults) == 1:
        return ValueError(faults[0])
    which = ", the first five" if len(faults) > 5 else ""
    return ValueError("\n".join([f"{len(faults):,} faults{which}:", *faults[:5]]))
