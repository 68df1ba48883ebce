"""How a linear network learns: mode strengths and the exact map at any time."""
