"""``python -m netdiag``: the same as the ``netdiag`` program."""

from netdiag.cli import main

if __name__ == "__main__":
    main()
