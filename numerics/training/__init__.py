"""Descent and its derivative: train, retrain with other sample weights, leave out, ablate, unroll."""
