"""``torch.backends.mkldnn``, which is not used."""


def is_available() -> bool:
    """Return False."""
    return False
