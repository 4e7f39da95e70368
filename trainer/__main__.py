"""Run the command line by `python -m trainer`, as `ben-train` does."""

from typing import NoReturn

from bigearthnet.commandline import ben_train, run_program


def main() -> NoReturn:
    """Run the command line inside of a process that goes on."""
    run_program("trainer.commands.cli")


if __name__ == "__main__":
    ben_train()
