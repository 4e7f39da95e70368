"""Run the command line: `ben-train`, or `python -m trainer`."""

from typing import NoReturn

from bigearthnet.commandline import run_program


def main() -> NoReturn:
    """Run the command line."""
    run_program("trainer.commands.cli")


if __name__ == "__main__":
    main()
