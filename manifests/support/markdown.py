"""Words of others in our Markdown."""


def plain(text: str) -> str:
    """Words as they are, on one line, whatever they contain: no link, no tag, no heading comes of them."""
    flat = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in flat)
