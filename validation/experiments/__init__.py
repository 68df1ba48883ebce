"""What is measured once: claims, cross-checks and figures take their numbers from here."""
