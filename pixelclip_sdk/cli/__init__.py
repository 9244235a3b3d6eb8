"""The command `pixelclip`: one module per verb. A verb reads arguments, calls the SDK and prints.

To add a verb, write a module here with one function and list it in `main.COMMANDS`::

    def add_parser(commands: Parsers) -> None:
        parser = commands.add_parser("count", help="count the images in a folder")
        parser.add_argument("folder", type=path)
        add_json_option(parser)
        parser.set_defaults(run=_count)

    def _count(options: argparse.Namespace) -> int:
        ...
        return 0  # The exit code.

The function raises errors of `pixelclip_sdk.errors`; `main` turns them into a message and exit code 1. Verbs
print results to stdout, progress and problems to stderr (`support.command.report`), names through
`support.command.printable`, and with ``--json`` nothing but JSON to stdout.
"""
