"""``python -m stagewise`` is the command ``stagewise``."""

from stagewise.command import run

if __name__ == "__main__":
    run()
