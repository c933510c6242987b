"""How closely the other side's certificate is looked at, at both doors that speak TLS.

Python's own default became strict with 3.13 (RFC 5280 to the letter), and refuses what everybody
else takes, the certificates that `docker:dind` makes for itself among them. Here the default is the
same on every Python, that of the `docker` command; strict is a choice.
"""

import ssl


def look_at_certificates(context: ssl.SSLContext, *, is_strict: bool) -> None:
    """Have the context refuse a certificate for a slip of form, or not."""
    if is_strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
