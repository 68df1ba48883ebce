"""Samplers of the local posterior, their chains and moments, and the Bayesian influence made from them."""
