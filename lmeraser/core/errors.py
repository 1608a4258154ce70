"""Every error that lmeraser raises on purpose. The message is the one line that a user sees.

    LmeraserError                exit status 1
    ├── BadInputError            2   the user can mend it; nothing was changed
    │   ├── ParamsError              params.yaml
    │   ├── ManifestError            the table of records
    │   ├── ImageError               an image file, or its bytes
    │   ├── DigestMismatchError      bytes are not those that were promised
    │   ├── SlotError                more clusters than slots
    │   ├── ExpectationError         a validation suite
    │   ├── RequestError             erased subject, request id in use, nothing left to serve
    │   │   └── UnknownSubjectError      no record has the subject
    │   └── ProjectError             wrong folder, stale pipeline, lost key
    │       └── NotReadyError            nothing may answer now (serve/live.py)
    ├── BlockedError             3   allowed only with an explicit yes
    └── CheckFailedError         1   a check or a step failed; the previous state is whole
        ├── StepFailedError          a stage or a command
        │   └── UnreadableError      a file of a store cannot be read (stores/base.py)
        ├── VerificationError        the evidence does not show what was promised
        │   └── CertificateError     a certificate, or the chain of them, is not what was signed (prove/verify.py)
        └── ClaimLostError           another coordinator works on the request now

A message says where, what was found, what was expected and what to do next. It shows line numbers, ids and
digests, never a subject, a path of an image or a pixel.
"""

REPORT_VARIABLE = "LMERASER_ERROR_FILE"  # DVC hides a stage's exit status: a flow names a file here and reads it there


class LmeraserError(Exception):
    """Base of all; `exit_code` is the process's exit status."""

    exit_code = 1


class BadInputError(LmeraserError):
    exit_code = 2


class ParamsError(BadInputError):
    pass


class ManifestError(BadInputError):
    pass


class ImageError(BadInputError):
    pass


class DigestMismatchError(BadInputError):
    pass


class SlotError(BadInputError):
    pass


class ExpectationError(BadInputError):
    pass


class RequestError(BadInputError):
    pass


class UnknownSubjectError(RequestError):
    pass


class ProjectError(BadInputError):
    pass


class NotReadyError(ProjectError):
    pass


class BlockedError(LmeraserError):
    exit_code = 3


class CheckFailedError(LmeraserError):
    exit_code = 1


class StepFailedError(CheckFailedError):
    """A stage or a command failed; `exit_code` is 2 where its own line was about bad input."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class VerificationError(CheckFailedError):
    pass


class ClaimLostError(CheckFailedError):
    pass
