"""Simulation: training, retraining, sampling and curvature, on torch."""
