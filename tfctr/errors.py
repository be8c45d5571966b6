"""The exception for errors that users cause and can fix."""


class UserError(Exception):
    """An expected error, shown without a traceback. The message says what is wrong, where, and what is allowed.

    The command line prints it as `error: ...` and exits with status 2.
    """
