"""The command line. Importing it loads neither PyTorch nor transformers: ``contraverse --help`` answers at once."""


def main() -> None:
    """Entry point of the ``contraverse`` command."""
    from contraverse.cli.app import app

    app(prog_name="contraverse")
