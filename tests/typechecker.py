"""The run-time type checker used by the tests: beartype with Python's numeric tower (an int is a float)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
