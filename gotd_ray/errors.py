"""The one exception a user can mend: it says what was given, what is allowed and what to do."""


class UserError(ValueError):
    """A mistake in the input or the settings.

    The command line prints it without a traceback and exits with 2. Write the message as *value, limit, remedy*:
    ``select.budget is 900,000, but the corpus has 51,204 documents. Lower the budget or add to corpus.paths.``
    """
