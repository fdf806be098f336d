"""Lets `python -m headworks` stand for the `headworks` command."""

from headworks.cli import main

if __name__ == "__main__":
    main()
