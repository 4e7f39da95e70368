"""Run the command line: `ben-convert`, or `python -m converter`."""

from typing import NoReturn

from bigearthnet.commandline import run_program


def main() -> NoReturn:
    """Run the command line."""
    run_program("converter.commands.cli")


if __name__ == "__main__":
    main()
