"""TLS at both doors that speak it: which files are used, and how closely the other is looked at.

A file that cannot be used is told by the setting that names it; a key with a passphrase is one, for
nobody is here to type it. Python's own default became strict with 3.13 (RFC 5280 to the letter),
and refuses what everybody else takes, the certificates that `docker:dind` makes for itself among
them. Here the default is the same on every Python, that of the `docker` command; strict is a
choice.
"""

import ssl

from consumer.errors import ConsumerError


class TlsFault(ConsumerError):
    """A PEM file is no good: `name` says which (`ca`, `cert`, `key`), `rule` what is the matter."""

    def __init__(self, name: str, rule: str) -> None:
        super().__init__(f"{name}: {rule}")
        self.name = name
        self.rule = rule


def tls_context(
    *,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    verify: bool = True,
    is_strict: bool = False,
) -> ssl.SSLContext:
    """Return how TLS is spoken with the other side; without `ca`, the system's are trusted.

    Raises TlsFault when a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise TlsFault("ca", f"{ca} cannot be used: {_tls_words(error)}") from error
    _look_at_certificates(context, is_strict=is_strict)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, _no_passphrase)
        except ValueError as error:
            raise TlsFault("key", f"{key} {error}") from error
        except OSError as error:
            raise TlsFault(
                "cert", f"{cert} cannot be used with the key {key}: {_tls_words(error)}"
            ) from error
    return context


def _no_passphrase() -> str:
    # Or OpenSSL would ask for it on the terminal, and wait.
    raise ValueError("has a passphrase, which nobody is here to type")


def _tls_words(error: Exception) -> str:
    match error:
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case ssl.SSLError():
            return "it is no PEM file of this kind"
        case OSError(strerror=str(words)):
            return words
        case _:
            return str(error)


def _look_at_certificates(context: ssl.SSLContext, *, is_strict: bool) -> None:
    """Have the context refuse a certificate for a slip of form, or not."""
    if is_strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
