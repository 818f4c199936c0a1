"""A subcommand called with keyword arguments, which raises what its errors are made of."""

from fedlas.cli.main import run


def command(name, *places, **options):
    """Run ``fedlas NAME PLACES --OPTION VALUE``; True is an option without a value, and None leaves one out."""
    words = [name, *map(str, places)]
    for key, value in options.items():
        if value is None or value is False:
            continue
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return run(words)
