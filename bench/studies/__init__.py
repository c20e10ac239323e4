"""Measurements behind the figures in README and docs, each a program: `python -m tinyres.bench.studies.NAME`."""
