"""``python -m phasewise``: the command line."""

from phasewise.cli import main

if __name__ == "__main__":
    main()
