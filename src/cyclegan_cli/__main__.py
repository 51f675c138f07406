"""``python -m cyclegan_cli``: the same command line, for where the script is not on the path."""

from cyclegan_cli.cli.app import app

if __name__ == "__main__":
    app(prog_name="cyclegan")
