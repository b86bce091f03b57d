"""Python imports this at its start where this folder is in its path; see ``bench/turns.py``."""

from bench.turns import measure_program

measure_program()
