"""Options that the engine takes as text, and when it would refuse them: late, and in its own words.

Each function returns what is wrong, or None. The engine finds some of it when a container is made
and some only when it starts; a tenant is told at once, with the field's path. What a newer engine
may know beyond this is refused too, until somebody adds it here.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CAPABILITIES: Final = _words(
    """
    ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE
    MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP
    SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT
    SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
    """
)
ULIMITS: Final = _words(
    """
    as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending
    stack
    """
)
_SIGNALS: Final = _words(
    """
    ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT
    STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX
    """
)
_REAL_TIME: Final = re.compile(r"RTMIN\+(?:[1-9]|1[0-5])|RTMAX-(?:[1-9]|1[0-4])")
_LAST_SIGNAL: Final = 64
_UNLIMITED: Final = -1

_MODES: Final = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"}),
    frozenset({"nocopy"}),
)
"""Of each group a volume may have one."""
_PROPAGATION, _NO_COPY = _MODES[2:]

_TMPFS_FLAGS: Final = _words(
    """
    async atime defaults dev diratime dirsync exec noatime nodev nodiratime noexec norelatime
    nostrictatime nosuid relatime ro rw strictatime suid sync
    """
)
_TMPFS_VALUES: Final = {
    "size": re.compile(r"[0-9]+[kKmMgG%]?"),
    "nr_blocks": re.compile(r"[0-9]+[kKmMgG]?"),
    "nr_inodes": re.compile(r"[0-9]+[kKmMgG]?"),
    "mode": re.compile(r"[0-7]{1,4}"),
    "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
}

_SIZE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)? ?(?:[kmgtp]i?)?b?", re.IGNORECASE)
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")
_SWITCH: Final = re.compile(r"1|t|T|TRUE|true|True|0|f|F|FALSE|false|False")
_ANY: Final = re.compile(r".*", re.DOTALL)
_SWITCHED_ON: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_COMMON: Final = {"mode": re.compile(r"blocking|non-blocking"), "max-buffer-size": _SIZE}
_ROTATION: Final = {"max-size": _SIZE, "max-file": _COUNT, "compress": _SWITCH}
_NAMING: Final = dict.fromkeys(("labels", "labels-regex", "env", "env-regex", "tag"), _ANY)
_LOG_OPTIONS: Final[Mapping[str, Mapping[str, re.Pattern[str]]]] = {
    "json-file": {**_ROTATION, **_NAMING, **_COMMON},
    "local": {**_ROTATION, **_COMMON},
}


def lands_on(path: str) -> str:
    """Return the path in a container that a mount's target comes to."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def target_fault(path: str) -> str | None:
    """Say what is wrong with the place of a mount in the container."""
    target = lands_on(path)
    if target == "/":
        return "the target has to be an absolute path other than /"
    if target == "/proc" or target.startswith("/proc/"):
        return "the target has to be outside of /proc"
    return None


def mode_fault(modes: Iterable[str], *, is_path: bool) -> str | None:
    """Say what is wrong with a volume's modes; its source is a path on the host, or a name."""
    given = tuple(modes)
    for mode in given:
        group = next((group for group in _MODES if mode in group), None)
        if group is None:
            return f"unknown mode {mode!r}"
        if sum(other in group for other in given) > 1:
            return f"mode {mode!r} and another do not go together"
        if group is _NO_COPY and is_path:
            return "mode 'nocopy' is for volumes with a name"
        if group is _PROPAGATION and not is_path:
            return f"mode {mode!r} is for paths on the host"
    return None


def tmpfs_fault(options: str) -> str | None:
    """Say what is wrong with the options of a tmpfs."""
    for option in filter(None, options.split(",")):
        name, equals, value = option.partition("=")
        pattern = _TMPFS_VALUES.get(name) if equals else None
        if not equals and name in _TMPFS_FLAGS:
            continue
        if pattern is None:
            return f"unknown option {name[:40]!r}"
        if not pattern.fullmatch(value):
            return f"no value for {name}: {value[:40]!r}"
    return None


def signal_fault(signal: str) -> str | None:
    """Say what is wrong with a signal, by name or number."""
    if signal.isascii() and signal.isdigit():
        is_one = 1 <= int(signal) <= _LAST_SIGNAL
    else:
        name = signal.removeprefix("SIG")
        is_one = name in _SIGNALS or _REAL_TIME.fullmatch(name) is not None
    return None if is_one else "no signal"


def ulimit_fault(name: str, soft: int, hard: int) -> str | None:
    """Say what is wrong with a pair of limits; -1 means unlimited."""
    if name not in ULIMITS:
        return f"no such limit; there are {', '.join(sorted(ULIMITS))}"
    if hard != _UNLIMITED and (soft == _UNLIMITED or soft > hard):
        return "soft has to be at most hard"
    return None


def log_option_faults(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return by option what is wrong with it, for the drivers whose options are known here.

    A value is not told: it may hold what only the tenant may know.
    """
    known = _LOG_OPTIONS.get(driver)
    if known is None:
        return {}
    faults = {}
    for name, value in options.items():
        if name not in known:
            faults[name] = f"unknown option of {driver}; there are {', '.join(sorted(known))}"
        elif not known[name].fullmatch(value) or (known[name] is _SIZE and _is_nothing(value)):
            faults[name] = f"no value that {driver} takes"
    if not faults:
        faults = _clash(driver, options)
    return faults


def _is_nothing(size: str) -> bool:
    return not re.search(r"[1-9]", size)


def _clash(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the option that does not go with the others."""
    compress = options.get("compress", "true" if driver == "local" else "false")
    if compress in _SWITCHED_ON and options.get("max-file") == "1":
        return {"max-file": "has to be at least 2, or compress false"}
    if "max-buffer-size" in options and options.get("mode") != "non-blocking":
        return {"max-buffer-size": "needs mode non-blocking"}
    return {}
