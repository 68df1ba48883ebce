"""How the learned map and its losses respond to a sample: by weight, left out, or seen at another time."""
