"""What a posterior does: phases and their mixtures, exact integrals, samplers, learning coefficients."""
