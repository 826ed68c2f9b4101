"""Entry point: what must happen before the numeric libraries are imported."""

from speechssl.runtime.streams import open_closed_streams
from speechssl.runtime.threads import wait_passively


def main() -> None:
    """Open what was closed, decide how threads wait, then import and run the command."""
    open_closed_streams()
    wait_passively()

    # Imported only now: OpenMP reads its policy when torch and numpy load it.
    from speechssl.cli.main import main as run

    run()
