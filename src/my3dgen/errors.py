"""Errors a user can mend: one line that names the file or value and says what to do.

The command line prints the message alone and exits with code 2 (`my3dgen.cli`).
"""


class UserError(Exception):
    """Base of every error the user can mend. The message is one complete line."""


class PhotoError(UserError):
    """A photo cannot be used (unreadable, too small, no face, two faces...)."""


class FileFormatError(UserError):
    """A file is not what it claims to be, is damaged, or is larger than allowed."""


class PriorMismatchError(UserError):
    """A person file or latent was made with another prior."""


class UnsafePickleError(FileFormatError):
    """A checkpoint asks for something outside the allow-list and was not opened."""


class MissingWeightsError(UserError):
    """A network's weights are not present; the message names the remedy."""
