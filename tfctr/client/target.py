"""The target of a client: which of its forms gRPC takes."""

import re

from tfctr.client.errors import BadRequestError

_WITH_ADDRESSES = ("dns", "ipv4", "ipv6")
_OTHERS = ("unix", "unix-abstract", "vsock", "xds")
_ADDRESS = re.compile(r"(?:\[[^\[\]\s]+\]|[^\[\]:,/\s]+):([0-9]{1,5})")


def check_target(target: str) -> None:
    """Refuses a target that gRPC would take for the name of a host that does not exist.

    Raises:
        BadRequestError: what is wrong with it, and the forms that are allowed.
    """
    if not isinstance(target, str) or not target:
        raise _wrong("it must be text", target)
    scheme, colon, rest = target.partition(":")
    if "://" in target and scheme not in (*_WITH_ADDRESSES, *_OTHERS):
        raise _wrong(f"'{scheme}://' is no scheme of gRPC; leave it out", target)
    if colon and scheme in _OTHERS:
        return
    addresses = rest.rpartition("/")[2] if colon and scheme in _WITH_ADDRESSES else target
    several = addresses.split(",")
    if len(several) > 1 and not (colon and scheme in ("ipv4", "ipv6")):
        raise _wrong("several servers need ipv4: or ipv6: and their addresses, or a DNS name that has them all", target)
    for address in several:
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise _wrong("each server needs a host and a port", target)
        if not 0 < int(found[1]) < 2**16:
            raise _wrong("a port is between 1 and 65535", target)


def _wrong(why: str, target: object) -> BadRequestError:
    return BadRequestError(
        f"target: {why}. Allowed: HOST:PORT, [IPV6]:PORT, dns:///HOST:PORT, ipv4:ADDRESS:PORT,ADDRESS:PORT, unix:PATH. "
        f"Received: {target!r}"
    )
