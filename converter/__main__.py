"""Run the command line: `python -m converter`, or the script `ben-convert`."""

import sys
from typing import NoReturn

from converter.errors import EXIT_INTERRUPTED


def main() -> NoReturn:
    """Run the command line, and end quietly if it is interrupted while it is still being imported."""
    try:
        from converter import cli  # noqa: PLC0415 - takes a second or two
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    cli.main()


if __name__ == "__main__":
    main()
