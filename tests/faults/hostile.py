"""Bodies of the greatest length taken, each made to cost its reader as much as it can.

One for each way to be costly: many keys, many faults, deep nesting, long scalars, comments, and
values for the field whose check looks at them longest.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

JSON: Final = "application/json"
YAML: Final = "application/yaml"
STRUCTURED: Final = "application/cloudevents+json"
LONGEST: Final = 262_144
_MANY: Final = 11_900
"""As many values as are taken, nearly."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """A body, and what it says it is."""

    name: str
    body: bytes
    content_type: str


def _fill(piece: str, *, around: str = "") -> str:
    """Return the piece as often as there is room for."""
    return piece * ((LONGEST - len(around)) // len(piece.encode()))


def _document(**fields: object) -> dict[str, object]:
    return {"tenant_id": "hostile", "containers": [{"image": "web"}], **fields}


def _container(**fields: object) -> dict[str, object]:
    return _document(containers=[{"image": "web", **fields}])


def _config(**fields: object) -> dict[str, object]:
    return _document(provider_config=fields)


_TEXT: Final = "x" * 250_000
_SMALL: Final = json.dumps(_document())
_LABELS: Final = "tenant_id: hostile\nlabels:\n" + "".join(f" k{i}: x\n" for i in range(_MANY))

_IN_JSON: Final[Mapping[str, object]] = {
    "unknown fields": _document(**{f"k{place}": 1 for place in range(_MANY)}),
    "unknown field of great length": _document(**{_TEXT: 1}),
    "many containers": _document(containers=[{}] * _MANY),
    "many wrong ports": _container(ports=[{f"k{n}": 1 for n in range(38)}] * 256),
    "many wrong variables": _container(env={f"K{place}": None for place in range(1000)}),
    "many variables": _container(env={f"K{place}": "v" * 200 for place in range(1000)}),
    "words of a check": _container(healthcheck={"test": [1] * _MANY}),
    "image of dashes": _container(image="a-" * 120_000),
    "image of dots": _container(image="a." * 120_000 + "/x"),
    "image of slashes": _container(image="a/" * 120_000),
    "image of lines": _container(image="a__" * 80_000 + "!"),
    "image of colons": _container(image=":" * 240_000),
    "tenant id": {"tenant_id": _TEXT},
    "label": _document(labels={_TEXT: "x"}),
    "volume": _config(volumes=["/a:/" + "b/" * 120_000]),
    "modes of a volume": _config(volumes=["/a:/b:" + "ro," * 80_000]),
    "options of a tmpfs": _config(tmpfs={"/a": "size=1," * 35_000}),
    "paths of tmpfs": _config(tmpfs={"/" + "a/" * 450 + str(place): "" for place in range(256)}),
    "host name": _config(hostname=_TEXT),
    "user": _config(user="1" * 250_000),
    "capability": _config(cap_add=["\u00df" * 100_000]),
    "name server": _config(dns=["::" * 120_000]),
    "host": _config(extra_hosts=["a" * 120_000 + ":1.2.3.4"]),
    "log option": _config(log_options={"max-size": "1" * 250_000}),
    "log options": _config(log_options={f"k{place}": "x" * 900 for place in range(256)}),
    "signal": _config(stop_signal="SIG" + _TEXT),
    "restart policy": _config(restart_policy="on-failure:" + "1" * 250_000),
    "options of security": _config(security_opt=["x" * 900] * 256),
    "field that is to be empty": _document(networking={str(n): {} for n in range(3_000)}),
    "one secret again and again": _container(secrets=["a"] * _MANY),
}
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "JSON numbers": ("[" + _fill("1.5,", around="[1]") + "1]", JSON),
    "JSON maps": ("[" + _fill("{},", around="[1]") + "1]", JSON),
    "JSON keys": ("{" + '"a":1,' * _MANY + '"b":1}', JSON),
    "JSON strings": ("[" + _fill('"",', around="[1]") + "1]", JSON),
    "JSON escapes": ('{"a":"' + _fill("\\ud83d\\ude00", around='{"a":""}') + '"}', JSON),
    "JSON nested": (_fill("["), JSON),
    "JSON nested maps": (_fill('{"a":'), JSON),
    "JSON digits": (_SMALL.replace('"web"', "1" * 250_000), JSON),
    "JSON comments": (_fill("//\n", around=_SMALL) + _SMALL, JSON),
    "JSON comments in a line": (_fill("/**/", around=_SMALL) + _SMALL, JSON),
    "JSON comments without end": (_fill("/*"), JSON),
    "JSON quotes without end": ("/***/" + _fill('"\\', around="/***/"), JSON),
    "JSON space": (_fill(" ", around=_SMALL) + _SMALL, JSON),
    "YAML keys": ("".join(f"k{place}: 1\n" for place in range(22_000)), YAML),
    "YAML labels": (_LABELS, YAML),
    "YAML unknown fields": ("".join(f"k{place}: 1\n" for place in range(_MANY)), YAML),
    "YAML members": ("[" + _fill("a,", around="["), YAML),
    "YAML items": (_fill("-\n"), YAML),
    "YAML nested": (_fill("["), YAML),
    "YAML nested maps": (_fill("{a: "), YAML),
    "YAML nested items": (_fill("- "), YAML),
    "YAML questions": (_fill("? "), YAML),
    "YAML documents": (_fill("---\n"), YAML),
    "YAML scalar": ("a: " + _fill("x\n ", around="a: "), YAML),
    "YAML escapes": ('a: "' + _fill("\\x41", around='a: ""') + '"', YAML),
    "YAML text": ("a: |\n" + _fill(" x\n", around="a: |\n"), YAML),
    "YAML comments": (_fill("#\n"), YAML),
    "YAML tag": ("a: !" + _fill("x", around="a: !"), YAML),
    "YAML anchor": ("a: &" + _fill("x", around="a: &"), YAML),
    "YAML alias": ("a: *" + _fill("x", around="a: *"), YAML),
    "YAML indentation": ("\n".join(" " * depth + "a:" for depth in range(700)), YAML),
    "YAML in a CloudEvent": (
        json.dumps(
            {
                "specversion": "1.0",
                "type": "tenant.created",
                "id": "hostile",
                "datacontenttype": YAML,
                "data_base64": base64.b64encode(_LABELS.encode()).decode(),
            }
        ),
        STRUCTURED,
    ),
}

HOSTILE: Final = (
    *(
        Hostile(name, json.dumps(it, ensure_ascii=False).encode(), JSON)
        for name, it in _IN_JSON.items()
    ),
    *(Hostile(name, text.encode(), content_type) for name, (text, content_type) in _TEXTS.items()),
)
