"""Run the command line by `python -m converter`, as `ben-convert` does."""

from bigearthnet.commandline import ben_convert as main

__all__ = ["main"]

if __name__ == "__main__":
    main()
