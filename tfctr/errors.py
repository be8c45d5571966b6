"""The one exception that is meant for people."""


class UserError(Exception):
    """Something the user can mend: what is wrong, where, what is allowed, what to do.

    The command line prints the message as `error: ...` and exits with status 2, without a traceback.
    """
