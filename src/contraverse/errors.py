"""The two ways in which a command can fail: the user's mistake and ours."""


class UserError(ValueError):
    """A mistake that the user can mend: says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        lines = [f"{where}: {what}" if where else what]
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))
