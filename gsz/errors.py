"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something in the user's input is wrong. The message is one line, names the file and says the remedy.

    The command-line tools print it without a traceback and exit with code 2 (see :func:`utils.cli.run`).
    """
