"""Cross-checks of theory, sampling and retraining, each with its measured error."""
