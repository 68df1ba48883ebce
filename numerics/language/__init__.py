"""Language models: small ones, their tokens and classes of tokens, sampling per token, and influence between tokens."""
