"""Looking into gpunet itself: whether its kernels compute what they should here, and what they take of a card."""
