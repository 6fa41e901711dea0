"""What a user reads when something is wrong: one message, exit status 1, no traceback."""

import errno


class UserError(Exception):
    """A mistake in the input or the surroundings, told as what, where and what to do."""


def first_line(error: BaseException) -> str:
    """An exception in one line; its name where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception, of whichever library, says that the device has no space left."""
    # HDF5 and safetensors wrap the system's error in their own and keep only its words.
    text = str(error)
    if error.__context__ is not None and is_disk_full(error.__context__):
        return True  # torch's writer fails once more while it closes a file that could not be written
    return (
        (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
        or f"errno = {errno.ENOSPC}" in text
        or "No space left on device" in text
    )
