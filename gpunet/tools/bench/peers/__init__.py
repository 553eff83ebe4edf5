"""One module a peer, each with ``make(case, kind, variant, device) -> Runner``.  They import their peer when they run."""
