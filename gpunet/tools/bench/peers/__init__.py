"""One module per peer, each with ``make(case, kind, variant, device) -> Runner``, which imports the peer."""
