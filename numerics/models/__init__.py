"""What a network is: two-layer linear, or any torch module; its samples, and its weights along training."""
