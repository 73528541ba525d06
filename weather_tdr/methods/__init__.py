"""How the batches' losses become a step: one idea a file."""
