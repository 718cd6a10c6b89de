# SPDX-License-Identifier: Apache-2.0
"""Errors of the sealed package.

    SealedError                         any refusal; never raised itself
    ├── KeyFormatError                  a recipient, identity or data key is malformed
    ├── WrapError
    │   ├── WrapFormatError             a wrap has the wrong length or shape
    │   └── WrongRecipientError         no wrap opens with this identity and context
    ├── PayloadError
    │   ├── PayloadTruncatedError       the payload stops before its end marker
    │   ├── PayloadDamagedError         a chunk or the header does not authenticate under this key and context
    │   └── DigestMismatchError         the ciphertext is not the one that was announced
    ├── ContainerError
    │   ├── NotSealedError              the file does not begin as a sealed container
    │   ├── UnsupportedVersionError     a container of a version that this program does not read
    │   ├── HeaderError                 fields of the header contradict the format
    │   ├── ContainerLimitError         a length above what the format allows
    │   ├── ContainerTruncatedError     the file ends early; names the part
    │   └── TrailingDataError           bytes follow the end
    └── BundleError
        ├── BundleFormatError           not a bundle, or not in its one canonical form
        ├── UnsafeNameError             a file name that could leave the folder or surprise
        ├── FileNotAllowedError         a kind of file that a model may not contain
        ├── BundleLimitError            more or larger files than the limits allow
        ├── DestinationError            the destination already holds such a file
        └── SourceChangedError          a file changed while it was read

`reason` is the stable name of the class for machines and test vectors; the message is for people.
Messages carry file names, sizes, offsets and key ids: never plaintext, never a secret key.
"""

from typing import ClassVar


class SealedError(Exception):
    """Something sealed was refused."""

    reason: ClassVar[str] = "SEALED_REFUSED"


class KeyFormatError(SealedError):
    """A key is malformed."""

    reason: ClassVar[str] = "BAD_KEY"


class WrapError(SealedError):
    """A wrap was refused."""

    reason: ClassVar[str] = "WRAP_REFUSED"


class WrapFormatError(WrapError):
    """A wrap has the wrong length or shape."""

    reason: ClassVar[str] = "BAD_WRAP"


class WrongRecipientError(WrapError):
    """No wrap opens with this identity and context."""

    reason: ClassVar[str] = "WRONG_RECIPIENT"


class PayloadError(SealedError):
    """A payload was refused."""

    reason: ClassVar[str] = "PAYLOAD_REFUSED"


class PayloadTruncatedError(PayloadError):
    """The payload stops before its end marker."""

    reason: ClassVar[str] = "PAYLOAD_TRUNCATED"


class PayloadDamagedError(PayloadError):
    """The payload does not authenticate under this key and context."""

    reason: ClassVar[str] = "PAYLOAD_DAMAGED"


class DigestMismatchError(PayloadError):
    """The ciphertext is not the one that was announced."""

    reason: ClassVar[str] = "DIGEST_MISMATCH"


class ContainerError(SealedError):
    """A container file was refused."""

    reason: ClassVar[str] = "CONTAINER_REFUSED"


class NotSealedError(ContainerError):
    """The file does not begin as a sealed container."""

    reason: ClassVar[str] = "NOT_SEALED"


class UnsupportedVersionError(ContainerError):
    """The container has a version that this program does not read."""

    reason: ClassVar[str] = "UNSUPPORTED_VERSION"


class HeaderError(ContainerError):
    """Fields of the container's header contradict the format."""

    reason: ClassVar[str] = "BAD_HEADER"


class ContainerLimitError(ContainerError):
    """A length is above what the format allows."""

    reason: ClassVar[str] = "CONTAINER_LIMIT"


class ContainerTruncatedError(ContainerError):
    """The container ends early."""

    reason: ClassVar[str] = "CONTAINER_TRUNCATED"


class TrailingDataError(ContainerError):
    """Bytes follow the end of the container."""

    reason: ClassVar[str] = "TRAILING_DATA"


class BundleError(SealedError):
    """A bundle of files was refused."""

    reason: ClassVar[str] = "BUNDLE_REFUSED"


class BundleFormatError(BundleError):
    """The bytes are not a bundle in its one canonical form."""

    reason: ClassVar[str] = "BAD_BUNDLE"


class UnsafeNameError(BundleError):
    """A file name could leave the folder or surprise its reader."""

    reason: ClassVar[str] = "UNSAFE_NAME"


class FileNotAllowedError(BundleError):
    """A model may not contain this kind of file."""

    reason: ClassVar[str] = "FILE_NOT_ALLOWED"


class BundleLimitError(BundleError):
    """The bundle has more or larger files than the limits allow."""

    reason: ClassVar[str] = "BUNDLE_LIMIT"


class DestinationError(BundleError):
    """The destination already holds such a file, or is no plain folder."""

    reason: ClassVar[str] = "DESTINATION"


class SourceChangedError(BundleError):
    """A file changed while it was read."""

    reason: ClassVar[str] = "SOURCE_CHANGED"
