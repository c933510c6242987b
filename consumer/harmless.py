"""Text from outside, for a terminal: its control characters written out.

Whatever came off the broker, out of a container or from a server may hold escape sequences, with
which it would rewrite, hide or forge what a person sees; also marks that reverse the direction of
what follows. Used by the command line, and by the log where it is text.
"""


def harmless(text: str) -> str:
    """Return the text with its control characters written out, but for line ends and tabs."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def in_its_place(text: str) -> str:
    """Return the same with every further line set in, so that none looks like one of ours."""
    return harmless(text).replace("\n", "\n    ")


def in_one_line(text: str) -> str:
    """Return the same with line ends and tabs written out too, so that it is no line of its own."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")
