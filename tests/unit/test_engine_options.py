"""Options that the engine takes as text: refused as the engine would, only earlier.

What stands here was tried on a Docker Engine 20.10; the words behind each are what it answers.
"""

import pytest

from consumer.document import DocumentError, SpecDefaults, read_document

REFUSED = {
    # A mount's place: "invalid specification: destination can't be '/'", "Duplicate mount point".
    "the root by way of a folder": ({"volumes": ["/a:/x/.."]}, "volumes[0]", "other than /"),
    "over /proc": ({"volumes": ["/a:/proc/./sys"]}, "volumes[0]", "outside of /proc"),
    "one place written twice": ({"volumes": ["/a:/x", "/b:/y/../x"]}, "volumes", "twice: /x"),
    "one place, two slashes": ({"volumes": ["/a:/x", "/b://x"]}, "volumes", "twice: /x"),
    "volume and tmpfs": ({"volumes": ["/a:/x"], "tmpfs": {"/x/": ""}}, "tmpfs", "twice: /x"),
    "tmpfs at one place": ({"tmpfs": {"/x": "", "/x/": ""}}, "tmpfs", "twice: /x"),
    "tmpfs on the root": ({"tmpfs": {"/x/..": ""}}, "tmpfs", "other than /"),
    "tmpfs on /proc": ({"tmpfs": {"/proc": ""}}, "tmpfs", "outside of /proc"),
    # A volume's mode: "invalid mode", "field VolumeOptions must not be specified".
    "ro and rw": ({"volumes": ["/a:/x:ro,rw"]}, "volumes[0]", "do not go together"),
    "z and Z": ({"volumes": ["/a:/x:z,Z"]}, "volumes[0]", "do not go together"),
    "ro twice": ({"volumes": ["/a:/x:ro,ro"]}, "volumes[0]", "do not go together"),
    "nocopy of a path": ({"volumes": ["/a:/x:nocopy"]}, "volumes[0]", "with a name"),
    "propagation of a name": ({"volumes": ["ab:/x:shared"]}, "volumes[0]", "paths on the host"),
    "a name of one letter": ({"volumes": ["a:/x"]}, "volumes[0]", "the source"),
    "a name of 256": ({"volumes": ["a" * 256 + ":/x"]}, "volumes[0]", "the source"),
    # A tmpfs' options: "invalid tmpfs option", or no start.
    "tmpfs option": ({"tmpfs": {"/x": "sizee=1m"}}, "tmpfs./x", "unknown option 'sizee'"),
    "tmpfs size": ({"tmpfs": {"/x": "rw,size=lots"}}, "tmpfs./x", "no value for size: 'lots'"),
    "tmpfs mode": ({"tmpfs": {"/x": "mode=0999"}}, "tmpfs./x", "no value for mode"),
    "tmpfs flag with a value": ({"tmpfs": {"/x": "exec=1"}}, "tmpfs./x", "unknown option"),
    "tmpfs value without one": ({"tmpfs": {"/x": "size"}}, "tmpfs./x", "unknown option"),
    "tmpfs as another mount": ({"tmpfs": {"/x": "bind"}}, "tmpfs./x", "unknown option 'bind'"),
    # "Invalid signal", "unknown capability".
    "a signal's name": ({"stop_signal": "SIGBOGUS"}, "stop_signal", "no signal"),
    "a signal's case": ({"stop_signal": "sigterm"}, "stop_signal", "no signal"),
    "a signal's number": ({"stop_signal": 65}, "stop_signal", "no signal"),
    "signal 0": ({"stop_signal": 0}, "stop_signal", "no signal"),
    "a signal in real time": ({"stop_signal": "RTMIN+16"}, "stop_signal", "no signal"),
    "a capability": ({"cap_drop": ["BOGUS"]}, "cap_drop[0]", "has to be a capability"),
    # "wrong rlimit value", "error setting rlimit".
    "a limit's name": ({"ulimits": {"x": {"soft": 1, "hard": 1}}}, "ulimits", "no such limit"),
    "soft above hard": (
        {"ulimits": {"nofile": {"soft": 2, "hard": 1}}},
        "ulimits",
        "nofile: soft has to be at most hard",
    ),
    "soft without end": (
        {"ulimits": {"core": {"soft": -1, "hard": 1}}},
        "ulimits",
        "core: soft has to be at most hard",
    ),
    # "uids and gids must be in range 0-2147483647".
    "a user's number": ({"user": "0:2147483648"}, "user", "at most 2147483647"),
}


def faults(config: object, container: object = None) -> list[str]:
    """Return what is wrong with a document with this provider_config."""
    raw = {
        "tenant_id": "acme",
        "containers": [{"image": "nginx"} | (container if isinstance(container, dict) else {})],
        "provider_config": config,
    }
    try:
        read_document(raw, SpecDefaults())
    except DocumentError as error:
        return [str(fault) for fault in error.faults]
    return []


@pytest.mark.parametrize(("config", "path", "rule"), REFUSED.values(), ids=REFUSED)
def test_what_the_engine_would_refuse_is_refused(config: object, path: str, rule: str) -> None:
    """One fault at its path, whether the engine finds it when making or when starting."""
    (fault,) = faults(config)

    assert fault.startswith(f"provider_config.{path}: ")
    assert rule in fault


@pytest.mark.parametrize(
    ("driver", "options", "rule"),
    [
        ("json-file", {"max-siz": "1m"}, "max-siz: unknown option of json-file"),
        ("json-file", {"max-size": "lots"}, "max-size: no value that json-file takes"),
        ("json-file", {"max-size": "-1"}, "max-size: no value"),
        ("json-file", {"max-size": 0}, "max-size: no value"),
        ("json-file", {"max-file": 0}, "max-file: no value"),
        ("json-file", {"max-file": "x"}, "max-file: no value"),
        ("json-file", {"compress": "maybe"}, "compress: no value"),
        ("json-file", {"compress": True, "max-file": 1}, "max-file: has to be at least 2"),
        ("json-file", {"mode": "fast"}, "mode: no value"),
        ("json-file", {"max-buffer-size": "1m"}, "max-buffer-size: needs mode non-blocking"),
        ("local", {"labels": "a"}, "labels: unknown option of local"),
        ("local", {"max-file": 1}, "max-file: has to be at least 2, or compress false"),
        ("local", {"max-size": "1q"}, "max-size: no value that local takes"),
    ],
)
def test_log_options_that_keep_a_container_from_starting_are_refused(
    driver: str, options: object, rule: str
) -> None:
    """The option is named, and its value is not."""
    (fault,) = faults({"log_driver": driver, "log_options": options})

    assert fault.startswith(f"provider_config.log_options: {rule}")


@pytest.mark.parametrize(
    "config",
    [
        {"log_options": {"max-size": "1.5m", "max-file": 1}},
        {"log_options": {"max-size": "10 MB", "compress": "true", "max-file": "2"}},
        {"log_options": {"max-size": "10MiB", "labels": "a,b", "env": "X", "tag": "{{.Name}}"}},
        {"log_options": {"mode": "non-blocking", "max-buffer-size": "1m"}},
        {"log_driver": "local", "log_options": {"max-file": 1, "compress": False}},
        {"log_driver": "none", "log_options": {"max-size": "1m"}},
        {"log_driver": "gelf", "log_options": {"gelf-address": "udp://10.0.0.1:1"}},
        {"tmpfs": {"/x": "rw,exec,size=10%,mode=1777,uid=1000,gid=1000,nr_inodes=5k", "/y": ""}},
        {"volumes": ["/a:/x:ro,z,rslave", "ab:/y:nocopy,rw", "ab:/x/y", "/a:/sys"]},
        {"stop_signal": "SIGRTMIN+15"},
        {"stop_signal": "RTMAX-14"},
        {"stop_signal": 64},
        {"ulimits": {"nofile": {"soft": 1, "hard": -1}, "core": {"soft": -1, "hard": -1}}},
        {"user": "2147483647:app"},
    ],
)
def test_what_the_engine_takes_is_taken(config: object) -> None:
    """Nothing of this kept a container from starting."""
    assert faults(config) == []


@pytest.mark.parametrize("test", [["CMD"], ["CMD-SHELL"], ["CMD-SHELL", "true", "x"]], ids=" ".join)
def test_a_health_check_without_its_words_is_refused(test: list[str]) -> None:
    """The engine takes it, and such a container is never healthy, or for a reason nobody meant."""
    (fault,) = faults({}, {"healthcheck": {"test": test}})

    assert fault.startswith("containers[0].healthcheck: test needs what is to be run after CMD")


def test_every_fault_of_the_options_is_told_at_once() -> None:
    """Also those that only show when several are looked at together."""
    found = faults(
        {
            "volumes": ["/a:/x"],
            "tmpfs": {"/x": ""},
            "log_options": {"max-size": "0", "a": "b"},
            "ulimits": {"a": {"soft": 1, "hard": 1}, "core": {"soft": 2, "hard": 1}},
            "stop_signal": "HELLO",
        },
        {"image": "Nginx"},
    )

    assert len(found) == 5
    assert [text for text in found if "max-size" in text and "; a: unknown option" in text]
    assert [text for text in found if "a: no such limit" in text and "; core: soft" in text]
