"""Entry point: what must happen before the numeric libraries are imported."""

from speechssl.runtime.threads import wait_passively


def main() -> None:
    """Decide how threads wait, then import and run the command."""
    wait_passively()

    # Imported only now: OpenMP reads its policy when torch and numpy load it.
    from speechssl.cli.main import main as run

    run()
