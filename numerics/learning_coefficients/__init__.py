"""The local learning coefficient by sampling, and its limits where they are known."""
