"""Run the command line by `python -m converter`, as `ben-convert` does."""

from typing import NoReturn

from bigearthnet.commandline import ben_convert, run_program


def main() -> NoReturn:
    """Run the command line inside of a process that goes on."""
    run_program("converter.commands.cli")


if __name__ == "__main__":
    ben_convert()
