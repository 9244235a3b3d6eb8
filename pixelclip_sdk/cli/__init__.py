"""The command `pixelclip`: one module per verb. A verb reads arguments, calls the SDK and prints.

To add a verb, write a module with a function `add_parser`, as in `cli/benchmark.py`, and list the module in
`main.VERBS`. Options that several verbs share are in `cli/common.py`, types of arguments in
`support/arguments.py`. Add the verb to docs/cli.md; a test compares the two.

A verb raises errors of `pixelclip_sdk.errors`; `main` turns them into a message and exit code 1. Verbs print
results to stdout, progress and problems to stderr (`support.command.report`), names through
`support.command.printable`, and with ``--json`` nothing but JSON to stdout.
"""
