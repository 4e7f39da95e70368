"""Run the command line by `python -m trainer`, as `ben-train` does."""

from bigearthnet.commandline import ben_train as main

__all__ = ["main"]

if __name__ == "__main__":
    main()
