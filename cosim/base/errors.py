"""What the command line reports in one line and exits with 2."""


class ToolError(Exception):
    """A tool, file or option that the user has to mend; the text names the thing and the mend."""
