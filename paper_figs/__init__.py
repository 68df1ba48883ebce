"""Figures of the paper, analytic beside empirical."""
