"""Benchmarks: each module measures one thing against its baseline in the same run; `python -m bench --help`."""
