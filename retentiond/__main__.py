"""`python -m retentiond` is `retentiond`."""

from retentiond.cli.main import main

if __name__ == "__main__":
    main(prog_name="retentiond")
