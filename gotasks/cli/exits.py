"""Exit codes: what a script can tell from the end of a command."""

from __future__ import annotations

from gotasks.errors import BrokerError, ConfigurationError, InvalidArgs, Rejected, Unsupported, WaitTimeout

OK = 0
FAILED = 1  #: the thing asked about: a task that failed, isn't there, or is in doubt
USAGE = 2  #: options, configuration, or something that this broker or app doesn't allow; repeating won't help
UNAVAILABLE = 3  #: the broker can't be reached, or failed; repeating may help
TIMEOUT = 4  #: the time to wait is over
BUG = 70  #: as EX_SOFTWARE of sysexits.h

EPILOG = """\b
Exit codes:
  0  done
  1  the thing asked about failed: a task that failed, isn't there, or is in doubt
  2  usage or configuration; the message says what to change
  3  the broker can't be reached, or failed
  4  timed out
  70  a bug in gotasks or in a plug-in
A second SIGTERM or Ctrl-C ends a worker at once, with 128 + the signal's number.
GOTASKS_DEBUG=1 shows the traceback of an error.
"""


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ends with this error."""
    if isinstance(error, WaitTimeout):
        return TIMEOUT
    if isinstance(error, (ConfigurationError, InvalidArgs, Unsupported, Rejected)):
        return USAGE
    if isinstance(error, BrokerError):
        return UNAVAILABLE
    return FAILED
